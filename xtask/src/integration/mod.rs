// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask integration`: scenarios in emulated machines, on real kernels of Debian. Everything is prepared in
//! `target/integration` first, as whoever runs it; guests are started after that, two at a time.

mod accelerator;
mod cpio;
mod crash_point;
mod disk;
mod guest;
mod image;
mod jobs;
mod kernel;
mod lower_store;
mod power;
mod programs;
mod prove;
mod report;
mod room;
mod scenario;
mod scenarios;
mod share;
mod sharing;
mod suite_run;
mod tools;
mod verdict;
mod virtiofsd;
mod write_log;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args as ClapArgs;

use crate::test::{Skip, Tally};
use crate::workspace;
use kernel::Release;
use report::{Report, Row};
use room::Room;
use scenario::{QUICK_KERNEL, SCENARIOS, Scenario};

/// The word of `SUPERPOSE_REQUIRE` that makes a skip a failure.
const NEED: &str = "vm";

/// Run scenarios in emulated machines, on kernels of three Debian releases
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only say which scenarios there are
    #[arg(long)]
    list: bool,
    /// One kernel, and the scenarios that take a few minutes
    #[arg(long)]
    quick: bool,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Only these kernels
    #[arg(long, value_name = "VERSION", num_args = 1.., value_enum)]
    kernel: Vec<Release>,
    /// Keep the disks of the guests in target/integration/run
    #[arg(long)]
    keep: bool,
    /// What is left to chance: where the power is cut, and during which work
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Show that the scenarios notice faults, which are built into the program for that
    #[arg(long, conflicts_with_all = ["quick", "only", "kernel"])]
    prove: bool,
}

/// Runs the task. The last line that it prints is the sum.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        for Scenario { name, about, .. } in &SCENARIOS {
            println!("{name:<16} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.prove {
        if let Some(reason) = missing() {
            bail!("nothing can be proven here: {reason}");
        }
        return prove::run(args.seed);
    }
    let chosen = chosen(args)?;
    let report = match missing() {
        Some(reason) => skipped(&chosen, &reason),
        None => {
            let base = workspace::fetched().join("integration");
            let mut releases: Vec<Release> = chosen.iter().map(|(_, release)| *release).collect();
            releases.sort_unstable();
            releases.dedup();
            let (room, kernels) = Room::prepare(&base, &releases)?;
            eprintln!("guests run by {}", room.accelerator.name());
            jobs::run(&room, &kernels, &chosen, args)
        }
    };
    let required = workspace::required().iter().any(|need| need == NEED);
    let total = report.print(required);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

type Job = (&'static Scenario, Release);

/// The scenarios that the arguments ask for, each with each of its kernels.
fn chosen(args: &Args) -> Result<Vec<Job>> {
    for name in &args.only {
        ensure!(
            SCENARIOS.iter().any(|scenario| scenario.name == name),
            "there is no scenario '{name}': `cargo xtask integration --list`"
        );
    }
    let mut jobs = Vec::new();
    for scenario in &SCENARIOS {
        let is_named = args.only.iter().any(|name| name == scenario.name);
        if !is_named && (!args.only.is_empty() || args.quick && !scenario.is_quick) {
            continue;
        }
        for &release in scenario.kernels {
            let is_named = args.kernel.contains(&release);
            if is_named || args.kernel.is_empty() && (!args.quick || release == QUICK_KERNEL) {
                jobs.push((scenario, release));
            }
        }
    }
    ensure!(!jobs.is_empty(), "no scenario is for the chosen kernels");
    Ok(jobs)
}

/// What this machine lacks.
fn missing() -> Option<String> {
    for (program, package) in [
        (guest::QEMU, "qemu-system-x86"),
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
    ] {
        if !workspace::has_program(program) {
            return Some(format!("{program} is not installed (package {package})"));
        }
    }
    None
}

fn skipped(jobs: &[Job], reason: &str) -> Report {
    let rows = jobs.iter().map(|(scenario, release)| {
        let skip = Skip {
            name: "all of it".to_owned(),
            reason: reason.to_owned(),
        };
        Row {
            scenario: scenario.name,
            kernel: release.name().to_owned(),
            tally: Tally {
                skipped: vec![skip],
                ..Tally::default()
            },
            took: Duration::ZERO,
        }
    });
    Report { rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            list: false,
            quick: false,
            only: Vec::new(),
            kernel: Vec::new(),
            keep: false,
            seed: None,
            prove: false,
        }
    }

    #[test]
    fn a_quick_run_has_one_kernel_and_a_name_brings_any_scenario() {
        let quick = chosen(&Args {
            quick: true,
            ..args()
        })
        .unwrap();
        assert!(
            quick
                .iter()
                .all(|(scenario, release)| scenario.is_quick && *release == QUICK_KERNEL)
        );
        let all = chosen(&args()).unwrap();
        assert!(all.len() > quick.len());
        for scenario in &SCENARIOS {
            let only = vec![scenario.name.to_owned()];
            let named = chosen(&Args {
                quick: true,
                only,
                ..args()
            })
            .unwrap();
            assert_eq!(named.len(), 1, "{}", scenario.name);
        }
        let only = vec!["nonsense".to_owned()];
        assert!(chosen(&Args { only, ..args() }).is_err());
    }

    #[test]
    fn what_cannot_run_is_skipped_by_name() {
        let jobs = chosen(&args()).unwrap();
        let report = skipped(&jobs, "no emulator");
        assert_eq!(report.rows.len(), jobs.len());
        assert!(report.rows.iter().all(|row| row.tally.skipped.len() == 1));
    }
}
