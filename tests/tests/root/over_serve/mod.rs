// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trials once more with `superpose serve --read-only` before the lower store: our client, and our server.

#[path = "../../host/odd_names.rs"]
mod odd_names;
#[path = "../../host/run.rs"]
mod run;

use anyhow::{Result, ensure};
use superpose_tests::{Layers, Need, Suite, overlay_trials, trials};

use crate::{
    collecting, crashes, crashing_repairs, deleting, full_disk, hooks, nested, optimising, repairing, stress,
    verifying, verifying_beside,
};

pub(crate) fn register(suite: &mut Suite) {
    suite.over_serve(&LEFT_OUT, |suite| {
        trials!(suite, [Need::Root], the_lower_store_is_that_of_a_server);
        overlay_trials!(suite);
    });
}

/// Trials of local stores, which have nothing below.
const LEFT_OUT: [&str; 6] = [
    "a_collection_of_a_local_store",
    "a_deletion_from_a_local_store",
    "a_repair_of_a_local_store",
    "an_addition_to_a_local_store",
    "every_odd_name_of_a_local_store_works",
    "memory_grows_with_the_rows",
];

/// Otherwise all of these would be the same trials once more.
fn the_lower_store_is_that_of_a_server() -> Result<()> {
    let layers = Layers::new()?;
    let below = layers.add_below("below", "below\n", &[])?;
    let _mount = layers.mount()?;
    ensure!(layers.url().to_string_lossy().contains("unix://"));
    let located = layers.superpose()?.args(["path-info", "--layer", &below]);
    ensure!(located.succeed()?.line()?.ends_with("lower"));
    let status = layers.superpose()?.arg("status").succeed()?;
    ensure!(status.text()?.contains("unix://"), "{status}");
    Ok(())
}
