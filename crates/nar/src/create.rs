// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making files, directories and links with canonical metadata from the start.
//!
//! The root of a new object is examined once: its owner, its mode and its attributes show what the process (umask), its
//! parent directory (set-group-ID bit, default access control list) and the system (security labels) do to new files.
//! The root is mended; what is made inside it then inherits nothing unwanted, and needs only what the root has shown
//! to be needed. So a small file costs five system calls: open, write, set times, close, and nothing else.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod,
    fchown, fstat, fsync, futimens, mkdirat, openat, statat, symlinkat, syncfs, utimensat,
};
use rustix::process::{getegid, geteuid};

use crate::attributes::strip;
use crate::error::Result;
use crate::path::Trail;

/// The modification time of everything in a store: one second past the epoch. The access time is left alone.
pub(crate) const CANONICAL_TIMES: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    },
    last_modification: Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    },
};

/// The mode of executable files and of directories.
pub(crate) const EXECUTABLE_MODE: Mode = Mode::from_raw_mode(0o555);
/// The mode of other files.
pub(crate) const FILE_MODE: Mode = Mode::from_raw_mode(0o444);
/// The mode of a directory while it is being filled.
const OPEN_DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// When new objects are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Not at all: the caller does it later, or a crash may lose the object.
    #[default]
    None,
    /// Once, when the whole object is there: `fsync` for a lone file, one `syncfs` of the file system otherwise.
    ///
    /// # Durability
    /// When the call returns, contents and metadata of the whole object have reached the disk. The entry of the object
    /// in its directory has too, unless it is a lone file; a caller that renames it syncs that directory anyway.
    WholeTree,
}

/// How an object is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// When it is made durable.
    pub sync: SyncPolicy,
}

impl RestoreOptions {
    /// The same with another policy for making the object durable.
    #[must_use]
    pub const fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }
}

/// What the root has shown about new files of this process in this place.
#[derive(Clone, Copy)]
struct Surroundings {
    /// The umask, or an access control list, takes bits away that canonical modes have.
    modes: bool,
    /// New files carry attributes that have to go.
    attributes: bool,
}

/// Makes the nodes of one object. The first node made is the root.
pub(crate) struct Builder {
    surroundings: Option<Surroundings>,
    owner: (Uid, Gid),
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            surroundings: None,
            owner: (geteuid(), getegid()),
        }
    }

    /// Whether the root has been made, so that there is something to remove after a failure.
    pub(crate) const fn has_root(&self) -> bool {
        self.surroundings.is_some()
    }

    /// Makes a directory that can be filled; [`Builder::finish_directory`] gives it its final metadata.
    pub(crate) fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        trail: &Trail,
    ) -> Result<OwnedFd> {
        mkdirat(parent, name, OPEN_DIRECTORY_MODE).map_err(trail.failed("make the directory"))?;
        let first = self.surroundings.is_none();
        // From here on there is something to remove. The assumption is replaced as soon as the root has been examined.
        let known = *self.surroundings.get_or_insert(Surroundings {
            modes: true,
            attributes: true,
        });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            openat(parent, name, flags, Mode::empty()).map_err(trail.failed("open the directory"))?;
        if first {
            self.examine(directory.as_fd(), OPEN_DIRECTORY_MODE, trail)?;
            // Nothing below may inherit a foreign group.
            fchmod(&directory, OPEN_DIRECTORY_MODE).map_err(trail.failed("set the mode of"))?;
        } else {
            if known.modes {
                fchmod(&directory, OPEN_DIRECTORY_MODE).map_err(trail.failed("set the mode of"))?;
            }
            if known.attributes {
                strip(directory.as_fd(), trail)?;
            }
        }
        Ok(directory)
    }

    /// Closes a directory to which nothing will be added any more.
    pub(crate) fn finish_directory(&self, directory: OwnedFd, trail: &Trail) -> Result<()> {
        fchmod(&directory, EXECUTABLE_MODE).map_err(trail.failed("set the mode of"))?;
        futimens(&directory, &CANONICAL_TIMES).map_err(trail.failed("set the times of"))
    }

    /// Makes an empty file, open for writing (and reading, for those that hash what was written).
    pub(crate) fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        executable: bool,
        trail: &Trail,
    ) -> Result<OwnedFd> {
        let mode = if executable { EXECUTABLE_MODE } else { FILE_MODE };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, mode).map_err(trail.failed("make the file"))?;
        let first = self.surroundings.is_none();
        let known = *self.surroundings.get_or_insert(Surroundings {
            modes: true,
            attributes: true,
        });
        if first {
            self.examine(file.as_fd(), mode, trail)?;
        } else if known.attributes {
            strip(file.as_fd(), trail)?;
        }
        if known.modes {
            fchmod(&file, mode).map_err(trail.failed("set the mode of"))?;
        }
        Ok(file)
    }

    /// Writes all of the bytes to a file.
    pub(crate) fn write(&self, file: BorrowedFd<'_>, mut bytes: &[u8], trail: &Trail) -> Result<()> {
        while !bytes.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))
                .map_err(trail.failed("write to the file"))?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Closes a file to which nothing will be written any more.
    pub(crate) fn finish_file(&self, file: OwnedFd, trail: &Trail) -> Result<()> {
        futimens(&file, &CANONICAL_TIMES).map_err(trail.failed("set the times of"))
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        target: &[u8],
        trail: &Trail,
    ) -> Result<()> {
        symlinkat(target, parent, name).map_err(trail.failed("make the symbolic link"))?;
        if self.surroundings.is_none() {
            self.surroundings = Some(Surroundings {
                modes: true,
                attributes: true,
            });
            let made = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(trail.failed("examine"))?;
            if self.is_foreign(&made) {
                let (user, group) = self.owner;
                chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(trail.failed("set the owner of"))?;
            }
        }
        utimensat(parent, name, &CANONICAL_TIMES, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(trail.failed("set the times of"))
    }

    /// Makes the finished object durable as the policy says.
    pub(crate) fn sync(
        &self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        policy: SyncPolicy,
        trail: &Trail,
    ) -> Result<()> {
        match policy {
            SyncPolicy::None => Ok(()),
            SyncPolicy::WholeTree => {
                let made =
                    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(trail.failed("examine"))?;
                if FileType::from_raw_mode(made.st_mode) == FileType::RegularFile {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(parent, name, flags, Mode::empty())
                        .and_then(fsync)
                        .map_err(trail.failed("write to disk"))
                } else {
                    syncfs(parent).map_err(trail.failed("write to disk the file system of"))
                }
            }
        }
    }

    /// Looks at the root and mends what its surroundings gave it; remembers what the nodes inside will need.
    fn examine(&mut self, root: BorrowedFd<'_>, asked: Mode, trail: &Trail) -> Result<()> {
        let made = fstat(root).map_err(trail.failed("examine"))?;
        if self.is_foreign(&made) {
            let (user, group) = self.owner;
            fchown(root, Some(user), Some(group)).map_err(trail.failed("set the owner of"))?;
        }
        let stripped = strip(root, trail)?;
        let given = Mode::from_raw_mode(made.st_mode);
        self.surroundings = Some(Surroundings {
            // Where an access control list decided on the mode, the umask has not been seen yet. Every bit counts: a directory
            // that its owner may not write to cannot be filled.
            modes: !given.contains(asked) || stripped.inherited,
            attributes: stripped.other,
        });
        Ok(())
    }

    fn is_foreign(&self, made: &Stat) -> bool {
        (made.st_uid, made.st_gid) != (self.owner.0.as_raw(), self.owner.1.as_raw())
    }
}
