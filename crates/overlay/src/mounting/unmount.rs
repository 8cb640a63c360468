// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removes the mount of a store.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::directory;
use super::holders;
use super::remount::require_overlay_root;
use crate::{Error, Result};

/// When a mount goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detach {
    /// Only if nobody uses it.
    #[default]
    WhenIdle,
    /// From the directory at once, from those who use it when they are done.
    ///
    /// # Limitations
    /// Until then the upper layer belongs to a mount that no table shows. Mounting it again in that time makes two
    /// overlays over one upper layer, which damages it.
    Lazily,
}

/// Unmounts the overlay mounted at a directory: the top one there, and nothing but an overlay.
///
/// # Errors
/// [`Error::NotAMountPoint`] or [`Error::NotAnOverlay`] when there is none; [`Error::MountBusy`] names the processes
/// that use it, as far as `/proc` shows them.
pub fn unmount(mount_point: &Path, detach: Detach) -> Result<()> {
    let mount_id = {
        // umount2 below does not follow a symbolic link either; the descriptor must be gone by then.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(mount_point, flags, Mode::empty())
            .map_err(|errno| Error::io("open the mount point", mount_point, errno))?;
        require_overlay_root("unmount", directory.as_fd(), mount_point)?;
        directory::look(&directory)
            .map_err(|errno| Error::io("examine the mount point", mount_point, errno))?
            .mount_id
    };
    let flags = match detach {
        Detach::WhenIdle => UnmountFlags::NOFOLLOW,
        Detach::Lazily => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    rustix::mount::unmount(mount_point, flags).map_err(|errno| match errno {
        Errno::BUSY => Error::MountBusy {
            mount_point: mount_point.to_owned(),
            holders: mount_id.map(holders::find).unwrap_or_default(),
            source: errno.into(),
        },
        errno => Error::io("unmount", mount_point, errno),
    })
}
