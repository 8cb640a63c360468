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
    about: "the whole black-box suites host, root and stock, as root and as an ordinary user",
    kernels: &Release::ALL,
    is_quick: false,
    is_alone: false,
    run,
};

/// Three times what the slowest takes where two guests have a processor each.
const TIME_LIMIT: Duration = Duration::from_secs(45 * 60);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for run in [
        SuiteRun::new("host").as_nobody(),
        SuiteRun::new("host"),
        SuiteRun::new("root"),
        SuiteRun::new("stock"),
    ] {
        tally.add(run.limit(TIME_LIMIT).run(stage)?);
    }
    Ok(tally)
}
