// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores on real mounts: opened, filled, emptied, killed and opened again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "the mark of the inner run is an environment variable"
)]

mod adding;
mod amounts;
mod arriving;
mod collecting;
mod collecting_beside;
mod collecting_repaired;
mod comparing;
mod crashing;
mod crashing_optimise;
mod crashing_repairs;
mod deleting;
mod guarding;
mod importing;
mod knowing;
mod leaving;
mod linking;
mod linking_refused;
mod merging;
mod moving;
#[path = "../namespace/mod.rs"]
mod namespace;
mod opening;
mod optimising;
mod optimising_beside;
mod repairing;
mod stage;
mod uploading;
mod verifying;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = crashing::child() {
        return code;
    }
    let mounting = [
        adding::TRIALS,
        amounts::TRIALS,
        collecting::TRIALS,
        collecting_beside::TRIALS,
        collecting_repaired::TRIALS,
        comparing::TRIALS,
        crashing::TRIALS,
        crashing_optimise::TRIALS,
        crashing_repairs::TRIALS,
        deleting::TRIALS,
        guarding::TRIALS,
        importing::TRIALS,
        knowing::TRIALS,
        leaving::TRIALS,
        linking::TRIALS,
        linking_refused::TRIALS,
        merging::TRIALS,
        moving::TRIALS,
        opening::TRIALS,
        optimising::TRIALS,
        optimising_beside::TRIALS,
        repairing::TRIALS,
        uploading::TRIALS,
        verifying::TRIALS,
    ]
    .concat();
    let local = [
        adding::LOCAL_TRIALS,
        amounts::LOCAL_TRIALS,
        arriving::LOCAL_TRIALS,
        collecting::LOCAL_TRIALS,
        importing::LOCAL_TRIALS,
        moving::LOCAL_TRIALS,
        uploading::LOCAL_TRIALS,
    ]
    .concat();
    namespace::run(&mounting, &local)
}
