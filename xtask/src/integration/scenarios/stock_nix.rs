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
    run,
};

/// Modules of the suite, and trials that stand for them in a quick run.
/// No other scenario runs these.
pub(crate) const TRIALS: [&str; 3] = ["stock::turns::", "stock::serving::", "stock::serving_builds::"];
const QUICK_TRIALS: [&str; 3] = [
    "stock::turns::both_take_turns::sid",
    "stock::serving::all_paths_of_a_served_overlay_store_are_those_of_both_layers::sid",
    "stock::serving_builds::builds_are_handed_to_stock_nix::sid",
];

/// Fewer turns than on the machine itself, where each takes a tenth of the time.
const STEPS: &str = "120";
const QUICK_STEPS: &str = "30";

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let (trials, steps) = if stage.is_quick {
        (&QUICK_TRIALS, QUICK_STEPS)
    } else {
        (&TRIALS, STEPS)
    };
    SuiteRun::new("stock")
        .filters(trials)
        .variable("SUPERPOSE_STEPS", steps)
        .limit(Duration::from_secs(900))
        .run(stage)
}
