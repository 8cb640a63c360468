// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says of one open directory: identity, mount, file system.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FsWord, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io;

/// `f_type` of OverlayFS.
const OVERLAYFS_MAGIC: FsWord = 0x794c_7630;

/// Which directory it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// A directory as seen at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) identity: Identity,
    /// The mount it was reached through; `None` before Linux 5.8.
    pub(super) mount_id: Option<u64>,
    /// Whether it is the root of that mount; `None` before Linux 5.8.
    pub(super) is_mount_root: Option<bool>,
}

impl Seen {
    pub(super) fn device(&self) -> (u32, u32) {
        self.identity.device
    }

    /// Whether two directories can be linked and renamed between: the same mount, or at least the same device.
    pub(super) fn shares_mount_with(&self, other: &Seen) -> bool {
        match (self.mount_id, other.mount_id) {
            (Some(one), Some(two)) => one == two,
            _ => self.device() == other.device(),
        }
    }
}

/// Opens a directory so that every layer interface of the kernel takes the descriptor.
pub(super) fn open_readable(path: &Path) -> io::Result<OwnedFd> {
    // Kernels before 6.14 refuse an O_PATH descriptor in FSCONFIG_SET_FD.
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a directory only to point at it.
pub(super) fn open_pointer(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the directory above an open one.
pub(super) fn open_parent(directory: impl AsFd) -> io::Result<OwnedFd> {
    rustix::fs::openat(
        directory,
        "..",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the root of the mount that an open directory is on.
pub(super) fn open_mount_root(directory: impl AsFd) -> io::Result<OwnedFd> {
    let mut here = rustix::fs::openat(
        directory,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut seen = look(&here)?;
    while !is_mount_root(&here)? {
        let above = open_parent(&here)?;
        let seen_above = look(&above)?;
        if seen_above.identity == seen.identity {
            // The root of a chroot, inside its mount: there is no way up.
            break;
        }
        (here, seen) = (above, seen_above);
    }
    Ok(here)
}

pub(super) fn look(directory: impl AsFd) -> io::Result<Seen> {
    // NO_AUTOMOUNT: looking must not mount anything.
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let statx = rustix::fs::statx(directory, "", flags, StatxFlags::INO | StatxFlags::MNT_ID)?;
    let root = StatxAttributes::MOUNT_ROOT;
    let knows_mount = statx.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok(Seen {
        identity: Identity {
            device: (statx.stx_dev_major, statx.stx_dev_minor),
            inode: statx.stx_ino,
        },
        mount_id: knows_mount.then_some(statx.stx_mnt_id),
        is_mount_root: statx
            .stx_attributes_mask
            .contains(root)
            .then(|| statx.stx_attributes.contains(root)),
    })
}

/// Whether the directory is the root of a mount; on kernels that do not say, whether its parent is on another device.
pub(super) fn is_mount_root(directory: impl AsFd) -> io::Result<bool> {
    let seen = look(&directory)?;
    match seen.is_mount_root {
        Some(answer) => Ok(answer),
        None => Ok(look(open_parent(&directory)?)?.device() != seen.device()),
    }
}

/// The type of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystemType(FsWord);

impl FileSystemType {
    pub(super) fn of(directory: impl AsFd) -> io::Result<Self> {
        Ok(FileSystemType(rustix::fs::fstatfs(directory)?.f_type))
    }

    pub(super) fn is_overlay(self) -> bool {
        self.0 == OVERLAYFS_MAGIC
    }

    /// Whether OverlayFS refuses it as upper layer whatever the mount options are.
    pub(super) fn is_refused_as_upper(self) -> bool {
        self.is_overlay() || matches!(self.0, NFS_MAGIC | SMB2_MAGIC | CIFS_MAGIC | VFAT_MAGIC)
    }
}

const NFS_MAGIC: FsWord = 0x6969;
const SMB2_MAGIC: FsWord = 0xfe53_4d42;
const CIFS_MAGIC: FsWord = 0xff53_4d42;
const VFAT_MAGIC: FsWord = 0x4d44;
const FUSE_MAGIC: FsWord = 0x6573_5546;

impl fmt::Display for FileSystemType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            OVERLAYFS_MAGIC => "overlay",
            NFS_MAGIC => "nfs",
            SMB2_MAGIC | CIFS_MAGIC => "cifs",
            VFAT_MAGIC => "vfat",
            FUSE_MAGIC => "fuse",
            0x9123_683e => "btrfs",
            0xef53 => "ext4",
            0x0102_1994 => "tmpfs",
            0x5846_5342 => "xfs",
            other => return write!(out, "a file system of type {other:#x}"),
        };
        out.write_str(name)
    }
}
