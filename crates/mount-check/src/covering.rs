// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mount that covers an open directory.
//!
//! The way leads from an open descriptor to the kernel's mount id and from there to that id's line of the
//! mount table. Searching the table's text for the mount point instead would be fooled by a mount over a
//! parent directory (the line stays), and by `MOVE_MOUNT_BENEATH` (the hidden mount's line comes last).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};

use crate::describe::{MountDescription, MountKind};
use crate::error::{Error, Result};
use crate::mountinfo::{self, MountInfo};
use crate::options::OverlayOptions;

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY_MAGIC: u32 = 0x794c_7630;

/// `FUSE_SUPER_MAGIC` of linux/magic.h.
const FUSE_MAGIC: u32 = 0x6573_5546;

/// The largest mount table to read: 100,000 mounts with long options stay below it.
const MOUNT_TABLE_LIMIT: u64 = 64 << 20;

/// Room for the mount table of an ordinary machine.
const MOUNT_TABLE_USUAL: usize = 32 << 10;

/// An open directory and the mount it belongs to.
#[derive(Debug)]
pub(crate) struct Covering {
    /// Opened with `O_PATH`; as long as it is open the mount id cannot be reused.
    pub(crate) directory: OwnedFd,
    pub(crate) mount_id: u64,
    pub(crate) description: MountDescription,
}

/// Opens a directory for looking only; symbolic links are followed, since layers are compared by identity.
pub(crate) fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

impl Covering {
    /// Finds the mount that covers `path`.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        let directory = open_directory(path).map_err(|errno| Error::Open {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Self::of_open(directory, path)
    }

    /// Finds the mount of an open directory; `path` is for messages.
    pub(crate) fn of_open(directory: OwnedFd, path: &Path) -> Result<Self> {
        let failure = |operation, source: io::Error| Error::Inspect {
            path: path.to_owned(),
            operation,
            source,
        };
        let mount_id = mount_id(directory.as_fd()).map_err(|source| failure("statx and fdinfo", source))?;
        let statfs = fs::fstatfs(&directory).map_err(|errno| failure("fstatfs", errno.into()))?;
        let statvfs = fs::fstatvfs(&directory).map_err(|errno| failure("fstatvfs", errno.into()))?;
        let resolved =
            resolved_path(directory.as_fd()).map_err(|source| failure("/proc/thread-self/fd", source))?;
        let table = read_mount_table()?;

        // A line that cannot be read belongs to somebody else's mount, unless ours is not found.
        let mut info = None;
        let mut hidden: Vec<MountInfo> = Vec::new();
        let mut broken = None;
        for line in mountinfo::lines(&table) {
            match line {
                Ok(line) if line.id == mount_id => info = Some(line),
                Ok(line) if line.is_overlay() && line.mount_point_path() == resolved => hidden.push(line),
                Ok(_) => {}
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        if let (None, Some(source)) = (&info, broken) {
            return Err(source.into());
        }

        // The width and sign of f_type differ between architectures; the magic numbers fit 32 bits.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "magic numbers fit 32 bits"
        )]
        let magic = statfs.f_type as u32;
        let kind = match magic {
            OVERLAY_MAGIC => MountKind::Overlay,
            FUSE_MAGIC if info.as_ref().is_some_and(MountInfo::is_fuse_overlay) => MountKind::FuseOverlay,
            _ => MountKind::Other,
        };
        let is_mount_point = match statx(directory.as_fd()) {
            Ok(statx) if statx.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
                statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            }
            _ => info
                .as_ref()
                .is_some_and(|info| info.mount_point_path() == resolved),
        };
        let overlay = match (kind, &info) {
            (MountKind::Overlay, Some(info)) => Some(OverlayOptions::decode(&info.super_options)),
            _ => None,
        };
        let description = MountDescription {
            path: resolved,
            kind,
            is_mount_point,
            is_read_only: statvfs.f_flag.contains(StatVfsMountFlags::RDONLY),
            info,
            overlay,
            hidden,
        };
        Ok(Self {
            directory,
            mount_id,
            description,
        })
    }

    /// The directory's path inside the file system of its mount: the mount's root, then what lies between the
    /// mount point and the directory. Empty when the directory is the root of the file system; `None` when it
    /// is not known.
    pub(crate) fn path_in_file_system(&self) -> Option<PathBuf> {
        let info = self.description.info.as_ref()?;
        let part = PathBuf::from(OsString::from_vec(info.root.strip_prefix(b"/")?.to_vec()));
        if self.description.is_mount_point {
            return Some(part);
        }
        let below = self.description.path.strip_prefix(info.mount_point_path()).ok()?;
        Some(part.join(below))
    }
}

/// The id of the mount an open file belongs to.
pub(crate) fn mount_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    match statx(file) {
        Ok(statx) if statx.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(statx.stx_mnt_id),
        // Linux before 5.8, or a sandbox without statx.
        _ => mount_id_from_fdinfo(file),
    }
}

fn mount_id_from_fdinfo(file: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", file.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no mnt_id in fdinfo"))
}

fn statx(file: BorrowedFd<'_>) -> rustix::io::Result<fs::Statx> {
    fs::statx(
        file,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )
}

/// Where an open directory is now, as the kernel names it.
fn resolved_path(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/thread-self/fd/{}", file.as_raw_fd()))
}

fn read_mount_table() -> Result<Vec<u8>> {
    let failure = |source| Error::ReadMountTable { source };
    // thread-self, since a thread can have left its process's mount namespace.
    let file = File::open("/proc/thread-self/mountinfo").map_err(failure)?;
    // The kernel makes up the text at each read; few large reads are cheap.
    let mut table = Vec::with_capacity(MOUNT_TABLE_USUAL);
    file.take(MOUNT_TABLE_LIMIT + 1)
        .read_to_end(&mut table)
        .map_err(failure)?;
    if table.len() as u64 > MOUNT_TABLE_LIMIT {
        return Err(Error::MountTableTooLarge {
            limit: MOUNT_TABLE_LIMIT,
        });
    }
    Ok(table)
}
