// SPDX-License-Identifier: MIT OR Apache-2.0
//! The notes that OverlayFS keeps in extended attributes of the upper layer.
//!
//! They cannot be seen through the mount. Which of two kinds counts is a matter of the mount options:
//! `trusted.overlay.*`, or with `userxattr` `user.overlay.*`.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, Mode, OFlags, XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;
use superpose_mount_check::MountDescription;

use crate::mounting::OverlayAttributes;
use crate::{Error, Result};

/// The mode of a directory of an object.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o555);

/// What OverlayFS has noted of an entry of the upper layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Nothing of a lower directory of the same name shines through.
    pub(crate) opaque: bool,
    /// The kernel noted what it is above of: a file that it copied up, since somebody changed it through the mount; or a
    /// directory that it merges.
    pub(crate) has_origin: bool,
    /// It has no contents of its own: they are those of the lower file.
    pub(crate) metadata_only: bool,
}

/// The kind of attributes that a mount uses, as far as its options are visible.
pub(crate) fn kind_of(mount: &MountDescription) -> Option<OverlayAttributes> {
    let options = mount.overlay.as_ref()?;
    Some(match options.feature(b"userxattr") {
        Some(_) => OverlayAttributes::User,
        None => OverlayAttributes::Trusted,
    })
}

fn attribute(kind: OverlayAttributes, name: &str) -> String {
    match kind {
        OverlayAttributes::Trusted => format!("trusted.overlay.{name}"),
        OverlayAttributes::User => format!("user.overlay.{name}"),
    }
}

/// Reads the marks of an entry of the layer `directory`, of which `path` is the name in messages. A symbolic link has
/// none that matter.
pub(crate) fn read(
    directory: BorrowedFd<'_>,
    path: &Path,
    name: &OsStr,
    kind: OverlayAttributes,
) -> Result<Marks> {
    let failed = |source| Error::io("read the overlay attributes of", path.join(name), source);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let entry = match fs::openat(directory, name, flags, Mode::empty()) {
        Ok(entry) => entry,
        Err(Errno::LOOP | Errno::NOENT | Errno::NXIO) => return Ok(Marks::default()),
        Err(source) => return Err(failed(source)),
    };
    let has = |note: &str, wanted: Option<&[u8]>| {
        // Longer values than this (file handles) are of no interest here, only that they are there.
        let mut value = [0; 1];
        match fgetxattr(&entry, attribute(kind, note), &mut value) {
            Ok(length) => Ok(wanted.is_none_or(|wanted| &value[..length] == wanted)),
            Err(Errno::RANGE) => Ok(wanted.is_none()),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(source) => Err(failed(source)),
        }
    };
    Ok(Marks {
        opaque: has("opaque", Some(b"y"))?,
        has_origin: has("origin", None)?,
        // The attribute of a file whose contents were copied up later is removed by the kernel. It may be empty.
        metadata_only: has("metacopy", None)?,
    })
}

/// Lets nothing of the layers below shine through a directory that is not in its place yet.
///
/// Whoever is not root may set the attribute of what he may write only; directories of objects are not, so the mode is
/// opened for a moment.
pub(crate) fn make_opaque(
    directory: BorrowedFd<'_>,
    path: &Path,
    name: &OsStr,
    kind: OverlayAttributes,
) -> Result<()> {
    let failed = |source| Error::io("make opaque", path.join(name), source);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = fs::openat(directory, name, flags, Mode::empty()).map_err(failed)?;
    fs::fchmod(entry.as_fd(), Mode::RWXU).map_err(failed)?;
    fsetxattr(&entry, attribute(kind, "opaque"), b"y", XattrFlags::empty()).map_err(failed)?;
    fs::fchmod(entry.as_fd(), DIRECTORY_MODE).map_err(failed)
}
