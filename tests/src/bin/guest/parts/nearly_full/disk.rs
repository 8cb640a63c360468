// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that can be filled but for a little.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disks;

/// What is left free before the additions begin: room for some of them.
const BYTES_LEFT: u64 = 1 << 20;
const INODES_LEFT: usize = 60;

/// More files than any of the disks has inodes.
const MOST_FILES: usize = 100_000;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Memory,
}

/// What a disk runs out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Bytes,
    Inodes,
}

/// A mounted disk; unmounted on drop.
pub(super) struct Disk {
    point: PathBuf,
}

impl Disk {
    /// Mounts a small disk of this kind, as empty as the last trial left it.
    pub(super) fn mount(kind: Kind, point: &Path) -> Result<Self> {
        fs::create_dir_all(point).with_context(|| point.display().to_string())?;
        let device = |serial: &str, kind: &str| {
            disks::mount_device(&disks::device(serial)?, point, kind, MountFlags::empty(), "")
        };
        match kind {
            Kind::Ext4 => device("small-ext4", "ext4")?,
            Kind::Xfs => device("small-xfs", "xfs")?,
            Kind::Memory => {
                let options = c"size=48m,nr_inodes=2500";
                mount("tmpfs", point, "tmpfs", MountFlags::empty(), options).context("mounting a tmpfs")?;
            }
        }
        let disk = Self {
            point: point.to_owned(),
        };
        disk.empty()?;
        Ok(disk)
    }

    fn empty(&self) -> Result<()> {
        for entry in fs::read_dir(&self.point)? {
            let path = entry?.path();
            // Whatever the last trial left here is its own and nobody's mount: the machine is.
            superpose_tests::Invocation::new("rm")
                .arg("-rf")
                .arg(&path)
                .succeed()?;
        }
        Ok(())
    }

    /// Takes all but a little of what it has.
    pub(super) fn fill(&self, lack: Lack) -> Result<Filler> {
        let filler = Filler {
            path: self.point.join("filler"),
            lack,
        };
        match lack {
            Lack::Bytes => {
                let mut file = File::create(&filler.path)?;
                let length = write_all_there_is(&mut file)?;
                file.set_len(length.saturating_sub(BYTES_LEFT))?;
                file.sync_all()?;
            }
            Lack::Inodes => {
                fs::create_dir(&filler.path)?;
                let made = create_all_there_are(&filler.path)?;
                for number in made.saturating_sub(INODES_LEFT)..made {
                    fs::remove_file(filler.path.join(number.to_string()))?;
                }
            }
        }
        rustix::fs::sync();
        Ok(filler)
    }

    /// Takes what is left.
    pub(super) fn fill_up(&self, filler: &Filler) -> Result<()> {
        rustix::fs::sync();
        match filler.lack {
            Lack::Bytes => {
                let mut file = File::options().append(true).open(&filler.path)?;
                write_all_there_is(&mut file)?;
                file.sync_all().or_else(full_is_meant)?;
            }
            Lack::Inodes => {
                let last = filler.path.join("last");
                fs::create_dir_all(&last).or_else(full_is_meant)?;
                if last.is_dir() {
                    create_all_there_are(&last)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.point, UnmountFlags::DETACH).ok();
    }
}

/// What fills a disk.
pub(super) struct Filler {
    path: PathBuf,
    lack: Lack,
}

impl Filler {
    /// Gives the room back.
    pub(super) fn remove(self) -> Result<()> {
        superpose_tests::Invocation::new("rm")
            .arg("-rf")
            .arg(&self.path)
            .succeed()?;
        rustix::fs::sync();
        Ok(())
    }
}

fn full_is_meant(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        ErrorKind::StorageFull => Ok(()),
        _ => Err(error),
    }
}

/// Returns how long the file is now. Blocks become smaller towards the end, so that nothing is left.
fn write_all_there_is(file: &mut File) -> Result<u64> {
    for size in [1 << 20, 4096, 512] {
        let block = vec![1; size];
        loop {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("filling a disk"),
            }
        }
    }
    Ok(file.metadata()?.len())
}

fn create_all_there_are(dir: &Path) -> Result<usize> {
    for number in 0..MOST_FILES {
        match File::create(dir.join(number.to_string())) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(number),
            Err(error) => return Err(error).context("filling a disk"),
        }
    }
    bail!("a disk has more than {MOST_FILES} inodes")
}
