// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refreshes an overlay after its layers were changed behind it.
//!
//! OverlayFS remembers what it has looked up. After an upper copy was moved away, a remembered directory reads as empty
//! until the mount is reconfigured. That drops what nobody holds open (files in use keep what they have), acts on
//! every mount of the file system in every mount namespace, and costs microseconds, or a quarter of a second with
//! 100,000 remembered names: so it is done once for a batch.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MountFlags, fsconfig_reconfigure, fspick, mount_remount};
use superpose_mount_check::mountinfo;

use super::directory::{self, FileSystemType};
use crate::{Error, Result};

/// The system call that refreshed an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemountInterface {
    /// `fspick(2)` and `fsconfig(2)` without any option: Linux 5.2 and newer. The flags of the mount stay.
    Reconfigure,
    /// `mount(2)` with `MS_REMOUNT`, which clears the flags that are not given again; they are.
    ///
    /// # Limitations
    /// A mount that is read-only over a writable file system is writable for the moment between two calls: one call
    /// cannot express it.
    Remount,
}

/// Refreshes the overlay mounted at a directory, and changes nothing else of it.
///
/// # Errors
/// [`Error::NotAMountPoint`] or [`Error::NotAnOverlay`] when there is none; [`Error::RemountNotPermitted`] without
/// the rights over the file system (those of whoever made the mount).
///
/// # Deviation
/// Nix refreshes nothing without a hook: it warns, and forgets.
pub fn refresh(mount_point: &Path) -> Result<RemountInterface> {
    let directory = directory::open_pointer(mount_point)
        .map_err(|errno| Error::io("open the mount point", mount_point, errno))?;
    refresh_directory(directory.as_fd(), mount_point)
}

/// Refreshes the overlay that holds the open `directory`, which may be its root or lie below it (as the store of a
/// container does whose root is an overlay); `mount_point` names it in errors.
///
/// # Errors
/// As [`refresh`].
pub fn refresh_directory(directory: BorrowedFd<'_>, mount_point: &Path) -> Result<RemountInterface> {
    let root = directory::open_mount_root(directory)
        .map_err(|errno| Error::io("find the root of the mount of", mount_point, errno))?;
    let directory = root.as_fd();
    match refresh_through(directory, mount_point, RemountInterface::Reconfigure) {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            tracing::debug!("no fspick(2) here; remounting with mount(2)");
            refresh_through(directory, mount_point, RemountInterface::Remount)
        }
        done => done,
    }
}

/// Checks that the open `directory` is on an overlay mount that [`refresh_directory`] could refresh, given the rights.
///
/// # Errors
/// [`Error::NotAnOverlay`] if it is on something else; [`Error::NotAMountPoint`] if the mount has no root here.
pub fn require_refreshable(directory: BorrowedFd<'_>, mount_point: &Path) -> Result<()> {
    let root = directory::open_mount_root(directory)
        .map_err(|errno| Error::io("find the root of the mount of", mount_point, errno))?;
    require_overlay_root("remount", root.as_fd(), mount_point)
}

/// Refreshes an overlay through one interface only.
///
/// # Errors
/// As [`refresh`]; also when the kernel does not know this interface.
pub fn refresh_through(
    directory: BorrowedFd<'_>,
    mount_point: &Path,
    interface: RemountInterface,
) -> Result<RemountInterface> {
    require_overlay_root("remount", directory, mount_point)?;
    let done = match interface {
        RemountInterface::Reconfigure => reconfigure(directory),
        RemountInterface::Remount => remount(directory),
    };
    match done {
        Ok(()) => Ok(interface),
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => Err(Error::RemountNotPermitted {
            mount_point: mount_point.to_owned(),
            source: errno.into(),
        }),
        Err(errno) => Err(Error::io("remount", mount_point, errno)),
    }
}

/// Checks that an open directory is the root of a mount of the kernel's own OverlayFS.
pub(super) fn require_overlay_root(
    operation: &'static str,
    directory: BorrowedFd<'_>,
    path: &Path,
) -> Result<()> {
    let failed = |errno| Error::io("examine the mount point", path, errno);
    let file_system = FileSystemType::of(directory).map_err(failed)?;
    if !directory::is_mount_root(directory).map_err(failed)? {
        return Err(Error::NotAMountPoint {
            operation,
            path: path.to_owned(),
            found: file_system.to_string(),
        });
    }
    if !file_system.is_overlay() {
        return Err(Error::NotAnOverlay {
            operation,
            path: path.to_owned(),
            found: file_system.to_string(),
        });
    }
    Ok(())
}

fn reconfigure(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags =
        FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_NO_AUTOMOUNT;
    // No options: any option of the file system is refused since Linux 6.5.
    fsconfig_reconfigure(fspick(directory, "", flags)?)
}

fn remount(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let by_descriptor = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let shown = rustix::fs::fstatvfs(directory)?.f_flag;
    let flags = carried_over(shown);
    if !shown.contains(StatVfsMountFlags::RDONLY) {
        return mount_remount(by_descriptor, flags, "");
    }
    if is_super_read_only(directory) {
        return mount_remount(by_descriptor, flags | MountFlags::RDONLY, "");
    }
    // MS_RDONLY would make the whole file system read-only, for all its mounts: so without it, and then the flag of
    // this mount alone again.
    mount_remount(&by_descriptor, flags, "")?;
    mount_remount(&by_descriptor, flags | MountFlags::RDONLY | MountFlags::BIND, "")
}

/// The flags of a mount, but for read-only, in the form in which they are given.
fn carried_over(shown: StatVfsMountFlags) -> MountFlags {
    /// `ST_NOSYMFOLLOW`, Linux 5.10, which rustix does not name.
    const NO_SYMLINK_FOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(0x2000);
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
        (NO_SYMLINK_FOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let carried = pairs
        .into_iter()
        .filter(|(shown_flag, _)| shown.contains(*shown_flag));
    let flags = carried.fold(MountFlags::empty(), |flags, (_, flag)| flags | flag);
    let atime = MountFlags::NOATIME | MountFlags::RELATIME;
    // Neither means strict, but neither given means relative.
    if flags.intersects(atime) {
        flags
    } else {
        flags | MountFlags::STRICTATIME
    }
}

/// Whether the file system itself is read-only, not only this mount; unknown counts as not.
///
/// `statvfs` does not tell the two apart, the mount table does.
fn is_super_read_only(directory: BorrowedFd<'_>) -> bool {
    let mount_id = directory::look(directory).ok().and_then(|seen| seen.mount_id);
    let Some((mount_id, table)) = mount_id.zip(fs::read("/proc/thread-self/mountinfo").ok()) else {
        return false;
    };
    let mut mounts = mountinfo::lines(&table).filter_map(std::result::Result::ok);
    mounts
        .find(|mount| mount.id == mount_id)
        .is_some_and(|mount| mount.is_super_read_only())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_mount_is_given_again() {
        let check = |shown, given| assert_eq!(carried_over(shown), given);
        check(StatVfsMountFlags::RELATIME, MountFlags::RELATIME);
        check(StatVfsMountFlags::empty(), MountFlags::STRICTATIME);
        check(
            StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV | StatVfsMountFlags::NOATIME,
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
        );
        check(
            StatVfsMountFlags::from_bits_retain(0x2000)
                | StatVfsMountFlags::NOEXEC
                | StatVfsMountFlags::RELATIME,
            MountFlags::NOSYMFOLLOW | MountFlags::NOEXEC | MountFlags::RELATIME,
        );
        // Read-only is decided by the caller.
        check(
            StatVfsMountFlags::RDONLY | StatVfsMountFlags::RELATIME,
            MountFlags::RELATIME,
        );
    }
}
