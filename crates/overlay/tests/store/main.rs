// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores on real mounts: opened, filled, emptied, killed and opened again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "the mark of the inner run is an environment variable"
)]

mod adding;
mod crashing;
mod crashing_optimise;
mod deleting;
mod guarding;
mod knowing;
mod linking;
mod linking_refused;
#[path = "../namespace/mod.rs"]
mod namespace;
mod opening;
mod optimising;
mod optimising_beside;
mod stage;
mod verifying;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = crashing::child() {
        return code;
    }
    let mounting = [
        adding::TRIALS,
        crashing::TRIALS,
        crashing_optimise::TRIALS,
        deleting::TRIALS,
        guarding::TRIALS,
        knowing::TRIALS,
        linking::TRIALS,
        linking_refused::TRIALS,
        opening::TRIALS,
        optimising::TRIALS,
        optimising_beside::TRIALS,
        verifying::TRIALS,
    ]
    .concat();
    namespace::run(&mounting, adding::LOCAL_TRIALS)
}
