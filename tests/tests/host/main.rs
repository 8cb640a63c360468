// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host tier: the program as an ordinary user meets it. Needs nothing; what needs user namespaces says so.
#![allow(clippy::unwrap_used, reason = "a trial may fail by panicking")]

mod smoke;

use std::process::ExitCode;

use superpose_tests::{Suite, Tier};

fn main() -> ExitCode {
    let mut suite = Suite::start(Tier::Host);
    smoke::register(&mut suite);
    suite.run()
}
