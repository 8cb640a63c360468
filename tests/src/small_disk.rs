// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems that are easily filled.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::mount::{UnmountFlags, unmount};

use crate::Invocation;

/// A file system of a few mebibytes that is unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    /// Makes an ext4 file system in a file and mounts it through a loop device.
    ///
    /// # Errors
    /// If it cannot be made or mounted.
    pub fn ext4(image: &Path, point: &Path, mebibytes: u64, inodes: u64) -> Result<Self> {
        std::fs::File::create(image)?.set_len(mebibytes << 20)?;
        std::fs::create_dir_all(point)?;
        // With smaller blocks, which mkfs chooses for small disks, SQLite's shared memory file ends in SIGBUS when
        // the disk is full: it makes room for one byte of each page of 4096 only.
        Invocation::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-b", "4096", "-O", "^has_journal", "-N"])
            .arg(inodes.to_string())
            .arg(image)
            .succeed()?;
        // The loop device is given back by itself when the mount goes.
        Invocation::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(image)
            .arg(point)
            .succeed()?;
        Ok(Self {
            point: point.to_owned(),
        })
    }

    /// Mounts a file system in memory with a limit.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn in_memory(point: &Path, mebibytes: u64, inodes: u64) -> Result<Self> {
        std::fs::create_dir_all(point)?;
        Invocation::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mebibytes}m,nr_inodes={inodes}"))
            .args(["tmpfs"])
            .arg(point)
            .succeed()?;
        Ok(Self {
            point: point.to_owned(),
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A mount that is left goes with the namespace.
        unmount(&self.point, UnmountFlags::DETACH).ok();
    }
}
