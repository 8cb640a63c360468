// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock that keeps schema changes away from users of a store.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::busy::until;
use super::files::{Files, io_error};
use crate::Result;

/// A shared lock on `big-lock`, held as long as the value lives.
#[derive(Debug)]
pub(super) struct BigLock {
    _file: File,
}

impl BigLock {
    /// Takes the lock, making the file if there is none.
    pub(super) fn shared(files: &Files, limit: Duration) -> Result<Self> {
        let path = &files.big_lock;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io_error("opening the lock file", path))?;
        until(path, limit, || {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Ok(Some(())),
                Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
                Err(error) => Err(io_error("locking", path)(error.into())),
            }
        })?;
        Ok(Self { _file: file })
    }
}
