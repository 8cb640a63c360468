// SPDX-License-Identifier: MIT OR Apache-2.0
//! Root tier: real mounts, in a mount namespace that only this process and its children see.
#![allow(clippy::unwrap_used, reason = "a trial may fail by panicking")]

mod check_mount;
mod collecting;
mod crashes;
mod crashing_repairs;
mod deleting;
mod full_disk;
mod hooks;
mod manual;
mod moving_roots;
mod nested;
mod optimising;
mod over_serve;
mod power;
mod readme;
mod repairing;
mod smoke;
mod stress;
mod verifying;
mod verifying_beside;

use std::process::ExitCode;

use superpose_tests::{Suite, Tier};

fn main() -> ExitCode {
    let mut suite = Suite::start(Tier::Root);
    smoke::register(&mut suite);
    manual::register(&mut suite);
    check_mount::register(&mut suite);
    hooks::register(&mut suite);
    deleting::register(&mut suite);
    full_disk::register(&mut suite);
    moving_roots::register(&mut suite);
    nested::register(&mut suite);
    optimising::register(&mut suite);
    readme::register(&mut suite);
    collecting::register(&mut suite);
    crashes::register(&mut suite);
    verifying::register(&mut suite);
    verifying_beside::register(&mut suite);
    crashing_repairs::register(&mut suite);
    repairing::register(&mut suite);
    stress::register(&mut suite);
    power::register(&mut suite);
    over_serve::register(&mut suite);
    suite.run()
}
