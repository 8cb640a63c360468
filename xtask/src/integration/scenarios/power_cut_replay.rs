// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine works while all writes to its disk are logged; of that, disks are made as power cuts would have left them, at
//! flushes and between them, and judged.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use crate::integration::crash_point::{CrashPoint, choose};
use crate::integration::disk::Disk;
use crate::integration::kernel::Release;
use crate::integration::power::{CutDisk, DISKS_PER_GUEST, FileSystem, Lower, Power};
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::write_log::{WriteLog, copy_sparse};
use crate::test::Tally;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "power-cut-replay",
    about: "power cuts at and between flushes, from a log of all writes",
    kernels: &[Release::Trixie],
    is_quick: true,
    run,
};

/// How many crash points are judged, on which file systems.
const FULL: [(FileSystem, usize); 2] = [(FileSystem::Ext4, 200), (FileSystem::Xfs, 50)];
const QUICK: [(FileSystem, usize); 1] = [(FileSystem::Ext4, 20)];

/// Guests that judge beside each other.
const JUDGES: usize = 2;

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let power = Power::prepare(stage, Lower::Shared)?;
    let parts: &[(FileSystem, usize)] = if stage.is_quick { &QUICK } else { &FULL };
    let mut tally = Tally::default();
    for &(system, count) in parts {
        let judged = on(&power, system, count);
        tally.add(judged.with_context(|| format!("seed {}", power.seed))?);
        if tally.failed > 0 {
            break;
        }
    }
    power.expect_lower_unchanged()?;
    Ok(tally)
}

fn on(power: &Power<'_>, system: FileSystem, count: usize) -> Result<Tally> {
    let pristine = power.pristine(system)?;
    let image = power.dir.join(format!("{}-logged.img", system.name()));
    let log = power.dir.join(format!("{}.log", system.name()));
    copy_sparse(&pristine, &image)?;
    fs::write(&log, "").with_context(|| log.display().to_string())?;
    let disk = Disk::writable("disk", &image).logged(&log);
    power.worker(system, "workload", disk).run()?.passed()?;
    let size = fs::metadata(&image)?.len();
    fs::remove_file(&image)?;
    let log = WriteLog::open(&log, size)?;
    let points = choose(&log, power.seed, count);
    eprintln!(
        "{}: {} writes and flushes on {}, {} crash points",
        power.stage.name,
        log.entries.len(),
        system.name(),
        points.len()
    );
    ensure!(
        points.len() == count,
        "the log has only {} crash points",
        points.len()
    );
    judge_all(power, system, &points, |point, image| {
        log.replay(&pristine, point.entries(), image)
    })
}

/// Judges all points, some at a time; after a failure no more are begun.
fn judge_all(
    power: &Power<'_>,
    system: FileSystem,
    points: &[CrashPoint],
    make: impl Fn(&CrashPoint, &std::path::Path) -> Result<()> + Sync,
) -> Result<Tally> {
    // Both have something to do, also if there are few.
    let size = points.len().div_ceil(JUDGES).clamp(1, DISKS_PER_GUEST);
    let waiting = Mutex::new(points.chunks(size).enumerate());
    let is_over = AtomicBool::new(false);
    let work = || -> Result<Tally> {
        let mut tally = Tally::default();
        while !is_over.load(Ordering::Relaxed) {
            let next = waiting.lock().map_err(|_| anyhow!("a judge panicked"))?.next();
            let Some((number, points)) = next else { break };
            let mut disks = Vec::new();
            for (index, point) in points.iter().enumerate() {
                let image = power.dir.join(format!("{}-{number}-{index}.img", system.name()));
                make(point, &image)?;
                disks.push(CutDisk {
                    image,
                    acknowledged: point.acknowledged,
                    name: point.name.clone(),
                });
            }
            let failed = power.judge(system, &format!("judge-{number}"), &disks)?;
            for (index, disk) in disks.iter().enumerate() {
                match failed.iter().find(|(failed, _)| *failed == index) {
                    Some((_, error)) => power.report(system, disk, error),
                    None => fs::remove_file(&disk.image)?,
                }
            }
            tally.passed += (disks.len() - failed.len()) as u64;
            tally.failed += failed.len() as u64;
            if !failed.is_empty() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
        Ok(tally)
    };
    let results: Vec<Result<Tally>> = thread::scope(|scope| {
        let judges: Vec<_> = (0..JUDGES).map(|_| scope.spawn(work)).collect();
        let ended = judges.into_iter().map(|judge| judge.join());
        ended
            .map(|ended| ended.unwrap_or_else(|_| Err(anyhow!("a judge panicked"))))
            .collect()
    });
    let mut tally = Tally::default();
    for result in results {
        tally.add(result?);
    }
    Ok(tally)
}
