// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file system object as seen by `statx`, and whether two views show the same one.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, StatxTimestamp};

use crate::handle::{FileHandle, HandleReader};

/// How often to look again when a directory changes under the comparison.
const ATTEMPTS: usize = 5;

/// What one look at an object gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: FileType,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) mount_id: u64,
    pub(crate) is_mount_root: bool,
    pub(crate) links: u32,
    pub(crate) special: (u32, u32),
    size: u64,
    modified: Time,
    changed: Time,
    born: Option<Time>,
}

type Time = (i64, u32);

/// What comparing an object seen through the mount with one of a layer gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// The same inode, by file handle.
    SameHandle,
    /// The same inode number (comparable, since all layers are on one file system) and the same times.
    SameInode,
    /// The same times and size; the inode numbers cannot be compared.
    SameTimes,
    /// Another object.
    Other(Mismatch),
    /// Nothing about them can be compared.
    Incomparable,
}

/// What told two objects apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Type,
    Times,
    Inode,
    Handle,
    HandleOfLower,
    HandleOfUpper,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "it is of another type",
            Self::Times => "its times differ",
            Self::Inode => "its inode number differs",
            Self::Handle => "its file handle differs",
            Self::HandleOfLower => "its file handle is a lower directory's",
            Self::HandleOfUpper => "its file handle is the upper layer's",
        })
    }
}

/// What may be compared between a mount and a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparable {
    /// Inode numbers: OverlayFS passes them on if all layers are on one file system.
    pub(crate) inodes: bool,
    /// Times and sizes: those of a merged directory are the upper layer's.
    pub(crate) attributes: bool,
    /// A handle may say "from the upper layer" (`Some(true)`), "from below", or either (`None`:
    /// `nfs_export`).
    pub(crate) from_upper: Option<bool>,
}

impl Object {
    pub(crate) fn of(object: impl AsFd) -> rustix::io::Result<Self> {
        Self::at(object, c"", AtFlags::EMPTY_PATH)
    }

    /// Looks at a name in a directory, never through a symbolic link.
    pub(crate) fn below(directory: impl AsFd, name: &CStr) -> rustix::io::Result<Self> {
        Self::at(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
    }

    fn at(directory: impl AsFd, name: &CStr, flags: AtFlags) -> rustix::io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        let statx = fs::statx(directory, name, flags, wanted)?;
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let has = |flag: StatxFlags| statx.stx_mask & flag.bits() != 0;
        Ok(Self {
            kind: FileType::from_raw_mode(u32::from(statx.stx_mode)),
            device: (statx.stx_dev_major, statx.stx_dev_minor),
            inode: statx.stx_ino,
            mount_id: if has(StatxFlags::MNT_ID) {
                statx.stx_mnt_id
            } else {
                0
            },
            is_mount_root: statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            links: statx.stx_nlink,
            special: (statx.stx_rdev_major, statx.stx_rdev_minor),
            size: statx.stx_size,
            modified: time(statx.stx_mtime),
            changed: time(statx.stx_ctime),
            born: has(StatxFlags::BTIME).then(|| time(statx.stx_btime)),
        })
    }

    /// Is it OverlayFS's mark for a removed name?
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && self.special == (0, 0)
    }

    pub(crate) fn is_same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    fn attributes_agree(&self, other: &Self) -> bool {
        let sizes = self.kind == FileType::Directory || self.size == other.size;
        // The time of birth is missing on some file systems, and the change time says nearly as much.
        let births = self.born.is_none() || other.born.is_none() || self.born == other.born;
        sizes && births && self.modified == other.modified && self.changed == other.changed
    }
}

/// Opens an object for identification only.
pub(crate) fn open(directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    fs::openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Compares an open object seen through the mount with an open object of a layer.
///
/// # Errors
/// When one of them cannot be looked at.
pub(crate) fn compare(
    handles: Option<&HandleReader>,
    merged: BorrowedFd<'_>,
    layer: BorrowedFd<'_>,
    comparable: Comparable,
) -> rustix::io::Result<Likeness> {
    for _ in 0..ATTEMPTS {
        let before = Object::of(layer)?;
        let seen = Object::of(merged)?;
        let likeness = compare_once(handles, (merged, &seen), (layer, &before), comparable);
        // A writer at work changes times between the two looks; only a quiet moment can refute.
        if !matches!(likeness, Likeness::Other(_)) || Object::of(layer)? == before {
            return Ok(likeness);
        }
    }
    let timeless = Comparable {
        attributes: false,
        ..comparable
    };
    let (seen, object) = (Object::of(merged)?, Object::of(layer)?);
    Ok(compare_once(handles, (merged, &seen), (layer, &object), timeless))
}

fn compare_once(
    handles: Option<&HandleReader>,
    (merged_fd, merged): (BorrowedFd<'_>, &Object),
    (layer_fd, layer): (BorrowedFd<'_>, &Object),
    comparable: Comparable,
) -> Likeness {
    if merged.kind != layer.kind {
        return Likeness::Other(Mismatch::Type);
    }
    if comparable.attributes && !merged.attributes_agree(layer) {
        return Likeness::Other(Mismatch::Times);
    }
    let same_inode = comparable.inodes && merged.inode == layer.inode;
    match compare_handles(
        handles.and_then(|handles| handles.read(merged_fd)).as_ref(),
        || handles?.read(layer_fd),
        comparable.from_upper,
    ) {
        // A handle without the file system's UUID is unique only within one file system; but twins of one
        // image aside, no two objects share inode number, generation and time of birth.
        Some((Likeness::SameHandle, has_uuid))
            if has_uuid || same_inode || (comparable.attributes && layer.born.is_some()) =>
        {
            return Likeness::SameHandle;
        }
        Some((other @ Likeness::Other(_), _)) => return other,
        _ => {}
    }
    match (comparable.inodes, same_inode, comparable.attributes) {
        (true, false, _) => Likeness::Other(Mismatch::Inode),
        (true, true, _) => Likeness::SameInode,
        (false, _, true) => Likeness::SameTimes,
        (false, _, false) => Likeness::Incomparable,
    }
}

fn compare_handles(
    merged: Option<&FileHandle>,
    layer: impl FnOnce() -> Option<FileHandle>,
    from_upper: Option<bool>,
) -> Option<(Likeness, bool)> {
    let merged = merged?.as_overlay()?;
    let layer = layer()?;
    let likeness = match from_upper {
        Some(true) if !merged.from_upper => Likeness::Other(Mismatch::HandleOfLower),
        Some(false) if merged.from_upper => Likeness::Other(Mismatch::HandleOfUpper),
        _ if merged.real == layer => Likeness::SameHandle,
        _ => Likeness::Other(Mismatch::Handle),
    };
    Some((likeness, merged.has_uuid))
}
