// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is physically in the upper layer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use superpose_store_path::StorePath;

use crate::listing::{EntryKind, for_each_entry};
use crate::{Error, Result};

/// From this many questions on, one reading of the directory is cheaper than an `lstat` for each.
const READ_AT_ONCE: usize = 256;

/// Where something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// In the upper layer or the upper database; for a local store, which has one layer only, in that.
    Upper,
    /// In the lower store.
    Lower,
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layer::Upper => "upper",
            Layer::Lower => "lower",
        })
    }
}

/// What a name in the upper layer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing of that name.
    Absent,
    /// A character device 0:0: the lower entry is hidden.
    Whiteout,
    /// A file, directory or symbolic link.
    Object,
}

/// The OverlayFS upper directory, held open, so that a directory put in its place is not mistaken for it.
#[derive(Debug)]
pub(crate) struct UpperLayer {
    fd: OwnedFd,
    path: PathBuf,
}

impl UpperLayer {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fd = fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|source| Error::io("open the upper layer", path, source))?;
        Ok(Self::new(fd, path))
    }

    /// An upper layer that is open already; `path` names it in messages.
    pub(crate) fn new(fd: OwnedFd, path: &Path) -> Self {
        UpperLayer {
            fd,
            path: path.to_path_buf(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What `name` stands for.
    pub(crate) fn entry(&self, name: &OsStr) -> Result<Entry> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if EntryKind::of(&stat) == EntryKind::Whiteout => Ok(Entry::Whiteout),
            Ok(_) => Ok(Entry::Object),
            Err(Errno::NOENT) => Ok(Entry::Absent),
            Err(source) => Err(Error::io("examine", self.path.join(name), source)),
        }
    }

    /// Says of each path which layer holds the object: the upper one, or what is below.
    ///
    /// An object that is nowhere counts as below, where it would have to be.
    pub(crate) fn locate(&self, paths: &[StorePath]) -> Result<Vec<Layer>> {
        let layer = |above| if above { Layer::Upper } else { Layer::Lower };
        if paths.len() < READ_AT_ONCE {
            return paths
                .iter()
                .map(|path| Ok(layer(self.entry(OsStr::new(path.base_name()))? == Entry::Object)))
                .collect();
        }
        let names = self.names()?;
        Ok(paths
            .iter()
            .map(|path| layer(names.contains(path.base_name().as_bytes())))
            .collect())
    }

    /// The names of all objects (and of what else lies there), without whiteouts.
    pub(crate) fn names(&self) -> Result<HashSet<Vec<u8>>> {
        let mut names = HashSet::new();
        for_each_entry(self.fd(), &self.path, |name, kind| {
            if kind != EntryKind::Whiteout {
                names.insert(name.to_vec());
            }
            Ok(())
        })?;
        Ok(names)
    }
}
