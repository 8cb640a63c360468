// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay store on a small disk, beside a model of what it acknowledged.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use superpose_tests::{Finished, Layers, OverlayMount, Seeded, Tree};

use super::Room;
use super::disk::{Disk, Kind, Lack};

/// What the store says when the disk is full: the kernel's words, or those of SQLite.
const FULL: [&str; 2] = ["No space left on device", "database or disk is full"];

/// A store, and what must be in it.
pub(super) struct Store {
    layers: Layers,
    /// Before the disk, so that it goes first.
    _mount: OverlayMount,
    pub(super) disk: Disk,
    lower: Tree,
    below: BTreeSet<String>,
    /// Acknowledged, and not deleted.
    above: BTreeSet<String>,
    /// Of these, those with a root.
    kept: BTreeSet<String>,
    /// Copies in the upper layer of what is below.
    duplicates: Vec<String>,
    count: u32,
}

impl Store {
    /// A lower store on the disk of the scratch directories, everything else on a small one of this kind.
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let layers = Layers::new()?.with_upper_in("disk").with_state_in("disk");
        let mut below = BTreeSet::new();
        for number in 0..4 {
            below.insert(layers.add_tree_below(&format!("below-{number}"), &[])?);
        }
        let disk = Disk::mount(kind, &layers.join("disk"))?;
        let mount = layers.mount()?;
        let lower = Tree::of(&layers.lower())?;
        Ok(Self {
            lower,
            duplicates: below.iter().take(2).cloned().collect(),
            layers,
            _mount: mount,
            disk,
            below,
            above: BTreeSet::new(),
            kept: BTreeSet::new(),
            count: 0,
        })
    }

    /// What is there before the disk is full: duplicates, objects with a root and without.
    pub(super) fn begin(&mut self, seeded: &mut Seeded) -> Result<()> {
        for path in &self.duplicates {
            self.layers.duplicate(path)?;
        }
        for _ in 0..6 {
            ensure!(
                self.add(seeded, Lack::Bytes)?,
                "there is room, and an addition is refused"
            );
        }
        for path in self.above.iter().take(3) {
            let link = self.layers.join(format!("root-{}", self.kept.len()));
            let add_root = self.layers.superpose()?.arg("add-root").arg(link).arg(path);
            add_root.succeed()?;
            self.kept.insert(path.clone());
        }
        self.check()
    }

    /// Adds something of what the disk lacks; whether it was acknowledged.
    pub(super) fn add(&mut self, seeded: &mut Seeded, lack: Lack) -> Result<bool> {
        self.count += 1;
        let source = self.layers.join(format!("object-{}", self.count));
        match lack {
            Lack::Bytes => {
                let mut bytes = vec![0; 1000 + seeded.below(150_000) as usize];
                seeded.fill(&mut bytes);
                fs::write(&source, bytes)?;
            }
            Lack::Inodes => {
                fs::create_dir(&source)?;
                for number in 0..=seeded.below(12) {
                    fs::write(source.join(number.to_string()), format!("{}", seeded.number()))?;
                }
            }
        }
        let added = self.layers.superpose()?.arg("add").arg(&source).run()?;
        if added.code() == Some(0) {
            self.above.insert(added.line()?.to_owned());
            return Ok(true);
        }
        expect_full(&added)?;
        ensure!(added.stdout.is_empty(), "something was acknowledged by {added}");
        Ok(false)
    }

    /// Drops the duplicates, and links what is the same.
    pub(super) fn optimise(&mut self, room: Room) -> Result<()> {
        let done = self.layers.superpose()?.arg("optimise").run()?;
        self.expect(&done, room)?;
        if room == Room::There {
            for path in &self.duplicates {
                let name = path.rsplit('/').next().unwrap_or(path);
                let copy = self.layers.upper().join(name);
                ensure!(!copy.exists(), "'{path}' was not dropped: {done}");
            }
        }
        Ok(())
    }

    /// Deletes one object that nothing keeps.
    pub(super) fn delete(&mut self, room: Room) -> Result<()> {
        let path = self.above.difference(&self.kept).next().cloned();
        let path = path.context("no object is without a root")?;
        let done = self.layers.superpose()?.args(["delete", &path]).run()?;
        if self.expect(&done, room)? {
            self.above.remove(&path);
        }
        Ok(())
    }

    /// Collects what nothing keeps.
    pub(super) fn collect(&mut self, room: Room) -> Result<()> {
        let done = self.layers.superpose()?.arg("gc").run()?;
        if self.expect(&done, room)? {
            self.above = self.kept.clone();
        }
        Ok(())
    }

    /// Whether it was done. Where there is room it must have been.
    fn expect(&self, done: &Finished, room: Room) -> Result<bool> {
        if done.code() == Some(0) {
            return Ok(true);
        }
        match room {
            Room::Full => expect_full(done).map(|()| false),
            Room::There => bail!("there is room, and yet {done}"),
        }
    }

    /// Everything that was acknowledged is valid and whole, nothing else is there, and nothing was written below.
    pub(super) fn check(&self) -> Result<()> {
        let all = self.layers.superpose()?.args(["path-info", "--all"]).succeed()?;
        let found: BTreeSet<String> = all.text()?.lines().map(str::to_owned).collect();
        let expected: BTreeSet<String> = self.below.union(&self.above).cloned().collect();
        let lost: Vec<_> = expected.difference(&found).collect();
        let unasked: Vec<_> = found.difference(&expected).collect();
        ensure!(lost.is_empty(), "lost: {lost:?}");
        ensure!(
            unasked.is_empty(),
            "valid without having been acknowledged: {unasked:?}"
        );
        let verify = self.layers.superpose()?.args(["verify", "--check-contents"]);
        verify.succeed()?;
        self.lower.expect_unchanged(&self.layers.lower())
    }
}

fn expect_full(failed: &Finished) -> Result<()> {
    let says = failed.errors();
    ensure!(failed.code() == Some(1), "expected exit status 1 of {failed}");
    ensure!(
        FULL.iter().any(|words| says.contains(words)),
        "no word of a full disk in {failed}"
    );
    Ok(())
}
