// SPDX-License-Identifier: MIT OR Apache-2.0
//! One mount at a time over an upper layer, also where the mount tables are not the same.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::error::{Error, Result};
use crate::flock::{self, LockMode};

/// The right to mount an upper layer: a lock on its directory, for as long as this or a copy of it is open.
///
/// Two overlays over one upper layer do not know of each other: what the one changes the other shows or not, and an
/// object that the one removes can read as an empty directory in the other. The kernel only warns, and a mount table
/// tells nothing of the mounts of other namespaces.
///
/// # Limitations
/// A mount that outlives the process which made it is not seen by this, but by the mount table.
#[derive(Debug)]
#[must_use = "the claim ends when this is dropped"]
pub struct Claim(OwnedFd);

impl Claim {
    /// Claims an upper layer.
    ///
    /// # Errors
    /// [`Error::LayerInUse`] if somebody else has it mounted for a command of his.
    pub fn take(upper: &Path) -> Result<Self> {
        let directory = rustix::fs::open(
            upper,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|source| Error::io("open the upper layer", upper, source))?;
        match flock::try_acquire(std::os::fd::AsFd::as_fd(&directory), LockMode::Exclusive) {
            Ok(true) => Ok(Claim(directory)),
            Ok(false) => Err(Error::LayerInUse {
                upper: upper.to_owned(),
            }),
            Err(source) => Err(Error::io("lock the upper layer", upper, source)),
        }
    }

    /// Hands the claim to the program that this process is about to become, and to all that it starts.
    ///
    /// # Errors
    /// If the descriptor cannot be made inheritable.
    pub fn leave_to_command(self) -> Result<()> {
        fcntl_setfd(&self.0, FdFlags::empty())
            .map_err(|source| Error::io("hand on", "the lock of the upper layer", source))?;
        // Never closed here: the command has it.
        let _inherited = self.0.into_raw_fd();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_claimed_once() {
        let upper = tempfile::tempdir().unwrap();
        let claim = Claim::take(upper.path()).unwrap();
        assert!(matches!(Claim::take(upper.path()), Err(Error::LayerInUse { .. })));
        drop(claim);
        drop(Claim::take(upper.path()).unwrap());
    }
}
