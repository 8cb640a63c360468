// SPDX-License-Identifier: MIT OR Apache-2.0
//! A walk through one object for the files that could become links.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::file;
use super::report::Skipped;
use crate::store::layer::Identity;

/// An object of a valid path is never deeper.
const MAX_DEPTH: usize = 64;
/// A file with more names is shared widely: to replace some of them gives nothing back, and to replace all can exceed what
/// the file system allows (65,000 on ext4).
const MANY_NAMES: u64 = 30_000;

/// What was found in an object.
#[derive(Debug)]
pub(super) struct Survey {
    /// The object when it was looked at.
    pub(super) identity: Identity,
    /// The files that could become links and are not in the farm; those of one directory together.
    pub(super) files: Vec<Seen>,
    pub(super) skipped: Skipped,
}

/// A file in an object.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its path in the layer, beginning with the name of the object.
    pub(super) path: OsString,
    pub(super) size: u64,
    pub(super) inode: u64,
}

/// Walks through the object `name` of a layer. Files whose inodes are in `farm` are links already.
pub(super) fn survey(layer: BorrowedFd<'_>, name: &str, farm: &HashSet<u64>) -> rustix::io::Result<Survey> {
    let stat = fs::statat(layer, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut walk = Walk {
        farm,
        device: stat.st_dev,
        path: name.as_bytes().to_vec(),
        files: Vec::new(),
        skipped: Skipped::default(),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let object = walk.open(layer, name.as_bytes())?;
            walk.directory(&object, 1)?;
        }
        FileType::RegularFile => walk.file(&stat),
        _ => {}
    }
    Ok(Survey {
        identity: Identity::of(&stat),
        files: walk.files,
        skipped: walk.skipped,
    })
}

struct Walk<'f> {
    farm: &'f HashSet<u64>,
    device: u64,
    /// The path of what is at hand.
    path: Vec<u8>,
    files: Vec<Seen>,
    skipped: Skipped,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        // Files first, so that they are together.
        let mut inner: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => inner.push(OsString::from_vec(name.to_vec())),
                FileType::RegularFile if self.farm.contains(&entry.ino()) => {}
                FileType::RegularFile | FileType::Unknown => {
                    let stat = fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory => inner.push(OsString::from_vec(name.to_vec())),
                        FileType::RegularFile => self.inside(name, |walk| {
                            walk.file(&stat);
                            Ok(())
                        })?,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        for name in inner {
            let child = self.open(directory.as_fd(), name.as_bytes())?;
            self.inside(name.as_bytes(), |walk| walk.directory(&child, depth + 1))?;
        }
        Ok(())
    }

    fn inside(
        &mut self,
        name: &[u8],
        walk: impl FnOnce(&mut Self) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        let result = walk(self);
        self.path.truncate(length);
        result
    }

    fn open(&self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(parent, name, flags, Mode::empty())?;
        // Something is mounted there: no link leads from one file system to another.
        if fs::fstat(&directory)?.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        Ok(directory)
    }

    fn file(&mut self, stat: &Stat) {
        let size = file::size(stat);
        // An empty file has nothing to give back.
        if size == 0 || file::names(stat) >= MANY_NAMES || self.farm.contains(&stat.st_ino) {
            return;
        }
        if !file::is_canonical(stat) {
            tracing::debug!(file = ?OsStr::from_bytes(&self.path), mode = stat.st_mode, "not made a link: not canonical");
            self.skipped.not_canonical += 1;
            return;
        }
        self.files.push(Seen {
            path: OsString::from_vec(self.path.clone()),
            size,
            inode: stat.st_ino,
        });
    }
}
