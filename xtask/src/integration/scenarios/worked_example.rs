// SPDX-License-Identifier: MIT OR Apache-2.0
//! The README's worked example and everything about mounts: by hand and by `superpose mount`, right ones and wrong ones,
//! fresh ones under users who hold files open, and those of ordinary users.

use std::time::Duration;

use anyhow::Result;

use crate::integration::kernel::Release;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::suite_run::SuiteRun;
use crate::test::Tally;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "worked-example",
    about: "mounts by hand and by the program, wrong mounts, remounts under users, without root",
    kernels: &Release::ALL,
    is_quick: true,
    is_alone: false,
    run,
};

/// Modules of the suites that are about mounts.
const ROOT: [&str; 5] = ["smoke::", "manual::", "check_mount::", "readme::", "hooks::"];
const HOST: [&str; 1] = ["run::"];

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = SuiteRun::new("root")
        .filters(&ROOT)
        .limit(Duration::from_secs(240))
        .run(stage)?;
    tally.add(
        SuiteRun::new("host")
            .filters(&HOST)
            .as_nobody()
            .limit(Duration::from_secs(240))
            .run(stage)?,
    );
    Ok(tally)
}
