// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine works and is killed at some moment; what it had written is judged by another. The lower store is on the same
//! disk, where a program could write to it.

use std::fs;
use std::path::Path;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::integration::crash_point::Chance;
use crate::integration::disk::Disk;
use crate::integration::kernel::Release;
use crate::integration::power::{CutDisk, FileSystem, Lower, Power, STEPS};
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::write_log::{acknowledged, copy_sparse};
use crate::test::Tally;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "power-cut-kill",
    about: "machines killed at random moments of a workload",
    kernels: &Release::ALL,
    is_quick: false,
    run,
};

/// How many machines are killed, with which file systems.
const KILLED: [(FileSystem, usize); 2] = [(FileSystem::Ext4, 6), (FileSystem::Xfs, 4)];
const QUICKLY_KILLED: [(FileSystem, usize); 1] = [(FileSystem::Ext4, 2)];

/// Machines beside each other.
const WORKERS: usize = 2;
/// After an acknowledged step a machine is killed within this time, during which it takes about two more.
const MOST_MILLISECONDS: u64 = 900;
const PAUSE: Duration = Duration::from_millis(5);
/// Longer than a machine needs for all steps.
const TIME_LIMIT: Duration = Duration::from_secs(300);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let power = Power::prepare(stage, Lower::Copied)?;
    let parts: &[(FileSystem, usize)] = if stage.is_quick { &QUICKLY_KILLED } else { &KILLED };
    on_all(&power, parts).with_context(|| format!("seed {}", power.seed))
}

fn on_all(power: &Power<'_>, parts: &[(FileSystem, usize)]) -> Result<Tally> {
    let mut chance = Chance::new(power.seed);
    let mut tally = Tally::default();
    for &(system, count) in parts {
        let pristine = power.pristine(system)?;
        let moments: Vec<Moment> = (0..count).map(|_| Moment::some(&mut chance)).collect();
        let mut disks = Vec::new();
        for (number, moments) in moments.chunks(WORKERS).enumerate() {
            disks.extend(together(moments, |index, moment| {
                cut(power, system, &pristine, number * WORKERS + index, moment)
            })?);
        }
        let failed = power.judge(system, "judge", &disks)?;
        for (index, error) in &failed {
            power.report(system, &disks[*index], error);
        }
        tally.passed += (disks.len() - failed.len()) as u64;
        tally.failed += failed.len() as u64;
    }
    power.expect_lower_unchanged()?;
    Ok(tally)
}

/// When a machine is killed.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// After this step was acknowledged,
    step: u64,
    /// and that.
    and: Duration,
}

impl Moment {
    fn some(chance: &mut Chance) -> Self {
        Self {
            step: chance.below(STEPS),
            and: Duration::from_millis(chance.below(MOST_MILLISECONDS)),
        }
    }
}

fn together(
    moments: &[Moment],
    cut: impl Fn(usize, Moment) -> Result<CutDisk> + Sync,
) -> Result<Vec<CutDisk>> {
    let cut = &cut;
    thread::scope(|scope| {
        let running: Vec<_> = moments
            .iter()
            .enumerate()
            .map(|(index, &moment)| scope.spawn(move || cut(index, moment)))
            .collect();
        let ended = running.into_iter().map(|one| one.join());
        ended
            .map(|ended| ended.unwrap_or_else(|_| Err(anyhow!("what kills a machine panicked"))))
            .collect()
    })
}

fn cut(
    power: &Power<'_>,
    system: FileSystem,
    pristine: &Path,
    number: usize,
    moment: Moment,
) -> Result<CutDisk> {
    let image = power.dir.join(format!("{}-killed-{number}.img", system.name()));
    copy_sparse(pristine, &image)?;
    let disk = Disk::writable("disk", &image);
    let mut running = power
        .worker(system, &format!("workload-{number}"), disk)
        .start()?;
    let line = format!("ACK {}", moment.step);
    let started = Instant::now();
    loop {
        let console = running.console()?;
        if console.lines().any(|said| said.trim_end() == line) {
            break;
        }
        if !running.is_running()? || started.elapsed() > power.stage.room.scaled(TIME_LIMIT) {
            // Its log tells why.
            running.wait()?.passed()?;
            return Err(anyhow!(
                "a machine ended without acknowledging step {}",
                moment.step
            ));
        }
        sleep(PAUSE);
    }
    sleep(moment.and);
    running.kill()?;
    let acknowledged = acknowledged(&image)?.unwrap_or(0);
    ensure!(
        acknowledged >= moment.step,
        "{} says that step {acknowledged} was acknowledged, and the console says that step {} was",
        fs::canonicalize(&image)?.display(),
        moment.step
    );
    Ok(CutDisk {
        image,
        acknowledged,
        name: format!("killed {:?} after step {}", moment.and, moment.step),
    })
}
