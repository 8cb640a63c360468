// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the removal of trees has freed, counted by several threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::remove::RemoveStats;

/// Into how many parts the files with several names are divided: so many threads can remove such names at once.
const PARTS: usize = 64;

/// Device and inode.
type Identity = (u64, u64);

/// The space of files that lost a name here and have others, by file.
type StillLinked = HashMap<Identity, u64>;

/// What was freed so far.
#[derive(Debug)]
pub(crate) struct Freed {
    total: Mutex<RemoveStats>,
    /// By inode. Of a file with several names one is removed at a time, so that exactly one of those who remove them
    /// finds that it was the last.
    linked: Vec<Mutex<StillLinked>>,
    /// The sum of all that is in there.
    still_linked: AtomicU64,
}

impl Freed {
    /// To be counted by one thread.
    pub(crate) fn by_one() -> Self {
        Self::in_parts(1)
    }

    /// To be counted by many threads.
    pub(crate) fn by_many() -> Self {
        Self::in_parts(PARTS)
    }

    fn in_parts(parts: usize) -> Self {
        Self {
            total: Mutex::default(),
            linked: (0..parts).map(|_| Mutex::default()).collect(),
            still_linked: AtomicU64::new(0),
        }
    }

    /// Runs `unlink` while nobody else removes a name of the same file; it tells whether it removed the last one.
    pub(crate) fn of_many_names<E>(
        &self,
        identity: Identity,
        bytes: u64,
        unlink: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut linked = self.part(identity);
        let is_last = unlink()?;
        if is_last {
            self.subtract(linked.remove(&identity));
        } else {
            self.still_linked.fetch_add(bytes, Ordering::Relaxed);
            self.subtract(linked.insert(identity, bytes));
        }
        Ok(is_last)
    }

    /// Takes note that the last name of a file is gone.
    pub(crate) fn forget(&self, identity: Identity) {
        let mut linked = self.part(identity);
        self.subtract(linked.remove(&identity));
    }

    fn subtract(&self, bytes: Option<u64>) {
        self.still_linked.fetch_sub(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// Adds what was removed of one tree.
    pub(crate) fn add(&self, stats: &RemoveStats) {
        let mut total = lock(&self.total);
        total.files += stats.files;
        total.directories += stats.directories;
        total.inodes_freed += stats.inodes_freed;
        total.bytes_freed += stats.bytes_freed;
    }

    pub(crate) fn total(&self) -> RemoveStats {
        RemoveStats {
            bytes_still_linked: self.still_linked.load(Ordering::Relaxed),
            ..*lock(&self.total)
        }
    }

    fn part(&self, (_, inode): Identity) -> MutexGuard<'_, StillLinked> {
        let part = usize::try_from(inode % self.linked.len() as u64).unwrap_or(0);
        lock(&self.linked[part])
    }
}

/// What is behind a lock is whole at every moment, also when a thread that had it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
