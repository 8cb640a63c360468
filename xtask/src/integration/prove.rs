// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask integration --prove`: the program is built so that it can be told to leave out one decision that keeps data,
//! and for each of them some scenario has to fail. With the same build and no fault they have to pass.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::guest::{KernelFault, PartFailed};
use super::jobs::tried;
use super::kernel::Kernel;
use super::room::Room;
use super::scenario::{QUICK_KERNEL, SCENARIOS, Stage};
use crate::workspace;

/// A fault, and the scenarios that may notice it, the quickest first.
struct Fault {
    name: &'static str,
    what: &'static str,
    scenarios: &'static [Trial],
}

/// A scenario, and how much of it.
type Trial = (&'static str, Extent);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Quick,
    /// There are few moments at which the fault shows.
    Full,
}

const REPLAY: Trial = ("power-cut-replay", Extent::Quick);
const KILL: Trial = ("power-cut-kill", Extent::Quick);
const MOUNTS: Trial = ("worked-example", Extent::Quick);

const FAULTS: [Fault; 6] = [
    Fault {
        name: "no-remount",
        what: "the mount is not made fresh after something left the layer",
        scenarios: &[REPLAY, KILL],
    },
    Fault {
        name: "delete-through-mount",
        what: "what lies below, too, is deleted through the merged view",
        scenarios: &[REPLAY, KILL],
    },
    Fault {
        name: "mount-unchecked",
        what: "a mount is trusted unseen",
        scenarios: &[REPLAY, MOUNTS],
    },
    Fault {
        name: "lower-writable",
        what: "the database below is opened for writing",
        scenarios: &[KILL, REPLAY],
    },
    Fault {
        name: "journal-not-synced",
        what: "the intent is not on the disk before the first effect",
        scenarios: &[REPLAY, ("power-cut-replay", Extent::Full)],
    },
    Fault {
        name: "root-not-synced",
        what: "a link that keeps an object is not on the disk when it is promised",
        scenarios: &[REPLAY, ("power-cut-replay", Extent::Full)],
    },
];

/// What has to pass without a fault.
const CONTROLS: [Trial; 2] = [REPLAY, KILL];

/// Runs all of it.
pub(crate) fn run(seed: Option<u64>) -> Result<ExitCode> {
    let base = workspace::fetched().join("integration");
    let (mut room, kernels) = Room::prepare(&base, &[QUICK_KERNEL])?;
    room.programs = room.programs.with_faults(&base, &room.tools)?;
    let kernel = kernels.first().context("no kernel was prepared")?;
    let mut lines = Vec::new();
    let mut is_proven = true;
    for fault in &FAULTS {
        let started = Instant::now();
        room.fault = Some(fault.name);
        let mut line = None;
        for &trial in fault.scenarios {
            if let Some(how) = noticed(&room, kernel, trial, seed)? {
                line = Some(format!("{:<18} {how}", trial.0));
                break;
            }
        }
        is_proven &= line.is_some();
        let line = line.unwrap_or_else(|| format!("NOBODY noticed that {}", fault.what));
        let line = format!("{:<22} {:>4} s  {line}", fault.name, started.elapsed().as_secs());
        println!("{line}");
        lines.push(line);
    }
    room.fault = None;
    for trial in CONTROLS {
        if let Some(how) = noticed(&room, kernel, trial, seed)? {
            is_proven = false;
            lines.push(format!("no fault: {} fails all the same: {how}", trial.0));
        }
    }
    println!("\n{:<22} {:>6}  {:<18} how", "fault", "after", "noticed by");
    for line in lines {
        println!("{line}");
    }
    Ok(if is_proven {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How a scenario fails; `None` if it passes. What is wrong with the machines is an error, and proves nothing.
fn noticed(room: &Room, kernel: &Kernel, (name, extent): Trial, seed: Option<u64>) -> Result<Option<String>> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.with_context(|| format!("there is no scenario '{name}'"))?;
    let stage = Stage::new(room, kernel, name, extent == Extent::Quick, seed);
    let fault = room.fault.unwrap_or("no fault");
    eprintln!("{name} with {fault}");
    match tried(&stage, scenario) {
        Ok(tally) if tally.failed == 0 => {
            room.forget(name, kernel.release)?;
            Ok(None)
        }
        Ok(tally) => {
            let finding = stage.first_finding().unwrap_or_else(|| tally.to_string());
            Ok(Some(one_line(&finding)))
        }
        // The innermost error says what was found.
        Err(error) if error.downcast_ref::<PartFailed>().is_some() => {
            Ok(Some(one_line(&error.root_cause().to_string())))
        }
        Err(error) if error.downcast_ref::<KernelFault>().is_some() => {
            Err(anyhow!("{name} with {fault}: {error:#}"))
        }
        Err(error) => Err(error.context(format!("{name} with {fault}"))),
    }
}

/// As much of a text as there is room for in a row.
fn one_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let mut line: String = first.chars().take(200).collect();
    if line.len() < text.trim_end().len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_scenario_that_runs_on_the_quick_kernel() {
        for fault in &FAULTS {
            assert!(!fault.scenarios.is_empty(), "{}", fault.name);
            for (name, _) in fault.scenarios.iter().chain(&CONTROLS) {
                let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name);
                assert!(scenario.unwrap().kernels.contains(&QUICK_KERNEL), "{name}");
            }
        }
    }

    #[test]
    fn a_finding_has_one_line() {
        assert_eq!(one_line("status 1\nstandard output: \n"), "status 1…");
        assert_eq!(one_line("status 1\n"), "status 1");
        assert_eq!(one_line(&"ä".repeat(300)).chars().count(), 201);
    }

    /// The names are those that the program knows.
    #[test]
    fn every_fault_is_one_of_the_program() {
        let source = workspace::root().join("crates/overlay/src/faults.rs");
        let source = std::fs::read_to_string(source).unwrap();
        let known = source.lines().filter(|line| line.contains("=> \"")).count();
        assert_eq!(known, FAULTS.len());
        for fault in &FAULTS {
            assert!(source.contains(&format!("\"{}\"", fault.name)), "{}", fault.name);
        }
    }
}
