// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real mounts, in a mount namespace that ends with the test program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "the mark of the inner run is an environment variable"
)]

mod hooks;
mod making;
#[path = "../namespace/mod.rs"]
mod namespace;
mod refreshing;
mod refusing;
mod stand;
mod unmounting;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mounting = [
        making::TRIALS,
        refusing::TRIALS,
        refreshing::TRIALS,
        unmounting::TRIALS,
    ]
    .concat();
    namespace::run(&mounting, hooks::TRIALS)
}
