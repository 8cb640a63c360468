// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removing trees.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::freed::Freed;
use crate::listing::{Listing, Scratch};
use crate::path::{Trail, object_name};

/// How many directories are kept open at most. A tree may be nested more deeply than a process may have files open.
const MAX_OPEN: usize = 64;

/// What the system counts disk space in, in bytes.
const BLOCK: u64 = 512;

/// The owner's permissions to list a directory and to reach its entries.
const OWNER_SEARCH: u32 = 0o500;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveStats {
    /// How many names of files were removed: regular files, links and all else but directories.
    pub files: u64,
    /// How many directories were removed, the root included.
    pub directories: u64,
    /// How many inodes were freed: those of directories, and of files that have no name left.
    pub inodes_freed: u64,
    /// How much disk space was freed, in bytes: that of directories, and of files that have no name left.
    pub bytes_freed: u64,
    /// How much disk space, in bytes, is still held by other names of the files that were removed, each file counted
    /// once: it becomes free when the last of them (in a directory of hard links, say) goes.
    pub bytes_still_linked: u64,
}

/// Removes the object `name` from an open directory, whatever it is.
///
/// Links are removed, never followed; everything is done relative to open directories; a mount point inside is refused.
/// Directories that their owner may not write are made writable first. Depth is not limited. Entries that somebody else
/// removes meanwhile do not matter. Of hard links, each name counts as a file, and the space only once.
///
/// # Errors
/// [`Error::System`] (kind `NotFound` if there is no such object), [`Error::MountPoint`], or [`Error::Moved`] if someone
/// rearranges the tree at the same time. What was removed before the error stays removed; the call can be repeated.
pub fn remove_tree(directory: impl AsFd, name: impl AsRef<OsStr>) -> Result<RemoveStats> {
    let removals = Removals(Freed::by_one());
    removals.remove(directory, name)?;
    Ok(removals.total())
}

/// Removes many trees, by several threads if wanted, and counts what that frees of all of them together: a file that has
/// names in several of the trees is counted once, when its last name goes.
///
/// ```
/// let scratch = tempfile::tempdir()?;
/// let directory = std::fs::File::open(scratch.path())?;
/// std::fs::write(scratch.path().join("a"), vec![1; 10_000])?;
/// std::fs::hard_link(scratch.path().join("a"), scratch.path().join("b"))?;
///
/// let removals = superpose_nar::Removals::new();
/// std::thread::scope(|scope| {
///     for name in ["a", "b"] {
///         let (removals, directory) = (&removals, &directory);
///         scope.spawn(move || removals.remove(directory, name));
///     }
/// });
/// assert_eq!((removals.total().files, removals.total().inodes_freed), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Removals(Freed);

impl Removals {
    /// Nothing is removed yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Freed::by_many())
    }

    /// Removes one tree, as [`remove_tree`] does. What was removed before an error counts too.
    ///
    /// # Errors
    /// As [`remove_tree`].
    pub fn remove(&self, directory: impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
        let name = object_name(name.as_ref())?;
        let mut removal = Removal {
            trail: Trail::new(name.to_bytes()),
            scratch: Scratch::new(),
            stats: RemoveStats::default(),
            freed: &self.0,
        };
        let result = removal.object(directory.as_fd(), &name);
        self.0.add(&removal.stats);
        result
    }

    /// What all removals so far have done.
    #[must_use]
    pub fn total(&self) -> RemoveStats {
        self.0.total()
    }
}

impl Default for Removals {
    fn default() -> Self {
        Self::new()
    }
}

/// A directory whose entries are being removed.
struct Level {
    /// Closed when too many are open, and found again through `..`.
    directory: Option<OwnedFd>,
    identity: (u64, u64),
    bytes: u64,
    left: Listing,
}

struct Removal<'a> {
    trail: Trail,
    scratch: Scratch,
    stats: RemoveStats,
    freed: &'a Freed,
}

impl Removal<'_> {
    fn object(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let stat =
            statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.trail.failed("examine"))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.tree(directory, name)?;
            return unlinkat(directory, name, AtFlags::REMOVEDIR)
                .map_err(self.trail.failed("remove the directory"));
        }
        let unlink = || unlinkat(directory, name, AtFlags::empty());
        self.unlink(directory, name, &stat, unlink)
            .map_err(self.trail.failed("remove"))
    }

    /// Removes everything inside a directory.
    fn tree(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let mut levels = vec![self.enter(parent, name, None)?];
        while let Some(level) = levels.last_mut() {
            let Some(directory) = &level.directory else {
                return Err(Error::Moved {
                    path: self.trail.to_path(),
                });
            };
            let Some((entry, kind)) = level.left.pop() else {
                self.leave(&mut levels)?;
                continue;
            };
            let mark = self.trail.enter(entry.to_bytes());
            if self.file(directory.as_fd(), entry, kind)? {
                self.trail.leave(&mark);
                continue;
            }
            let child = match self.enter(directory.as_fd(), entry, Some(level.identity)) {
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {
                    self.trail.leave(&mark);
                    continue;
                }
                child => child?,
            };
            levels.push(child);
            if let Some(far) = levels.len().checked_sub(MAX_OPEN + 1) {
                levels[far].directory = None;
            }
        }
        Ok(())
    }

    /// Removes an entry that is no directory; false if it is one.
    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<bool> {
        if kind == FileType::Directory {
            return Ok(false);
        }
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(true),
            stat => stat.map_err(self.trail.failed("examine"))?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(false);
        }
        let unlink = || writably(directory, || unlinkat(directory, name, AtFlags::empty()));
        match self.unlink(directory, name, &stat, unlink) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(self.trail.failed("remove")(errno)),
        }
    }

    /// Removes one name of a file and counts it.
    fn unlink(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        unlink: impl FnOnce() -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let identity = (stat.st_dev, stat.st_ino);
        let bytes = space(stat);
        let is_last = if names(stat) <= 1 {
            unlink()?;
            // The names before the last one may have been removed here too.
            self.freed.forget(identity);
            true
        } else {
            self.freed.of_many_names(identity, bytes, || {
                let left = names(&statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?);
                unlink()?;
                Ok(left <= 1)
            })?
        };
        self.stats.files += 1;
        if is_last {
            self.stats.inodes_freed += 1;
            self.stats.bytes_freed += bytes;
        }
        Ok(())
    }

    fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr, above: Option<(u64, u64)>) -> Result<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::ACCESS) => {
                self.make_accessible(parent, name)?;
                openat(parent, name, flags, Mode::empty())
            }
            opened => opened,
        };
        let directory = directory.map_err(self.trail.failed("open the directory"))?;
        let stat = fstat(&directory).map_err(self.trail.failed("examine"))?;
        let identity = (stat.st_dev, stat.st_ino);
        if above.is_some_and(|above| above.0 != identity.0) {
            return Err(Error::MountPoint {
                path: self.trail.to_path(),
            });
        }
        if stat.st_mode & OWNER_SEARCH != OWNER_SEARCH {
            // Its entries can be listed, but not be reached. For anybody but the owner other bits decide.
            match fchmod(&directory, Mode::RWXU) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(errno) => return Err(self.trail.failed("set the mode of")(errno)),
            }
        }
        let left = Listing::read(directory.as_fd(), &mut self.scratch)
            .map_err(self.trail.failed("read the directory"))?;
        Ok(Level {
            directory: Some(directory),
            identity,
            bytes: space(&stat),
            left,
        })
    }

    /// Removes the innermost directory, now empty, unless it is the root: its parent is the caller's.
    fn leave(&mut self, levels: &mut Vec<Level>) -> Result<()> {
        let Some(done) = levels.pop() else { return Ok(()) };
        self.stats.directories += 1;
        self.stats.inodes_freed += 1;
        self.stats.bytes_freed += done.bytes;
        let Some(parent) = levels.last_mut() else {
            return Ok(());
        };
        let directory = match parent.directory.take() {
            Some(directory) => directory,
            None => self.reopen(done.directory.as_ref(), parent.identity)?,
        };
        let name = self.trail.last();
        match writably(directory.as_fd(), || {
            unlinkat(&directory, name, AtFlags::REMOVEDIR)
        }) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.trail.failed("remove the directory")(errno)),
        }
        parent.directory = Some(directory);
        self.trail.leave_last();
        Ok(())
    }

    /// Opens the parent of a directory, and makes sure that it is still the one it was entered from.
    fn reopen(&self, child: Option<&OwnedFd>, identity: (u64, u64)) -> Result<OwnedFd> {
        let moved = || Error::Moved {
            path: self.trail.to_path(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = openat(child.ok_or_else(moved)?, c"..", flags, Mode::empty())
            .map_err(self.trail.failed("open the parent of"))?;
        let stat = fstat(&parent).map_err(self.trail.failed("examine the parent of"))?;
        if (stat.st_dev, stat.st_ino) == identity {
            Ok(parent)
        } else {
            Err(moved())
        }
    }

    /// Gives the owner all permissions for a directory that cannot be opened, without following a link.
    fn make_accessible(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle =
            openat(parent, name, flags, Mode::empty()).map_err(self.trail.failed("open the directory"))?;
        // A descriptor of this kind has no mode of its own to change; its name in /proc leads to the very same directory.
        chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)
            .map_err(self.trail.failed("set the mode of"))
    }
}

/// Tries to change a directory, and when that is not permitted, makes it writable and tries again.
fn writably(
    directory: BorrowedFd<'_>,
    change: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match change() {
        Err(Errno::ACCESS) => {
            fchmod(directory, Mode::RWXU)?;
            change()
        }
        result => result,
    }
}

/// How many names a file has.
fn names(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink as u32)
}

fn space(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}
