// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying an object and hashing its archive in one pass.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::ioctl_ficlone;

use crate::create::{Builder, RestoreOptions};
use crate::dump::Hashed;
use crate::error::Result;
use crate::path::{Trail, object_name};
use crate::pipeline::{Taps, hashed};
use crate::restore::undo;
use crate::walk::{Mirror, Walk};

/// From this size on, in bytes, sharing blocks with the source is worth the attempt.
const WORTH_SHARING: u64 = 128 * 1024;

/// Copies the object `name` from one open directory to another, with canonical metadata, and hashes its archive.
///
/// Each byte is read once, into the buffer that is then written and hashed: the hash is that of what the copy holds,
/// whatever else happens to the source meanwhile. Hashing has a thread of its own, so that a large file takes as long as
/// the slower of hashing and copying. Where source and copy can share blocks (btrfs, XFS, bcachefs) large files are
/// cloned, and hashed from the clone, which nobody else can change.
///
/// The copy is made under `to.1`, which must not exist. When the call fails, what had been made of it is removed.
///
/// # Errors
/// As [`crate::dump`] and [`crate::restore()`]; and when a tap fails.
pub fn copy_tree(
    from: (impl AsFd, impl AsRef<OsStr>),
    to: (impl AsFd, impl AsRef<OsStr>),
    options: &RestoreOptions,
    taps: Taps<'_>,
) -> Result<Hashed> {
    let name = object_name(from.1.as_ref())?;
    let copy_name = object_name(to.1.as_ref())?;
    let directory = to.0.as_fd();
    let trail = Trail::new(copy_name.to_bytes());
    let mut made = false;
    let result = hashed(name.to_bytes(), taps, |stream| {
        let copier = Copier {
            builder: Builder::new(),
            directory,
            sharing: true,
        };
        let walk = Walk::new(stream, copier, Trail::new(name.to_bytes()));
        let (tree, stream, copier) = walk.run(from.0.as_fd(), &name, &None, &copy_name);
        made = copier.builder.has_root();
        let tree = tree?;
        copier.builder.sync(directory, &copy_name, options.sync, &trail)?;
        Ok((tree, stream))
    });
    match result {
        Ok((tree, nar)) => Ok(Hashed { nar, tree }),
        Err(error) if made => Err(undo(directory, &copy_name, error)),
        Err(error) => Err(error),
    }
}

struct Copier<'a> {
    builder: Builder,
    /// The directory that the caller passed.
    directory: BorrowedFd<'a>,
    /// Whether cloning is still worth a try.
    sharing: bool,
}

/// The directory of the copy in which a node is made: one of its own, or the one that the caller passed.
fn place<'a>(parent: &'a Option<OwnedFd>, given: BorrowedFd<'a>) -> BorrowedFd<'a> {
    parent.as_ref().map_or(given, AsFd::as_fd)
}

impl Mirror for Copier<'_> {
    /// A directory of the copy, or nothing for the one that the caller passed.
    type Directory = Option<OwnedFd>;
    type File = OwnedFd;

    fn directory(&mut self, parent: &Option<OwnedFd>, name: &CStr, trail: &Trail) -> Result<Option<OwnedFd>> {
        let place = place(parent, self.directory);
        self.builder.directory(place, name, trail).map(Some)
    }

    fn finish_directory(&mut self, directory: Option<OwnedFd>, trail: &Trail) -> Result<()> {
        directory.map_or(Ok(()), |directory| {
            self.builder.finish_directory(directory, trail)
        })
    }

    fn symlink(&mut self, parent: &Option<OwnedFd>, name: &CStr, target: &[u8], trail: &Trail) -> Result<()> {
        let place = place(parent, self.directory);
        self.builder.symlink(place, name, target, trail)
    }

    fn file(
        &mut self,
        parent: &Option<OwnedFd>,
        name: &CStr,
        executable: bool,
        trail: &Trail,
    ) -> Result<Option<OwnedFd>> {
        let place = place(parent, self.directory);
        self.builder.file(place, name, executable, trail).map(Some)
    }

    fn share(&mut self, file: &OwnedFd, source: BorrowedFd<'_>, size: u64) -> bool {
        if !self.sharing || size < WORTH_SHARING {
            return false;
        }
        // Refused once, for whatever reason (another file system, no support), it would be refused again.
        self.sharing = ioctl_ficlone(file, source).is_ok();
        self.sharing
    }

    fn write(&mut self, file: &OwnedFd, bytes: &[u8], trail: &Trail) -> Result<()> {
        self.builder.write(file.as_fd(), bytes, trail)
    }

    fn finish_file(&mut self, file: OwnedFd, trail: &Trail) -> Result<()> {
        self.builder.finish_file(file, trail)
    }
}
