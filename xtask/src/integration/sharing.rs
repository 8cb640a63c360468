// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several guests over one lower store, each with an upper disk of its own: first on the store as it is, then, with the same
//! disks, on what it has grown to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::disk::Disk;
use super::guest::Guest;
use super::image;
use super::lower_store::COMMON;
use super::scenario::Stage;

const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Each of them has little to do at a time, and there are several.
pub(crate) const MEMORY: u32 = 512;

/// How often a guest changes its store, in each phase.
const STEPS: u32 = 24;
const QUICK_STEPS: u32 = 10;

/// Before the lower store has grown, or after.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Phase {
    First,
    Again,
}

/// Guests that share something.
pub(crate) struct Company<'s, 'a> {
    stage: &'s Stage<'a>,
    name: String,
    seed: String,
    uppers: Vec<PathBuf>,
}

impl<'s, 'a> Company<'s, 'a> {
    /// So many guests, each with an empty disk below a directory.
    pub(crate) fn new(stage: &'s Stage<'a>, name: &str, dir: &Path, seed: &str) -> Result<Self> {
        let count = if stage.is_quick { 2 } else { 3 };
        let uppers: Vec<PathBuf> = (0..count)
            .map(|number| dir.join(format!("upper-{number}.img")))
            .collect();
        for upper in &uppers {
            image::ext4(&stage.room.tools, 512, upper, &[])?;
        }
        println!("{name}: SUPERPOSE_SEED={seed}");
        Ok(Self {
            stage,
            name: name.to_owned(),
            seed: seed.to_owned(),
            uppers,
        })
    }

    /// Has all of them work at once; `prepare` gives each, by its number, the lower store.
    pub(crate) fn work(
        &self,
        phase: Phase,
        prepare: impl Fn(usize, Guest<'a>) -> Result<Guest<'a>>,
    ) -> Result<()> {
        let steps = if self.stage.is_quick { QUICK_STEPS } else { STEPS };
        let word = match phase {
            Phase::First => "first",
            Phase::Again => "again",
        };
        let mut running = Vec::new();
        for (number, upper) in self.uppers.iter().enumerate() {
            let name = format!("{}-{number}-{word}", self.name);
            let mut guest = Guest::new(self.stage.room, self.stage.kernel, &name, "shared")
                .argument("phase", word)
                .argument("seed", self.seed.as_str())
                .argument("number", number.to_string())
                .argument("steps", steps.to_string())
                .argument("common", COMMON.to_vec())
                .memory(MEMORY)
                .limit(TIME_LIMIT)
                .disk(Disk::writable("scratch", upper).at("/scratch", "ext4"));
            for disk in self.stage.room.programs.disks() {
                guest = guest.disk(disk);
            }
            // Inside the work tree, so behind it.
            guest = guest.disk(self.stage.room.stock_nix());
            running.push((name, prepare(number, guest)?.start()?));
        }
        // All of them are waited for: what one found is no reason to cut the others.
        let ended: Vec<_> = running
            .into_iter()
            .map(|(name, guest)| (name, guest.wait()))
            .collect();
        for (name, ended) in ended {
            ended.and_then(|ended| ended.passed()).with_context(|| name)?;
        }
        Ok(())
    }
}
