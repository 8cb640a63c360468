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
    run,
};

/// Modules of the suites that are about mounts, and a trial with a user who holds files open.
const ROOT: [&str; 6] = [
    "root::smoke::",
    "root::manual::",
    "root::check_mount::",
    "root::readme::",
    "root::hooks::",
    "a_tree_in_use_is_read_to_its_end",
];
const HOST: [&str; 1] = ["run::"];

/// Unfit for the guests' tools: `mount` of util-linux 2.39 and later reads quotes in options itself, and hands them over in a
/// way that takes no comma in a name before Linux 6.5. No command can be printed for it and such names; `superpose mount` takes them.
const UNFIT: [&str; 1] = ["the_printed_command_mounts_odd_paths"];

/// The same for each.
const TIME_LIMIT: Duration = Duration::from_secs(240);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for run in [
        // Each way of mounting and each wrong mount, as this kernel shows them: with file handles or without, with layers
        // added one by one or in one string.
        SuiteRun::of_crate("real").leaving_out(&UNFIT),
        SuiteRun::of_crate("mounting"),
        SuiteRun::new("root").filters(&ROOT).leaving_out(&["::serve"]),
        SuiteRun::new("host").filters(&HOST).by_nobody(),
    ] {
        tally.add(run.limit(TIME_LIMIT).run(stage)?);
    }
    Ok(tally)
}
