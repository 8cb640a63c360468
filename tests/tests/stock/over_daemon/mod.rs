// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trials of the other tiers once more, with a stock daemon before the lower store.

#[path = "../../root/collecting.rs"]
mod collecting;
#[path = "../../root/crashes.rs"]
mod crashes;
#[path = "../../root/crashing_repairs.rs"]
mod crashing_repairs;
#[path = "../../root/deleting.rs"]
mod deleting;
#[path = "../../root/full_disk.rs"]
mod full_disk;
#[path = "../../root/hooks.rs"]
mod hooks;
#[path = "../../root/nested.rs"]
mod nested;
#[path = "../../host/odd_names.rs"]
mod odd_names;
#[path = "../../root/optimising.rs"]
mod optimising;
#[path = "../../root/repairing.rs"]
mod repairing;
#[path = "../../host/run.rs"]
mod run;
#[path = "../../root/stress.rs"]
mod stress;
#[path = "../../root/verifying.rs"]
mod verifying;
#[path = "../../root/verifying_beside.rs"]
mod verifying_beside;

use superpose_tests::{StockNix, Suite, overlay_trials};

use crate::overlay_stores;

pub(crate) fn register(suite: &mut Suite) {
    suite.over_daemon(StockNix::Sid, &LEFT_OUT, |suite| {
        overlay_trials!(suite);
    });
    // Stock Nix on the same stores, too, and the older one as the daemon.
    suite.over_daemon(StockNix::Trixie, &[], overlay_stores::register);
}

/// Trials of local stores, which have nothing below, and two that take all rights from the files of a lower store: the
/// daemon of root gives them back.
const LEFT_OUT: [&str; 8] = [
    "a_bad_lower_object_is_repaired_above",
    "a_collection_of_a_local_store",
    "a_deletion_from_a_local_store",
    "a_repair_of_a_local_store",
    "an_addition_to_a_local_store",
    "every_odd_name_of_a_local_store_works",
    "memory_grows_with_the_rows",
    "the_lower_store_stays_byte_for_byte_the_same",
];
