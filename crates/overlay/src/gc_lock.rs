// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock of the garbage collection, `gc.lock` in the state directory.
//!
//! A collector holds it for itself from beginning to end; a verification shares it; and whoever adds a temporary root
//! shares it for the moment of the write (see [`crate::temp_roots`]). It is never waited for with a path lock held:
//! a collector may need that path.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::flock::{self, LockMode, LockWait};
use crate::state_dir::{GC_LOCK, StateDir};

/// The lock as a collector holds it: nobody else collects, verifies or adds temporary roots meanwhile.
///
/// Released when dropped.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct CollectorLock {
    _file: OwnedFd,
}

impl CollectorLock {
    /// Takes the lock; `on_wait` is called once with its path if somebody else holds it.
    ///
    /// Nix says "waiting for the big garbage collector lock" then.
    ///
    /// # Errors
    /// [`Error::LockHeld`] if `wait` ended first; if the lock file cannot be opened or locked.
    pub(crate) fn acquire(state: &StateDir, wait: LockWait, on_wait: &mut dyn FnMut(&Path)) -> Result<Self> {
        let file = locked(state, "collect garbage", LockMode::Exclusive, wait, on_wait)?;
        Ok(Self { _file: file })
    }
}

/// The lock as a verification holds it: nothing is collected meanwhile.
///
/// Released when dropped.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct VerifierLock {
    _file: OwnedFd,
}

impl VerifierLock {
    /// Takes the lock; `on_wait` is called once with its path if a collector holds it.
    ///
    /// # Errors
    /// As [`CollectorLock::acquire`].
    pub(crate) fn acquire(state: &StateDir, wait: LockWait, on_wait: &mut dyn FnMut(&Path)) -> Result<Self> {
        let file = locked(state, "verify", LockMode::Shared, wait, on_wait)?;
        Ok(Self { _file: file })
    }
}

/// Opens the lock file, and creates it if it is missing.
pub(crate) fn open(state: &StateDir, operation: &'static str) -> Result<OwnedFd> {
    state.ensure_writable(operation)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(state.fd(), GC_LOCK, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| Error::io("open the lock", state.gc_lock_path(), error))
}

fn locked(
    state: &StateDir,
    operation: &'static str,
    mode: LockMode,
    wait: LockWait,
    on_wait: &mut dyn FnMut(&Path),
) -> Result<OwnedFd> {
    let file = open(state, operation)?;
    flock::acquire(file.as_fd(), mode, wait, &state.gc_lock_path(), on_wait)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::{fs, thread};

    fn silent(_: &Path) {}

    #[test]
    fn a_collector_is_alone_and_verifications_are_not() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(top.path()).unwrap();
        let never = LockWait::Never;

        let one = VerifierLock::acquire(&state, never, &mut silent).unwrap();
        let other = VerifierLock::acquire(&state, never, &mut silent).unwrap();
        assert!(matches!(
            CollectorLock::acquire(&state, never, &mut silent),
            Err(Error::LockHeld { .. })
        ));
        drop((one, other));

        let collector = CollectorLock::acquire(&state, never, &mut silent).unwrap();
        assert!(matches!(
            CollectorLock::acquire(&state, never, &mut silent),
            Err(Error::LockHeld { .. })
        ));
        assert!(matches!(
            VerifierLock::acquire(&state, never, &mut silent),
            Err(Error::LockHeld { .. })
        ));
        drop(collector);
        drop(VerifierLock::acquire(&state, never, &mut silent).unwrap());

        let file = fs::metadata(state.gc_lock_path()).unwrap();
        assert_eq!((file.permissions().mode() & 0o777, file.len()), (0o600, 0));
    }

    #[test]
    fn a_collector_says_that_it_waits_and_gets_the_lock_in_the_end() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(top.path()).unwrap();
        let verifier = VerifierLock::acquire(&state, LockWait::Never, &mut silent).unwrap();
        let (waits, waiting) = mpsc::channel();
        thread::scope(|scope| {
            let collector = scope.spawn(|| {
                CollectorLock::acquire(&state, LockWait::Forever, &mut |path| {
                    waits.send(path.to_owned()).unwrap()
                })
                .map(drop)
            });
            assert_eq!(waiting.recv().unwrap(), top.path().join("gc.lock"));
            drop(verifier);
            collector.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_store_that_is_only_read_is_not_locked() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open_read_only(top.path()).unwrap();
        let error = CollectorLock::acquire(&state, LockWait::Never, &mut silent).unwrap_err();
        assert!(matches!(error, Error::ReadOnlyState { .. }));
        assert!(!state.gc_lock_path().exists());
    }
}
