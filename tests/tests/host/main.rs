// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host tier: the program as an ordinary user meets it. Needs nothing; what needs user namespaces says so.
#![allow(clippy::unwrap_used, reason = "a trial may fail by panicking")]

#[path = "../stock/backend_suite.rs"]
mod backend_suite;
mod bad_databases;
mod bad_urls;
mod local_store;
mod long_work;
mod object;
mod odd_names;
mod optimising;
mod references;
mod roots;
mod run;
mod served;
mod serving;
mod smoke;
mod usage;

use std::process::ExitCode;

use superpose_tests::{Suite, Tier};

fn main() -> ExitCode {
    let mut suite = Suite::start(Tier::Host);
    smoke::register(&mut suite);
    usage::register(&mut suite);
    local_store::register(&mut suite);
    long_work::register(&mut suite);
    references::register(&mut suite);
    bad_urls::register(&mut suite);
    bad_databases::register(&mut suite);
    odd_names::register(&mut suite);
    optimising::register(&mut suite);
    roots::register(&mut suite);
    run::register(&mut suite);
    served::register(&mut suite);
    serving::register(&mut suite);
    suite.run()
}
