// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing the contents of a file that come as a stream of unknown length.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fd::BorrowedFd;
use rustix::fs::{self, Mode, OFlags};

use super::open::Durability;
use crate::{Error, Result};

/// Writes `contents` into a new file, as a store object is: read-only, and of no particular time.
///
/// # Errors
/// If the stream fails, the name is taken, or the disk is full. What was written by then stays for the caller to remove.
pub(super) fn write_contents(
    contents: &mut dyn Read,
    (directory, path): (BorrowedFd<'_>, &Path),
    name: &OsStr,
    durability: Durability,
) -> Result<()> {
    let failed = |operation, source: io::Error| Error::io(operation, path.join(name), source);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|source| failed("create the file", source.into()))?;
    let mut file = File::from(file);
    io::copy(contents, &mut file).map_err(|source| failed("write what comes to", source))?;
    superpose_nar::canonicalise(directory, name)?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|source| failed("sync", source))?;
    }
    Ok(())
}
