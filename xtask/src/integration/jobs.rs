// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs scenarios beside each other, as many guests at a time as the machine bears.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::guest::KernelFault;
use super::kernel::{Kernel, Release};
use super::report::{Report, Row, print_logs};
use super::room::Room;
use super::scenario::{Scenario, Stage};
use super::{Args, Job};
use crate::test::Tally;

/// Scenarios beside each other: most have one guest at a time, which keeps one processor busy.
const WORKERS: usize = 2;

/// Runs all jobs, in their order.
pub(crate) fn run(room: &Room, kernels: &[Kernel], jobs: &[Job], args: &Args) -> Report {
    let rows = Mutex::new(Vec::new());
    let waiting = Mutex::new(jobs.iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(&(scenario, release)) = next() {
                    let row = job(room, kernels, scenario, release, args);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|row| {
        jobs.iter().position(|(scenario, release)| {
            scenario.name == row.scenario && row.kernel.starts_with(&format!("{} (", release.name()))
        })
    });
    Report { rows }
}

fn job(room: &Room, kernels: &[Kernel], scenario: &'static Scenario, release: Release, args: &Args) -> Row {
    let started = Instant::now();
    eprintln!("{} on {}: begins", scenario.name, release.name());
    let (version, done) = match kernels.iter().find(|kernel| kernel.release == release) {
        Some(kernel) => {
            let stage = Stage::new(room, kernel, scenario.name, args.quick, args.seed);
            let cleared = room.clear(scenario.name, release);
            (
                kernel.version.clone(),
                cleared.and_then(|()| tried(&stage, scenario)),
            )
        }
        None => (String::new(), Err(anyhow!("this kernel was not prepared"))),
    };
    let done = done.and_then(|tally| {
        // What something is wrong with stays.
        if !args.keep && tally.failed == 0 {
            room.forget(scenario.name, release)?;
        }
        Ok(tally)
    });
    let tally = done.unwrap_or_else(|error| {
        println!("{} on {}: {error:#}", scenario.name, release.name());
        Tally {
            failed: 1,
            ..Tally::default()
        }
    });
    if tally.failed > 0 {
        print_logs(&room.base.join("log"), scenario.name, release.name());
        println!(
            "again: cargo xtask integration --only {} --kernel {} --keep",
            scenario.name,
            release.name()
        );
    }
    eprintln!("{} on {}: {tally}", scenario.name, release.name());
    Row {
        scenario: scenario.name,
        kernel: format!("{} ({version})", release.name()),
        tally,
        took: started.elapsed(),
    }
}

/// Once more after a fault of the guest's own kernel, which is no result: emulators and kernels have their own faults.
pub(crate) fn tried(stage: &Stage<'_>, scenario: &Scenario) -> Result<Tally> {
    let once = || {
        // One scenario that gives up does not take the others with it.
        catch_unwind(AssertUnwindSafe(|| (scenario.run)(stage)))
            .unwrap_or_else(|_| Err(anyhow!("the scenario panicked")))
    };
    match once() {
        Err(error) if error.downcast_ref::<KernelFault>().is_some() => {
            println!("{}: {error:#}; once more", stage.name);
            once().context("the second time")
        }
        done => done,
    }
}
