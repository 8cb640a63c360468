// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks as Nix takes them: `flock(2)` on a file that is kept open.
//!
//! Such a lock belongs to the open file description: two files opened by one process exclude each other just as those
//! of two processes do, and the lock goes when the last copy of the descriptor is closed.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};

/// First pause between two tries of a wait with a limit; most locks are held for less than this.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two tries: what a wait may last longer than needed.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait for a lock that somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockWait {
    /// Until it is free, as Nix does.
    #[default]
    Forever,
    /// Until it is free or this much time has passed.
    AtMost(Duration),
    /// Not at all.
    Never,
}

impl LockWait {
    /// Returns when the wait ends; `None` if it does not, or so late that no clock shows it.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            LockWait::Forever => None,
            LockWait::AtMost(limit) => Instant::now().checked_add(limit),
            LockWait::Never => Some(Instant::now()),
        }
    }
}

/// Whom a lock keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// Those who want it for themselves.
    Shared,
    /// Everybody else.
    Exclusive,
}

impl LockMode {
    fn blocking(self) -> FlockOperation {
        match self {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
        }
    }

    fn non_blocking(self) -> FlockOperation {
        match self {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        }
    }
}

/// Takes the lock if it is free; tells whether it was.
pub(crate) fn try_acquire(file: BorrowedFd<'_>, mode: LockMode) -> io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(file, mode.non_blocking())) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock, and waits for it if it must; `on_wait` is called once with `path` before a wait begins.
///
/// # Errors
/// [`Error::LockHeld`] if the wait ended without the lock; [`Error::Io`] if the file system cannot lock.
pub(crate) fn acquire(
    file: BorrowedFd<'_>,
    mode: LockMode,
    wait: LockWait,
    path: &Path,
    on_wait: &mut dyn FnMut(&Path),
) -> Result<()> {
    let fail = |error: io::Error| Error::io("lock", path, error);
    if try_acquire(file, mode).map_err(fail)? {
        return Ok(());
    }
    let begin = Instant::now();
    if wait != LockWait::Never {
        on_wait(path);
    }
    let Some(deadline) = wait.deadline() else {
        return retry_on_intr(|| rustix::fs::flock(file, mode.blocking()))
            .map_err(|error| fail(error.into()));
    };
    // flock(2) has no time limit of its own, and a signal to end it would be the whole process's.
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::LockHeld {
                path: path.to_owned(),
                waited: begin.elapsed(),
            });
        }
        thread::sleep(pause.min(left));
        if try_acquire(file, mode).map_err(fail)? {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Gives the lock up without closing the file.
pub(crate) fn release(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(retry_on_intr(|| rustix::fs::flock(file, FlockOperation::Unlock))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::sync::mpsc;

    /// Opens the same file a number of times.
    fn opened<const N: usize>() -> (tempfile::NamedTempFile, [File; N]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = [(); N].map(|()| File::open(file.path()).unwrap());
        (file, files)
    }

    #[test]
    fn modes_exclude_each_other_between_two_opens_of_one_process() {
        use LockMode::{Exclusive, Shared};
        for (held, wanted, free) in [
            (Shared, Shared, true),
            (Shared, Exclusive, false),
            (Exclusive, Shared, false),
            (Exclusive, Exclusive, false),
        ] {
            let (_file, [one, other]) = opened();
            assert!(try_acquire(one.as_fd(), held).unwrap());
            assert_eq!(
                try_acquire(other.as_fd(), wanted).unwrap(),
                free,
                "{held:?} then {wanted:?}"
            );
            release(one.as_fd()).unwrap();
            assert!(
                try_acquire(other.as_fd(), wanted).unwrap(),
                "{held:?} released, then {wanted:?}"
            );
        }
    }

    #[test]
    fn never_does_not_wait_and_does_not_say_that_it_waits() {
        let (file, [one, other]) = opened();
        assert!(try_acquire(one.as_fd(), LockMode::Exclusive).unwrap());
        let mut said = 0;
        let error = acquire(
            other.as_fd(),
            LockMode::Shared,
            LockWait::Never,
            file.path(),
            &mut |_| said += 1,
        );
        assert!(matches!(error, Err(Error::LockHeld { path, .. }) if path == file.path()));
        assert_eq!(said, 0);
    }

    #[test]
    fn a_wait_with_a_limit_ends_at_the_limit() {
        let (file, [one, other]) = opened();
        assert!(try_acquire(one.as_fd(), LockMode::Exclusive).unwrap());
        let limit = Duration::from_millis(30);
        let mut said = Vec::new();
        let begin = Instant::now();
        let error = acquire(
            other.as_fd(),
            LockMode::Exclusive,
            LockWait::AtMost(limit),
            file.path(),
            &mut |path| said.push(path.to_owned()),
        );
        assert!(matches!(error, Err(Error::LockHeld { waited, .. }) if waited >= limit));
        assert!(begin.elapsed() >= limit);
        assert_eq!(said, [file.path()]);
    }

    #[test]
    fn waits_end_when_the_holder_lets_go() {
        for wait in [LockWait::Forever, LockWait::AtMost(Duration::from_secs(60))] {
            let (file, [one, other]) = opened();
            assert!(try_acquire(one.as_fd(), LockMode::Exclusive).unwrap());
            let (waits, waiting) = mpsc::channel();
            thread::scope(|scope| {
                let path = file.path();
                let waiter = scope.spawn(move || {
                    let mut tell = |_: &Path| waits.send(()).unwrap();
                    acquire(other.as_fd(), LockMode::Exclusive, wait, path, &mut tell)
                });
                waiting.recv().unwrap();
                assert!(!waiter.is_finished());
                release(one.as_fd()).unwrap();
                waiter.join().unwrap().unwrap();
            });
        }
    }
}
