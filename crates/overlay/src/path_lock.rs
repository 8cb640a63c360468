// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks on single objects: `<base name>.lock` beside the object in the physical store directory.
//!
//! Whoever creates an object holds its lock, so that nobody creates it twice at once. A lock file that has served is
//! removed by its owner, and then marked with one byte for those who have opened it already and wait: they find the
//! mark, and begin again with the file that is there by then.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use superpose_store_path::StorePath;

use crate::error::{Error, Result};
use crate::flock::{self, LockMode, LockWait};

/// What is written into a lock file that has been removed. Nix looks at the size only, and so do we.
pub(crate) const REMOVED_MARK: &[u8] = b"d";

/// What becomes of a lock file when its lock is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// It is removed, as Nix does.
    Unlink,
    /// It stays. In an overlay, the removal of a file that the lower layer has too would leave a whiteout over the
    /// lower store; an empty lock file does no harm.
    Keep,
}

/// Locks on some objects.
///
/// Released by [`PathLocks::release`] when what they protect is done. When merely dropped, as after a failure, the
/// lock files stay behind; they are harmless, and collectors remove them.
#[derive(Debug)]
#[must_use = "the locks are given up when this is dropped"]
pub(crate) struct PathLocks {
    dir: OwnedFd,
    locks: Vec<PathLock>,
}

#[derive(Debug)]
struct PathLock {
    name: String,
    file: OwnedFd,
}

impl PathLocks {
    /// Locks all the given objects of the open directory `dir`, of which `dir_path` is the name in messages.
    ///
    /// The locks are taken in the order of the paths, each once, so that two that want several never wait for each
    /// other. No temporary root may be added before they are released: that could wait for a collector, and the
    /// collector for these locks. Each lock keeps a file open. `on_wait` is called for each lock that must be waited
    /// for; `wait` is the time for each of them.
    ///
    /// # Errors
    /// [`Error::LockHeld`] if a wait ended without the lock; if a lock file cannot be made or locked. Nothing is
    /// locked then.
    pub(crate) fn acquire<'path>(
        dir: BorrowedFd<'_>,
        dir_path: &Path,
        paths: impl IntoIterator<Item = &'path StorePath>,
        wait: LockWait,
        on_wait: &mut dyn FnMut(&Path),
    ) -> Result<Self> {
        let paths: BTreeSet<&StorePath> = paths.into_iter().collect();
        let locks = paths
            .into_iter()
            .map(|path| PathLock::acquire(dir, dir_path, path, wait, on_wait))
            .collect::<Result<_>>()?;
        let dir = dir
            .try_clone_to_owned()
            .map_err(|error| Error::io("open", dir_path, error))?;
        Ok(Self { dir, locks })
    }

    /// Releases the locks after success. `decide` is asked for each lock file, by its name, whether it is removed.
    ///
    /// Cannot fail: a file that cannot be removed stays as if it were to be kept, and that is logged.
    pub(crate) fn release(self, mut decide: impl FnMut(&OsStr) -> Release) {
        for lock in self.locks {
            match decide(OsStr::new(&lock.name)) {
                Release::Unlink => {
                    if let Err(error) = remove_marked(self.dir.as_fd(), lock.name.as_str(), lock.file.as_fd())
                    {
                        tracing::warn!(name = lock.name, %error, "a lock file stays behind");
                    }
                }
                Release::Keep => {}
            }
        }
    }
}

impl PathLock {
    fn acquire(
        dir: BorrowedFd<'_>,
        dir_path: &Path,
        path: &StorePath,
        wait: LockWait,
        on_wait: &mut dyn FnMut(&Path),
    ) -> Result<Self> {
        let name = format!("{path}.lock");
        let full = dir_path.join(&name);
        let deadline = wait.deadline();
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(dir, &name, flags, Mode::from_raw_mode(0o600))
                .map_err(|error| Error::io("open the lock", &full, error))?;
            // What the waits for files that turned out to be removed have used up is gone.
            let left = match (wait, deadline) {
                (LockWait::AtMost(_), Some(deadline)) => {
                    LockWait::AtMost(deadline.saturating_duration_since(std::time::Instant::now()))
                }
                _ => wait,
            };
            flock::acquire(file.as_fd(), LockMode::Exclusive, left, &full, on_wait)?;
            if is_current(dir, &name, file.as_fd())
                .map_err(|error| Error::io("examine the lock", &full, error))?
            {
                return Ok(Self { name, file });
            }
        }
    }
}

/// Tells whether the locked `file` is still the lock file of that name, and not one that its last owner removed.
///
/// # Deviation
/// Nix looks for the mark only. If its owner died between removal and mark, two would hold "the" lock; and if a marked
/// file could not be removed, Nix tries again for ever. Here the name decides, and a mark on the current file is
/// wiped off: nobody else can have the lock.
pub(crate) fn is_current(dir: BorrowedFd<'_>, name: &str, file: BorrowedFd<'_>) -> io::Result<bool> {
    let ours = rustix::fs::fstat(file)?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    if ours.st_size != 0 {
        rustix::fs::ftruncate(file, 0)?;
    }
    Ok(true)
}

/// Removes the locked `file` of that name, and then marks it for those who wait for its lock.
pub(crate) fn remove_marked(dir: BorrowedFd<'_>, name: impl Arg, file: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        // Gone already: those who wait must know all the same.
        Ok(()) | Err(Errno::NOENT) => {}
        // A mark on a file that is still there would make Nix try again for ever.
        Err(error) => return Err(error.into()),
    }
    rustix::io::retry_on_intr(|| rustix::io::pwrite(file, REMOVED_MARK, 0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    fn silent(_: &Path) {}

    fn path(name: &str) -> StorePath {
        StorePath::from_base_name(format!("x6xcakh6pmsprh9372j47cndyciwzqqy-{name}").as_bytes()).unwrap()
    }

    /// A physical store directory.
    struct Store {
        top: tempfile::TempDir,
        dir: File,
    }

    impl Store {
        fn new() -> Self {
            let top = tempfile::tempdir().unwrap();
            let dir = File::open(top.path()).unwrap();
            Self { top, dir }
        }

        fn lock(&self, names: &[&str], wait: LockWait) -> Result<PathLocks> {
            let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
            PathLocks::acquire(self.dir.as_fd(), self.top.path(), &paths, wait, &mut silent)
        }

        fn files(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.top.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn lock_file(&self, name: &str) -> std::path::PathBuf {
            self.top.path().join(format!("{}.lock", path(name)))
        }
    }

    #[test]
    fn a_lock_excludes_and_release_removes_its_file() {
        let store = Store::new();
        let lock = store.lock(&["a"], LockWait::Never).unwrap();
        assert!(
            matches!(store.lock(&["a"], LockWait::Never), Err(Error::LockHeld { path, .. }) if path == store.lock_file("a"))
        );
        drop(store.lock(&["b"], LockWait::Never).unwrap());
        let open = File::open(store.lock_file("a")).unwrap();
        lock.release(|_| Release::Unlink);
        assert!(!store.lock_file("a").exists());
        assert_eq!(open.metadata().unwrap().len(), 1, "those who wait find the mark");
        drop(store.lock(&["a"], LockWait::Never).unwrap());
    }

    #[test]
    fn a_failure_and_a_kept_file_leave_an_empty_file_and_no_lock() {
        let store = Store::new();
        drop(store.lock(&["a"], LockWait::Never).unwrap());
        assert_eq!(fs::metadata(store.lock_file("a")).unwrap().len(), 0);
        let mut asked = Vec::new();
        store.lock(&["a", "b"], LockWait::Never).unwrap().release(|name| {
            asked.push(name.to_owned());
            if asked.len() == 1 {
                Release::Keep
            } else {
                Release::Unlink
            }
        });
        assert_eq!(
            asked,
            ["a", "b"].map(|name| store.lock_file(name).file_name().unwrap().to_owned())
        );
        assert_eq!(fs::metadata(store.lock_file("a")).unwrap().len(), 0);
        assert!(!store.lock_file("b").exists());
        drop(store.lock(&["a"], LockWait::Never).unwrap());
    }

    #[test]
    fn several_are_locked_in_order_and_each_once() {
        let store = Store::new();
        let locks = store.lock(&["c", "a", "b", "a"], LockWait::Never).unwrap();
        let names: Vec<_> = locks.locks.iter().map(|lock| lock.name.clone()).collect();
        assert_eq!(names, ["a", "b", "c"].map(|name| format!("{}.lock", path(name))));
        drop(locks);
        assert_eq!(store.files().len(), 3);
    }

    #[test]
    fn a_waiter_of_a_removed_file_begins_again() {
        let store = Store::new();
        for wait in [LockWait::Forever, LockWait::AtMost(Duration::from_secs(60))] {
            let first = store.lock(&["a"], LockWait::Never).unwrap();
            let (waits, waiting) = mpsc::channel();
            thread::scope(|scope| {
                let second = scope.spawn(|| {
                    let paths = [path("a")];
                    let mut tell = |_: &Path| waits.send(()).unwrap();
                    let lock =
                        PathLocks::acquire(store.dir.as_fd(), store.top.path(), &paths, wait, &mut tell)
                            .unwrap();
                    // A third one is kept out: the lock is on the file that is there now.
                    assert!(matches!(
                        store.lock(&["a"], LockWait::Never),
                        Err(Error::LockHeld { .. })
                    ));
                    lock.release(|_| Release::Unlink);
                });
                waiting.recv().unwrap();
                first.release(|_| Release::Unlink);
                second.join().unwrap();
            });
            assert!(store.files().is_empty());
        }
    }

    #[test]
    fn a_file_that_was_removed_without_a_mark_is_noticed() {
        let store = Store::new();
        let file = File::create(store.lock_file("a")).unwrap();
        let name = format!("{}.lock", path("a"));
        assert!(is_current(store.dir.as_fd(), &name, file.as_fd()).unwrap());
        fs::remove_file(store.lock_file("a")).unwrap();
        assert!(!is_current(store.dir.as_fd(), &name, file.as_fd()).unwrap());
        let _other = File::create(store.lock_file("a")).unwrap();
        assert!(!is_current(store.dir.as_fd(), &name, file.as_fd()).unwrap());
    }

    #[test]
    fn a_mark_on_the_current_file_is_wiped_off() {
        let store = Store::new();
        fs::write(store.lock_file("a"), REMOVED_MARK).unwrap();
        drop(store.lock(&["a"], LockWait::Never).unwrap());
        assert_eq!(fs::metadata(store.lock_file("a")).unwrap().len(), 0);
    }

    #[test]
    fn nothing_is_followed_or_locked_when_one_fails() {
        let store = Store::new();
        std::os::unix::fs::symlink("elsewhere", store.lock_file("b")).unwrap();
        assert!(
            matches!(store.lock(&["a", "b"], LockWait::Never), Err(Error::Io { path, .. }) if path == store.lock_file("b"))
        );
        assert!(!store.top.path().join("elsewhere").exists());
        drop(store.lock(&["a"], LockWait::Never).unwrap());
    }

    #[test]
    fn many_threads_never_hold_one_lock_at_once() {
        let store = Store::new();
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (store, inside) = (&store, &inside);
                scope.spawn(move || {
                    for round in 0..50 {
                        let names = if thread % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
                        let locks = store.lock(&names, LockWait::Forever).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        locks.release(|_| {
                            if round % 3 == 0 {
                                Release::Keep
                            } else {
                                Release::Unlink
                            }
                        });
                    }
                });
            }
        });
    }
}
