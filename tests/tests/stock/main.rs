// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock tier: stock Nix beside superpose, on equal stores and in turns on one store.
#![allow(clippy::unwrap_used, reason = "a trial may fail by panicking")]

mod smoke;

use std::process::ExitCode;

use superpose_tests::{Suite, Tier};

fn main() -> ExitCode {
    let mut suite = Suite::start(Tier::Stock);
    smoke::register(&mut suite);
    suite.run()
}
