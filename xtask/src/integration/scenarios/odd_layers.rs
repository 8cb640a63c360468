// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upper layers that are not on an ext4 with room: on an xfs that shares extents, in memory, on disks that run full.

use std::time::Duration;

use anyhow::Result;

use crate::integration::disk::Disk;
use crate::integration::guest::Guest;
use crate::integration::image;
use crate::integration::kernel::Release;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::suite_run::{ScratchOn, SuiteRun};
use crate::test::Tally;
use crate::workspace;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "odd-layers",
    about: "an upper layer on xfs, in memory, and where bytes or inodes run out in the middle of the work",
    kernels: &Release::ALL,
    is_quick: false,
    run,
};

/// Modules of the suite that change a store in every way.
const TRIALS: [&str; 5] = [
    "root::manual::",
    "root::deleting::",
    "root::collecting::",
    "root::optimising::",
    "root::verifying::",
];

/// A daemon before the lower store changes nothing about the upper layer.
const LEFT_OUT: [&str; 1] = ["::serve"];

const TIME_LIMIT: Duration = Duration::from_secs(900);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for scratch in [ScratchOn::Xfs, ScratchOn::Memory] {
        let run = SuiteRun::new("root").filters(&TRIALS).leaving_out(&LEFT_OUT);
        let run = run.shared_by_kernels();
        tally.add(run.scratch(scratch).limit(TIME_LIMIT).run(stage)?);
    }
    nearly_full(stage)?;
    tally.passed += 1;
    Ok(tally)
}

/// The small disks; everything else is done in the guest. The smallest xfs that is made has 300 MiB, and may give a
/// hundredth of them to inodes here.
fn nearly_full(stage: &Stage<'_>) -> Result<()> {
    let name = format!("{}-nearly-full", stage.name);
    let dir = stage
        .room
        .run_dir(&format!("{name}-{}", stage.kernel.release.name()))?;
    let image = |kind: &str| dir.join(format!("{kind}.img"));
    let tools = &stage.room.tools;
    image::ext4(tools, 512, &image("scratch"), &[])?;
    // As on any disk that is not tiny, blocks are of 4096 bytes; mkfs would choose smaller ones for this one.
    image::ext4(tools, 48, &image("ext4"), &["-b", "4096", "-N", "2500"])?;
    image::xfs(tools, 300, &image("xfs"), &["-i", "maxpct=1"])?;
    let seed = workspace::seed();
    println!("{name}: SUPERPOSE_SEED={seed}");
    let mut guest = Guest::new(stage.room, stage.kernel, &name, "nearly-full")
        .argument("seed", seed)
        .limit(TIME_LIMIT)
        .disk(Disk::writable("scratch", &image("scratch")).at("/scratch", "ext4"))
        .disk(Disk::writable("small-ext4", &image("ext4")))
        .disk(Disk::writable("small-xfs", &image("xfs")));
    for disk in stage.room.programs.disks() {
        guest = guest.disk(disk);
    }
    guest.run()?.passed().map(drop)
}
