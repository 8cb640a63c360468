// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extended attributes, of which store objects have none.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{flistxattr, flistxattr_query, fremovexattr};
use rustix::io::Errno;

use crate::error::Result;
use crate::path::Trail;

/// Attributes that stay: what Nix ignores by default (`ignored-acls`), as a security module or the file system owns them.
const IGNORED: [&[u8]; 3] = [b"security.csm", b"security.selinux", b"system.nfs4_acl"];

/// Attributes that stay as well: OverlayFS keeps its own notes in them when a layer is worked on directly. Without the
/// mark of an opaque directory, say, what it hides of the layers below would show again.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Attributes that a new file gets from an access control list of its directory.
const INHERITED: &[u8] = b"system.posix_acl_";

/// Which attributes were found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stripped {
    /// Some came from an access control list.
    pub(crate) inherited: bool,
    /// Some came from elsewhere; other new files may get them too.
    pub(crate) other: bool,
}

/// Removes all attributes of a file or directory but the ignored ones.
pub(crate) fn strip(file: BorrowedFd<'_>, trail: &Trail) -> Result<Stripped> {
    let mut stripped = Stripped::default();
    let mut list = [0; 512];
    let mut grown;
    let list = match flistxattr(file, &mut list) {
        Ok(length) => &list[..length],
        // A file system without attributes has none to remove.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(stripped),
        Err(Errno::RANGE) => {
            grown = vec![0; flistxattr_query(file).map_err(trail.failed("list the attributes of"))?];
            let length = flistxattr(file, &mut grown).map_err(trail.failed("list the attributes of"))?;
            &grown[..length]
        }
        Err(errno) => return Err(trail.failed("list the attributes of")(errno)),
    };
    for name in list.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let text = name.to_bytes();
        if IGNORED.contains(&text) || OVERLAY.iter().any(|prefix| text.starts_with(prefix)) {
            continue;
        }
        match fremovexattr(file, name) {
            Ok(()) => {}
            // Somebody else removed it.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(trail.failed("remove an extended attribute of")(errno)),
        }
        if text.starts_with(INHERITED) {
            stripped.inherited = true;
        } else {
            stripped.other = true;
        }
    }
    Ok(stripped)
}
