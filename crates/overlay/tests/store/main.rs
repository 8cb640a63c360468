// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores on real mounts: opened, filled, emptied, killed and opened again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "the mark of the inner run is an environment variable"
)]

mod adding;
mod arriving;
mod crashing;
mod deleting;
mod guarding;
mod importing;
mod knowing;
mod moving;
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
        crashing::TRIALS,
        deleting::TRIALS,
        guarding::TRIALS,
        importing::TRIALS,
        knowing::TRIALS,
        moving::TRIALS,
        opening::TRIALS,
        verifying::TRIALS,
    ]
    .concat();
    let local = [
        adding::LOCAL_TRIALS,
        arriving::LOCAL_TRIALS,
        importing::LOCAL_TRIALS,
        moving::LOCAL_TRIALS,
    ]
    .concat();
    namespace::run(&mounting, &local)
}
