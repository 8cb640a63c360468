// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock Nix and superpose take turns on one overlay store; stock clients of `superpose serve`; builds that it hands on.

use std::time::Duration;

use anyhow::Result;

use crate::integration::kernel::Release;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::suite_run::SuiteRun;
use crate::test::Tally;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "stock-nix",
    about: "turns with stock Nix on one store, stock clients of a served one, delegated builds",
    kernels: &Release::ALL,
    is_quick: true,
    is_alone: false,
    run,
};

/// Modules of the suite.
const TRIALS: [&str; 3] = ["turns::", "serving::", "serving_builds::"];

/// Fewer than on the machine itself, where each takes a tenth of the time.
const STEPS: &str = "60";

fn run(stage: &Stage<'_>) -> Result<Tally> {
    SuiteRun::new("stock")
        .filters(&TRIALS)
        .variable("SUPERPOSE_STEPS", STEPS)
        .limit(Duration::from_secs(600))
        .run(stage)
}
