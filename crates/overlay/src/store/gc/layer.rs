// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is physically in the layer that is collected, read once.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use superpose_metadata::LivenessGraph;
use superpose_store_path::StorePath;

use super::judge::Nodes;
use crate::Result;
use crate::flock::{self, LockMode};
use crate::listing::{EntryKind, for_each_entry};
use crate::store::trash;

/// Directories of this beginning are in use as long as they are locked; Nix makes them for large additions.
const LOCKED_SCRATCH: &[u8] = b"tmp-";

/// How many such directories are locked at once, each with a file open; more of them wait for the next collection.
const MAX_LOCKED: usize = 256;

/// What is in a layer. Whiteouts are left alone: they are no objects, and a verification tells of them.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The valid paths whose objects are here.
    pub(super) present: Nodes,
    /// Objects without a row: of the lower store, of additions under way, and what crashes have left.
    pub(super) unregistered: Vec<StorePath>,
    /// Names that are no store paths.
    pub(super) junk: Vec<OsString>,
    /// What waits in the trash under a name of the layer.
    pub(super) waiting: Vec<OsString>,
}

impl Contents {
    /// Lists a layer.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn of(layer: BorrowedFd<'_>, path: &Path, graph: &LivenessGraph) -> Result<Self> {
        let mut contents = Self {
            present: Nodes::new(graph.len()),
            ..Self::default()
        };
        for_each_entry(layer, path, |name, kind| {
            if kind != EntryKind::Whiteout {
                contents.add(name, graph);
            }
            Ok(())
        })?;
        Ok(contents)
    }

    fn add(&mut self, name: &[u8], graph: &LivenessGraph) {
        let own = || OsStr::from_bytes(name).to_owned();
        if trash::object_of(name).is_some() {
            self.waiting.push(own());
            return;
        }
        let Ok(path) = StorePath::from_base_name(name) else {
            self.junk.push(own());
            return;
        };
        match graph.node(&path) {
            Some(node) => {
                self.present.insert(node);
            }
            None => self.unregistered.push(path),
        }
    }
}

/// Junk that nobody uses, kept unused by locks as long as this lives.
#[derive(Debug, Default)]
pub(super) struct IdleJunk {
    pub(super) names: Vec<OsString>,
    _locks: Vec<OwnedFd>,
}

impl IdleJunk {
    /// Finds out what of the junk is unused. `real` is the directory by which everybody else knows it: a lock on a
    /// directory of the upper layer is none on the same directory in the merged view.
    pub(super) fn of(real: BorrowedFd<'_>, junk: &[OsString]) -> Self {
        let mut idle = Self::default();
        for name in junk {
            if !name.as_bytes().starts_with(LOCKED_SCRATCH) {
                idle.names.push(name.clone());
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match fs::openat(real, name, flags, Mode::empty()) {
                Ok(directory) => {
                    let is_ours = idle._locks.len() < MAX_LOCKED
                        && flock::try_acquire(std::os::fd::AsFd::as_fd(&directory), LockMode::Exclusive)
                            .unwrap_or(false);
                    if is_ours {
                        idle.names.push(name.clone());
                        idle._locks.push(directory);
                    } else {
                        tracing::debug!(name = %name.display(), "a scratch directory is in use");
                    }
                }
                // A file, or a link: nothing that anybody locks.
                Err(Errno::NOTDIR | Errno::LOOP) => idle.names.push(name.clone()),
                Err(error) => {
                    tracing::debug!(name = %name.display(), %error, "cannot see whether junk is in use")
                }
            }
        }
        idle
    }
}
