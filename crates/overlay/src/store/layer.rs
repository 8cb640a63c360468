// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layer that is worked on: the upper layer of an overlay store, or the store directory of a local one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::BorrowedFd;
use rustix::fs::{self, AtFlags, Stat};
use rustix::io::Errno;
use superpose_store_path::StorePath;

use super::Store;
use crate::listing::{EntryKind, for_each_entry};
use crate::{Error, Result};

/// The directory in which objects are physically.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) path: &'a Path,
}

/// Something in a layer whose name is that of a store path.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: StorePath,
    pub(super) kind: EntryKind,
}

/// Which file it is, and which state of it. An object that is replaced has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) changed: (i64, u32),
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        Identity {
            inode: stat.st_ino,
            // Nanoseconds are below 2^32.
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }
}

impl Store {
    pub(super) fn layer(&self) -> Layer<'_> {
        match &self.below {
            Some(below) => Layer {
                fd: below.upper.fd(),
                path: below.upper.path(),
            },
            None => Layer {
                fd: self.real.fd(),
                path: self.real.path(),
            },
        }
    }
}

impl Layer<'_> {
    /// Everything in the layer that may be an object, sorted: whiteouts and names that are no store paths are left out.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for_each_entry(self.fd, self.path, |name, kind| {
            let is_object = matches!(kind, EntryKind::Directory | EntryKind::File | EntryKind::Symlink);
            if let Ok(path) = StorePath::from_base_name(name)
                && is_object
            {
                entries.push(Entry { path, kind });
            }
            Ok(())
        })?;
        entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }

    /// What a name of the layer is; `None` if there is nothing.
    pub(super) fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        stat_in(self.fd, name).map_err(|source| Error::io("examine", self.path.join(name), source))
    }
}

/// What a name of a directory is, itself and not what it points to; `None` if there is nothing.
pub(super) fn stat_in(directory: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<Option<Stat>, Errno> {
    match fs::statat(directory, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
