// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock tier: stock Nix beside superpose, on equal stores and in turns on one store.
#![allow(clippy::unwrap_used, reason = "a trial may fail by panicking")]

mod backend_suite;
mod beside;
mod collecting;
mod copying;
mod daemons;
mod deleting;
mod deviations;
mod local_stores;
mod mounts;
mod moving;
mod optimising;
mod over_daemon;
mod overlay_stores;
mod registrations;
mod serving;
mod serving_builds;
mod serving_uploads;
mod serving_writes;
mod smoke;
mod stress;
mod together;
mod turns;
mod verifying;

use std::process::ExitCode;

use superpose_tests::{Suite, Tier};

fn main() -> ExitCode {
    let mut suite = Suite::start(Tier::Stock);
    smoke::register(&mut suite);
    local_stores::register(&mut suite);
    daemons::register(&mut suite);
    over_daemon::register(&mut suite);
    overlay_stores::register(&mut suite);
    serving::register(&mut suite);
    together::register(&mut suite);
    turns::register(&mut suite);
    stress::register(&mut suite);
    mounts::register(&mut suite);
    moving::register(&mut suite);
    registrations::register(&mut suite);
    copying::register(&mut suite);
    serving_writes::register(&mut suite);
    serving_builds::register(&mut suite);
    serving_uploads::register(&mut suite);
    optimising::register(&mut suite);
    deviations::register(&mut suite);
    collecting::register(&mut suite);
    deleting::register(&mut suite);
    verifying::register(&mut suite);
    suite.run()
}
