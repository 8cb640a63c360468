// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores on real mounts: opened, filled, emptied, killed and opened again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "the mark of the inner run is an environment variable"
)]

mod adding;
mod amounts;
mod collecting;
mod collecting_beside;
mod crashing;
mod deleting;
mod guarding;
mod knowing;
#[path = "../namespace/mod.rs"]
mod namespace;
mod opening;
mod stage;
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
        crashing::TRIALS,
        deleting::TRIALS,
        guarding::TRIALS,
        knowing::TRIALS,
        opening::TRIALS,
        verifying::TRIALS,
    ]
    .concat();
    let local = [
        adding::LOCAL_TRIALS,
        amounts::LOCAL_TRIALS,
        collecting::LOCAL_TRIALS,
    ]
    .concat();
    namespace::run(&mounting, &local)
}
