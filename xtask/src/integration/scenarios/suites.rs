// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole of the black-box suites: as root all of them, as an ordinary user what is for one. The scenario `stock-nix` has
//! the trials of the suite `stock` that this one leaves out.

use std::time::Duration;

use anyhow::Result;

use crate::integration::kernel::Release;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::scenarios::stock_nix;
use crate::integration::suite_run::SuiteRun;
use crate::test::Tally;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "suites",
    about: "the black-box suites host, root and stock, as root and as an ordinary user; stores on real mounts",
    kernels: &Release::ALL,
    is_quick: false,
    run,
};

/// What says nothing about a kernel that its neighbour does not say: the same trials once more with a daemon before the
/// lower store, and those beside stock Nix once more with the older of the two.
const NEIGHBOURS: [&str; 3] = ["::serve", "::daemon", "::trixie"];

/// Trials that wait for seconds to pass; once in this scenario is enough.
const SLOW_BY_INTENT: [&str; 1] = ["::long_work::"];

const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    // Every way of mounting is tried on each kernel by the scenario `worked-example`.
    let beside_stock: Vec<&str> = NEIGHBOURS.into_iter().chain(stock_nix::TRIALS).collect();
    let mut tally = Tally::default();
    for run in [
        SuiteRun::new("host").by_nobody(),
        SuiteRun::new("host")
            .leaving_out(&SLOW_BY_INTENT)
            .shared_by_kernels(),
        SuiteRun::new("root").leaving_out(&NEIGHBOURS).shared_by_kernels(),
        SuiteRun::of_crate("store").shared_by_kernels(),
        SuiteRun::new("stock")
            .leaving_out(&beside_stock)
            .shared_by_kernels(),
    ] {
        tally.add(run.limit(TIME_LIMIT).run(stage)?);
    }
    Ok(tally)
}
