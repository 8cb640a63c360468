// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole of the black-box suites: as root all of them, as an ordinary user what is for one.

use std::time::Duration;

use anyhow::Result;

use crate::integration::kernel::Release;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::suite_run::SuiteRun;
use crate::test::Tally;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "suites",
    about: "the black-box suites host, root and stock, as root and as an ordinary user; stores on real mounts",
    kernels: &Release::ALL,
    is_quick: false,
    is_alone: false,
    run,
};

/// What says nothing about a kernel that its neighbour does not say: the same trials once more with a daemon before the
/// lower store, and those beside stock Nix once more with the older of the two.
const LEFT_OUT: [&str; 3] = ["::serve", "::daemon", "::trixie"];

/// Four times what the slowest takes.
const TIME_LIMIT: Duration = Duration::from_secs(45 * 60);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for run in [
        SuiteRun::new("host").by_nobody(),
        SuiteRun::new("host"),
        SuiteRun::new("root").leaving_out(&LEFT_OUT),
        SuiteRun::of_crate("store"),
        SuiteRun::new("stock").leaving_out(&LEFT_OUT),
    ] {
        tally.add(run.limit(TIME_LIMIT).run(stage)?);
    }
    Ok(tally)
}
