// SPDX-License-Identifier: MIT OR Apache-2.0
//! Additions that run out of space or inodes: said clearly, nothing half registered, and the next one works.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, SmallDisk, Suite, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root, Need::LoopDevices],
        a_full_ext4,
        an_ext4_without_inodes,
        a_full_ext4_that_holds_the_database_too
    );
    trials!(
        suite,
        [Need::Root],
        a_full_tmpfs,
        a_tmpfs_without_inodes,
        a_full_tmpfs_that_holds_the_database_too
    );
}

/// Room for the objects of a trial, but not for the one that is too large.
const MEBIBYTES: u64 = 20;
const INODES: u64 = 100;

#[derive(Clone, Copy)]
enum Kind {
    Ext4,
    Memory,
}

/// An overlay store whose upper layer is on a small disk.
struct Small {
    layers: Layers,
    _mount: OverlayMount,
    disk: SmallDisk,
}

fn small(kind: Kind, layers: Layers) -> Result<Small> {
    layers.add_below("below", "below\n", &[])?;
    let point = layers.join("disk");
    let disk = match kind {
        Kind::Ext4 => SmallDisk::ext4(&layers.join("image"), &point, MEBIBYTES, INODES)?,
        Kind::Memory => SmallDisk::in_memory(&point, MEBIBYTES, INODES)?,
    };
    let mount = layers.mount()?;
    Ok(Small {
        layers,
        _mount: mount,
        disk,
    })
}

impl Small {
    /// Adds what does not fit, and expects a clean failure.
    fn fails(&self, what: &Path) -> Result<()> {
        let before = (self.layers.upper_names()?, self.rows()?);
        let failed = self.layers.superpose()?.arg("add").arg(what).exit_with(1)?;
        ensure!(failed.errors().contains("No space left on device"), "{failed}");
        let name = what.file_name().unwrap_or_default().display();
        let merged = self.layers.merged();
        let operation = format!(
            "cannot add '{name}' to the store directory '{}'",
            merged.display()
        );
        ensure!(
            failed.errors().contains(&operation),
            "no `{operation}` in {failed}"
        );
        ensure!(failed.stdout.is_empty(), "{failed}");
        let after = (self.layers.upper_names()?, self.rows()?);
        ensure!(before == after, "something was left: {before:?}, then {after:?}");
        self.layers
            .superpose()?
            .args(["verify", "--check-contents"])
            .succeed()?;
        Ok(())
    }

    fn rows(&self) -> Result<String> {
        Ok(self
            .layers
            .superpose()?
            .args(["path-info", "--all"])
            .succeed()?
            .line()?
            .to_owned())
    }

    /// The next addition works, and so does everything else.
    fn works(&self) -> Result<()> {
        let own = self.layers.add_above("small", "it fits\n", &[])?;
        self.layers
            .superpose()?
            .args(["verify", "--check-contents"])
            .succeed()?;
        self.layers.superpose()?.args(["delete", &own]).succeed()?;
        let status = self
            .layers
            .superpose()?
            .args(["status", "--json"])
            .succeed()?
            .json()?;
        ensure!(status["upper"]["unknownObjects"] == 0, "{status}");
        Ok(())
    }
}

fn file(layers: &Layers, mebibytes: usize) -> Result<PathBuf> {
    layers.file(&format!("file-{mebibytes}"), vec![7; mebibytes << 20])
}

fn space(kind: Kind) -> Result<()> {
    let small = small(kind, Layers::new()?.with_upper_in("disk"))?;
    // Small enough to be hashed in memory first, and so large that it is written first.
    for mebibytes in [24, 40] {
        let file = file(&small.layers, mebibytes)?;
        small.fails(&file)?;
        small.works()?;
        // The same as an archive that comes through a pipe.
        let other = Layers::new()?;
        let object = other.below()?.arg("add").arg(&file).succeed()?;
        let archive = other.below()?.args(["dump", object.line()?]).succeed()?.stdout;
        let add = small
            .layers
            .superpose()?
            .args(["add-nar", "--name", "piped"])
            .input(archive);
        let failed = add.exit_with(1)?;
        ensure!(failed.errors().contains("No space left on device"), "{failed}");
        small.works()?;
    }
    imports(&small)?;
    // As one tree of many files.
    let tree = small.layers.join("tree");
    fs::create_dir(&tree)?;
    for number in 0..24 {
        fs::write(tree.join(number.to_string()), vec![number; 1 << 20])?;
    }
    small.fails(&tree)?;
    small.works()
}

/// Objects that fit one by one and not together, by a stream and by a copy.
fn imports(small: &Small) -> Result<()> {
    let other = Layers::new()?;
    let mut paths = Vec::new();
    for number in 0..6 {
        // Some wait in memory until the whole batch is there, others go to the disk at once.
        let file = other.file(
            &format!("part-{number}"),
            vec![number; if number < 3 { 6 << 20 } else { 900 << 10 }],
        )?;
        paths.push(other.below()?.arg("add").arg(file).succeed()?.line()?.to_owned());
    }
    for number in 6..30 {
        let file = other.file(&format!("part-{number}"), vec![number; 900 << 10])?;
        paths.push(other.below()?.arg("add").arg(file).succeed()?.line()?.to_owned());
    }
    let stream = other.below()?.arg("export").args(&paths).succeed()?.stdout;
    let before = (small.layers.upper_names()?, small.rows()?);
    let import =
        || -> Result<Invocation> { Ok(small.layers.superpose()?.arg("import").input(stream.clone())) };
    let copy = small
        .layers
        .superpose()?
        .args(["copy", "--from"])
        .arg(other.lower_url())
        .args(&paths);
    for failed in [import()?.exit_with(1)?, copy.exit_with(1)?] {
        ensure!(failed.errors().contains("No space left on device"), "{failed}");
        ensure!(failed.stdout.is_empty(), "{failed}");
        let after = (small.layers.upper_names()?, small.rows()?);
        ensure!(before == after, "something was left: {before:?}, then {after:?}");
    }
    small
        .layers
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    // A part of them fits.
    let fits = other.below()?.arg("export").args(&paths[..2]).succeed()?.stdout;
    small.layers.superpose()?.arg("import").input(fits).succeed()?;
    small
        .layers
        .superpose()?
        .arg("delete")
        .args(&paths[..2])
        .succeed()?;
    small.works()
}

fn inodes(kind: Kind) -> Result<()> {
    let small = small(kind, Layers::new()?.with_upper_in("disk"))?;
    let tree = small.layers.join("tree");
    fs::create_dir(&tree)?;
    for number in 0..INODES {
        fs::write(tree.join(number.to_string()), "")?;
    }
    small.fails(&tree)?;
    small.works()
}

fn database(kind: Kind) -> Result<()> {
    let small = small(kind, Layers::new()?.with_upper_in("disk").with_state_in("disk"))?;
    small.layers.add_above("first", "first\n", &[])?;
    let filler = small.disk.path().join("filler");
    let mut file = fs::File::create(&filler)?;
    let block = vec![1; 4096];
    while file.write_all(&block).is_ok() {}
    drop(file);
    let what = small.layers.file("second", "second\n")?;
    let failed = small.layers.superpose()?.arg("add").arg(&what).exit_with(1)?;
    ensure!(failed.stdout.is_empty(), "{failed}");
    let says = failed.errors();
    ensure!(
        says.contains("No space left") || says.contains("full"),
        "{failed}"
    );
    fs::remove_file(&filler)?;
    small.works()?;
    let second = small
        .layers
        .superpose()?
        .args(["add", "--json"])
        .arg(&what)
        .succeed()?;
    ensure!(
        second.json()?[0]["outcome"] == "stored",
        "half registered: {second}"
    );
    Ok(())
}

fn a_full_ext4() -> Result<()> {
    space(Kind::Ext4)
}

fn an_ext4_without_inodes() -> Result<()> {
    inodes(Kind::Ext4)
}

fn a_full_ext4_that_holds_the_database_too() -> Result<()> {
    database(Kind::Ext4)
}

fn a_full_tmpfs() -> Result<()> {
    space(Kind::Memory)
}

fn a_tmpfs_without_inodes() -> Result<()> {
    inodes(Kind::Memory)
}

fn a_full_tmpfs_that_holds_the_database_too() -> Result<()> {
    database(Kind::Memory)
}
