// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both ways of cutting the power share: the disks of a workload, the guest that works, and the guest that judges what is
//! left of many disks at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::disk::Disk;
use super::guest::Guest;
use super::image;
use super::scenario::Stage;
use super::write_log::ACKNOWLEDGED_BLOCK;

/// Steps of a workload.
pub(crate) const STEPS: u64 = 40;

/// More disks than this are judged by several guests: the emulator's machine has room for few more.
pub(crate) const DISKS_PER_GUEST: usize = 24;

const LOWER_MEBIBYTES: u64 = 16;
/// What a workload takes that has the machine for itself.
const WORK_LIMIT: Duration = Duration::from_secs(240);
/// What it takes to judge one disk.
const JUDGE_LIMIT: Duration = Duration::from_secs(40);

/// What the upper layer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// A workload, and what its machines are made of.
pub(crate) struct Power<'a> {
    pub(crate) stage: &'a Stage<'a>,
    pub(crate) seed: u64,
    pub(crate) dir: PathBuf,
    lower: PathBuf,
    /// The lower store as it is before anybody works over it.
    lower_bytes: Vec<u8>,
    /// Whether the lower store is copied to the disk of the workload, where it could be written to.
    is_copied: bool,
}

/// A disk whose machine lost its power.
#[derive(Debug)]
pub(crate) struct CutDisk {
    pub(crate) image: PathBuf,
    pub(crate) acknowledged: u64,
    /// How it was cut.
    pub(crate) name: String,
}

/// The lower store of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lower {
    /// A disk that cannot be written to.
    Shared,
    /// A copy of it, on the disk of the workload.
    Copied,
}

impl<'a> Power<'a> {
    /// Makes the lower store, in a guest.
    pub(crate) fn prepare(stage: &'a Stage<'a>, lower: Lower) -> Result<Self> {
        let dir = stage
            .room
            .run_dir(&format!("{}-{}", stage.name, stage.kernel.release.name()))?;
        let mut power = Self {
            stage,
            seed: match stage.seed {
                Some(seed) => seed,
                None => new_seed(),
            },
            lower: dir.join("lower.img"),
            dir,
            lower_bytes: Vec::new(),
            is_copied: lower == Lower::Copied,
        };
        eprintln!("{}: seed {}", stage.name, power.seed);
        image::ext4(&stage.room.tools, LOWER_MEBIBYTES, &power.lower, &[])?;
        let guest = Guest::new(
            stage.room,
            stage.kernel,
            &format!("{}-lower", stage.name),
            "power-lower",
        );
        let [programs, _] = stage.room.programs.disks();
        let filled = guest
            .disk(programs)
            .disk(Disk::writable("lower", &power.lower))
            .without_fault()
            .run()?;
        filled.passed().context("filling the lower store")?;
        power.lower_bytes = read(&power.lower)?;
        Ok(power)
    }

    /// A disk with nothing on it but an empty file system, and a block behind it.
    pub(crate) fn pristine(&self, system: FileSystem) -> Result<PathBuf> {
        let image = self.dir.join(format!("{}.img", system.name()));
        let tools = &self.stage.room.tools;
        match system {
            FileSystem::Ext4 => image::ext4(tools, 96, &image, &[])?,
            FileSystem::Xfs => image::xfs(tools, 300, &image, &[])?,
        }
        let file = fs::File::options().write(true).open(&image);
        let file = file.with_context(|| image.display().to_string())?;
        let size = file.metadata()?.len();
        file.set_len(size + ACKNOWLEDGED_BLOCK)?;
        Ok(image)
    }

    /// The guest that works on a disk.
    pub(crate) fn worker(&self, system: FileSystem, name: &str, disk: Disk) -> Guest<'_> {
        self.guest(system, name, "power-workload")
            .disk(disk)
            .limit(WORK_LIMIT)
    }

    fn guest(&self, system: FileSystem, name: &str, part: &'static str) -> Guest<'_> {
        let Stage { room, kernel, .. } = self.stage;
        let name = format!("{}-{}-{name}", self.stage.name, system.name());
        let [programs, _] = room.programs.disks();
        Guest::new(room, kernel, &name, part)
            .argument("seed", self.seed)
            .argument("steps", STEPS)
            .argument("file-system", system.name())
            .argument("copied", self.is_copied)
            .disk(programs)
            .disk(Disk::read_only("lower", &self.lower))
    }

    /// Has disks judged, and returns those in which something is wrong, with what it is.
    pub(crate) fn judge(
        &self,
        system: FileSystem,
        name: &str,
        disks: &[CutDisk],
    ) -> Result<Vec<(usize, String)>> {
        let serial = |index: usize| format!("cut{index}");
        let order: Vec<Value> = (0..)
            .zip(disks)
            .map(|(index, disk)| json!({"serial": serial(index), "acknowledged": disk.acknowledged}))
            .collect();
        let count = u32::try_from(disks.len()).unwrap_or(u32::MAX);
        let mut guest = self
            .guest(system, name, "power-judge")
            .argument("disks", order)
            .disk(self.stage.room.stock_nix())
            .limit(WORK_LIMIT + JUDGE_LIMIT * count);
        for (index, disk) in disks.iter().enumerate() {
            guest = guest.disk(Disk::writable(&serial(index), &disk.image));
        }
        let results = guest.run()?.passed()?;
        let results = results.as_ref().and_then(Value::as_array);
        let results = results.context("a judge without results")?;
        ensure!(
            results.len() == disks.len(),
            "{} of {} disks were judged",
            results.len(),
            disks.len()
        );
        Ok((0..)
            .zip(results)
            .filter_map(|(index, result)| Some((index, result["error"].as_str()?.to_owned())))
            .collect())
    }

    /// Says how a disk that something is wrong with can be had again.
    pub(crate) fn report(&self, system: FileSystem, disk: &CutDisk, error: &str) {
        println!(
            "{} on {}, {}, seed {}, {}: {error}",
            self.stage.name,
            self.stage.kernel.release.name(),
            system.name(),
            self.seed,
            disk.name,
        );
        self.stage
            .find(format!("{} on {}: {error}", disk.name, system.name()));
        println!(
            "the disk (with step {} acknowledged): {}",
            disk.acknowledged,
            disk.image.display()
        );
        println!(
            "again: cargo xtask integration --only {} --kernel {} --seed {}",
            self.stage.name,
            self.stage.kernel.release.name(),
            self.seed
        );
    }

    /// Compares the lower store with what it was.
    pub(crate) fn expect_lower_unchanged(&self) -> Result<()> {
        ensure!(
            read(&self.lower)? == self.lower_bytes,
            "the lower store {} was written to",
            self.lower.display()
        );
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// A seed of this run alone; small enough to be typed.
fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_micros()) ^ (since.as_secs() % 1_000_000)
}
