// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the removal of objects would free, measured before.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::links;
use crate::{Error, Result};

/// What the system counts disk space in, in bytes.
const BLOCK: u64 = 512;

/// Directories in directories that are entered, each with a file open. An object cannot be nested more deeply than an
/// archive; in garbage that is, the rest counts for nothing.
const MAX_DEPTH: usize = 200;

/// Adds up what goes, in the order in which it goes.
#[derive(Debug)]
pub(super) struct Ruler<'a> {
    layer: BorrowedFd<'a>,
    path: PathBuf,
    /// What was measured so far would free so much.
    pub(super) bytes: u64,
    /// The same in inodes.
    pub(super) inodes: u64,
    /// The same in names.
    pub(super) entries: u64,
    /// How many names of a file were measured, for files that have others left.
    names: HashMap<(u64, u64), u64>,
    /// The files of the link farm; read when the first file with several names comes.
    linked: Option<HashSet<u64>>,
}

impl<'a> Ruler<'a> {
    /// Measures objects of a layer.
    pub(super) fn new(layer: BorrowedFd<'a>, path: PathBuf) -> Self {
        Self {
            layer,
            path,
            bytes: 0,
            inodes: 0,
            entries: 0,
            names: HashMap::new(),
            linked: None,
        }
    }

    /// Adds an object, or what else has that name. What is not there adds nothing.
    ///
    /// # Errors
    /// If it cannot be examined.
    pub(super) fn add(&mut self, name: &OsStr) -> Result<()> {
        let failed = |source: Errno| Error::io("measure", self.path.join(name), source);
        let stat = match fs::statat(self.layer, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.file(&stat);
        }
        let top = open(self.layer, name).map_err(failed)?;
        let mut levels = vec![self.directory(top, &stat, name)?];
        while let Some((directory, left)) = levels.last_mut() {
            let Some(entry) = left.pop() else {
                levels.pop();
                continue;
            };
            let failed = |source: Errno| Error::io("measure", self.path.join(name), source);
            let found = match fs::statat(&*directory, &entry, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                self.file(&found)?;
            } else if found.st_dev == stat.st_dev && levels.len() < MAX_DEPTH {
                let child = open(levels[levels.len() - 1].0.as_fd(), &entry).map_err(failed)?;
                let level = self.directory(child, &found, name)?;
                levels.push(level);
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        directory: OwnedFd,
        stat: &Stat,
        object: &OsStr,
    ) -> Result<(OwnedFd, Vec<OsString>)> {
        self.free(stat);
        self.entries += 1;
        let failed = |source: Errno| Error::io("measure", self.path.join(object), source);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                entries.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok((directory, entries))
    }

    fn file(&mut self, stat: &Stat) -> Result<()> {
        self.entries += 1;
        let mut names = u64::from(stat.st_nlink as u32);
        if names <= 1 {
            self.free(stat);
            return Ok(());
        }
        // The link in the farm goes by itself when it is the last one.
        names -= u64::from(self.linked()?.contains(&stat.st_ino));
        let seen = self.names.entry((stat.st_dev, stat.st_ino)).or_default();
        *seen += 1;
        if *seen == names {
            self.free(stat);
        }
        Ok(())
    }

    fn free(&mut self, stat: &Stat) {
        self.inodes += 1;
        self.bytes += space(stat);
    }

    fn linked(&mut self) -> Result<&HashSet<u64>> {
        if self.linked.is_none() {
            self.linked = Some(links::inodes(self.layer, &self.path)?);
        }
        Ok(self.linked.get_or_insert_default())
    }
}

/// The disk space of a file, in bytes.
pub(super) fn space(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

fn open(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}
