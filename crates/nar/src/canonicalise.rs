// SPDX-License-Identifier: MIT OR Apache-2.0
//! Canonical metadata for a tree that exists.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chmod, chownat, fchmod, fchown, fstat, futimens, openat,
    statat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::attributes::strip;
use crate::create::{CANONICAL_TIMES, EXECUTABLE_MODE, FILE_MODE};
use crate::error::{Error, Result};
use crate::format::MAX_DEPTH;
use crate::kind::describe;
use crate::listing::{Listing, Scratch};
use crate::path::{Trail, object_name};
use crate::walk::OWNER_EXECUTE;

/// Gives a tree that exists the metadata that store objects have.
///
/// Files become 0444, or 0555 if their owner may execute them; directories 0555; everything is given to the effective
/// user and group of the process, gets the modification time one second past the epoch (the access time stays), and
/// loses its extended attributes. Only what differs is written, so that a second call changes nothing. The tree has to
/// be at rest; links are never followed.
///
/// Kept are the attributes that Nix keeps by default (`security.csm`, `security.selinux`, `system.nfs4_acl`), and those
/// in which OverlayFS keeps its notes (`trusted.overlay.*`, `user.overlay.*`).
///
/// # Errors
/// [`Error::UnsupportedType`] for a fifo, socket or device, [`Error::TooDeep`] where no archive could follow, and
/// [`Error::System`]. What was mended before the error stays so.
///
/// # Deviation
/// Nix also lists the attributes of symbolic links; only a privileged process can give them any, and they are left here.
pub fn canonicalise(directory: impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let name = object_name(name.as_ref())?;
    let trail = Trail::new(name.to_bytes());
    let mut walk = Canonicaliser {
        owner: (geteuid(), getegid()),
        trail,
        scratch: Scratch::new(),
    };
    walk.node(directory.as_fd(), &name, FileType::Unknown, 0)
}

struct Canonicaliser {
    owner: (Uid, Gid),
    trail: Trail,
    scratch: Scratch,
}

impl Canonicaliser {
    fn node(&mut self, parent: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::TooDeep {
                path: self.trail.to_path(),
            });
        }
        match kind {
            FileType::Symlink => self.symlink(parent, name),
            FileType::RegularFile | FileType::Directory => {
                let (node, stat) = self.open(parent, name)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => {
                        let executable = stat.st_mode & OWNER_EXECUTE != 0;
                        let mode = if executable { EXECUTABLE_MODE } else { FILE_MODE };
                        self.metadata(node.as_fd(), &stat, mode)
                    }
                    FileType::Directory => self.directory(node.as_fd(), &stat, depth),
                    other => Err(self.unsupported(other)),
                }
            }
            FileType::Unknown => {
                let stat =
                    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.trail.failed("examine"))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Unknown => Err(self.unsupported(FileType::Unknown)),
                    known => self.node(parent, name, known, depth),
                }
            }
            other => Err(self.unsupported(other)),
        }
    }

    fn directory(&mut self, directory: BorrowedFd<'_>, stat: &Stat, depth: usize) -> Result<()> {
        if stat.st_mode & OWNER_EXECUTE == 0 {
            // Its entries can be listed, but not be reached.
            fchmod(directory, EXECUTABLE_MODE).map_err(self.trail.failed("set the mode of"))?;
        }
        let listing =
            Listing::read(directory, &mut self.scratch).map_err(self.trail.failed("read the directory"))?;
        for (child, kind) in listing.iter() {
            let mark = self.trail.enter(child.to_bytes());
            self.node(directory, child, kind, depth + 1)?;
            self.trail.leave(&mark);
        }
        // Looked at again, as the work on the children may have changed it.
        let stat = fstat(directory).map_err(self.trail.failed("examine"))?;
        self.metadata(directory, &stat, EXECUTABLE_MODE)
    }

    fn symlink(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.trail.failed("examine"))?;
        if self.is_foreign(&stat) {
            let (user, group) = self.owner;
            chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.trail.failed("set the owner of"))?;
        }
        if !has_canonical_time(&stat) {
            utimensat(parent, name, &CANONICAL_TIMES, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.trail.failed("set the times of"))?;
        }
        Ok(())
    }

    fn metadata(&self, node: BorrowedFd<'_>, stat: &Stat, mode: Mode) -> Result<()> {
        if self.is_foreign(stat) {
            let (user, group) = self.owner;
            fchown(node, Some(user), Some(group)).map_err(self.trail.failed("set the owner of"))?;
        }
        // Before the mode, of which an access control list is a part.
        let stripped = strip(node, &self.trail)?;
        // The raw mode, as the type of `Mode` would drop the file type alone.
        if stat.st_mode & 0o7777 != mode.as_raw_mode() || stripped.inherited {
            fchmod(node, mode).map_err(self.trail.failed("set the mode of"))?;
        }
        if !has_canonical_time(stat) {
            futimens(node, &CANONICAL_TIMES).map_err(self.trail.failed("set the times of"))?;
        }
        Ok(())
    }

    /// Opens a file or directory, even one that its owner may not read.
    fn open(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Stat)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let node = match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::ACCESS) => {
                self.make_readable(parent, name)?;
                openat(parent, name, flags, Mode::empty())
            }
            opened => opened,
        };
        let node = node.map_err(self.trail.failed("open"))?;
        let stat = fstat(&node).map_err(self.trail.failed("examine"))?;
        Ok((node, stat))
    }

    /// Adds the owner's read permission (and, for directories, all of them) without following a link.
    fn make_readable(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        use std::os::fd::AsRawFd;
        let handle = openat(
            parent,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(self.trail.failed("open"))?;
        let stat = fstat(&handle).map_err(self.trail.failed("examine"))?;
        let wanted = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => 0o400,
            FileType::Directory => 0o700,
            other => return Err(self.unsupported(other)),
        };
        // A descriptor of this kind has no mode of its own to change; its name in /proc leads to the very same file.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | wanted);
        chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), mode)
            .map_err(self.trail.failed("set the mode of"))
    }

    fn is_foreign(&self, stat: &Stat) -> bool {
        (stat.st_uid, stat.st_gid) != (self.owner.0.as_raw(), self.owner.1.as_raw())
    }

    fn unsupported(&self, kind: FileType) -> Error {
        Error::UnsupportedType {
            path: self.trail.to_path(),
            found: describe(kind),
        }
    }
}

fn has_canonical_time(stat: &Stat) -> bool {
    let canonical = CANONICAL_TIMES.last_modification;
    (stat.st_mtime, stat.st_mtime_nsec as i64) == (canonical.tv_sec, canonical.tv_nsec)
}
