// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ballast file that a garbage collection frees first, so that a full disk does not stop it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FallocateFlags, fallocate};

use super::files::Files;

/// What is written where space cannot be reserved otherwise, in bytes at a time.
static FILLING: [u8; 1 << 16] = [b'X'; 1 << 16];

/// Makes the ballast file unless it has the right size already. Nix ignores failures too: a full disk is no reason
/// not to open a store.
pub(super) fn ensure(files: &Files, size: u64) {
    if fs::symlink_metadata(&files.reserved).is_ok_and(|metadata| metadata.len() == size) {
        return;
    }
    if let Err(error) = make(files, size) {
        tracing::debug!(file = %files.reserved.display(), %error, "no space reserved for garbage collections");
    }
}

fn make(files: &Files, size: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&files.reserved)?;
    if size == 0 || fallocate(&file, FallocateFlags::empty(), 0, size).is_ok() {
        return Ok(());
    }
    let mut left = size;
    while left > 0 {
        let chunk = left.min(FILLING.len() as u64);
        file.write_all(&FILLING[..usize::try_from(chunk).unwrap_or(FILLING.len())])?;
        left -= chunk;
    }
    Ok(())
}

/// Removes the ballast file, if there is one.
pub(super) fn release(files: &Files) -> io::Result<()> {
    match fs::remove_file(&files.reserved) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
