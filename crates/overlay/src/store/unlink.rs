// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unlinking many trees, by several threads.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use rustix::fd::BorrowedFd;
use superpose_nar::Removals;

use crate::crash::{CrashPoint, CrashPoints};
use crate::watch::{Doing, Progress, Watch};

/// On every machine: what is removed waits for the disk most of the time, not for a core (each file for its blocks to be
/// discarded, with the mount option of that name and no journal). More threads than this wait for each other.
pub(super) const THREADS: NonZero<usize> = NonZero::new(16).expect("not zero");

/// Fewer trees than this for each thread are unlinked sooner than a thread is started.
const TREES_PER_THREAD: usize = 16;

/// After so many trees the watcher hears of it.
const TREES_PER_REPORT: u64 = 64;

/// Who takes part in the unlinking of trees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unlinking<'a> {
    pub(super) removals: &'a Removals,
    pub(super) watch: &'a Watch,
    pub(super) crash_points: &'a CrashPoints,
}

impl Unlinking<'_> {
    /// Unlinks trees of a directory, and returns how many resist. That is no failure: they are out of everybody's way.
    pub(super) fn all(self, directory: BorrowedFd<'_>, names: &[OsString]) -> usize {
        let threads = THREADS.get().min(names.len() / TREES_PER_THREAD);
        let work = Work {
            who: self,
            directory,
            names,
            next: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            resisting: AtomicUsize::new(0),
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| work.run());
            }
            work.run();
        });
        work.resisting.into_inner()
    }
}

struct Work<'a> {
    who: Unlinking<'a>,
    directory: BorrowedFd<'a>,
    names: &'a [OsString],
    next: AtomicUsize,
    done: AtomicU64,
    resisting: AtomicUsize,
}

impl Work<'_> {
    fn run(&self) {
        while let Some(name) = self.names.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            match self.who.removals.remove(self.directory, name) {
                Ok(()) => {}
                // An earlier try came that far.
                Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => {}
                Err(error) => {
                    tracing::warn!(%error, "a removed object cannot be unlinked yet");
                    self.resisting.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.who.crash_points.reached(CrashPoint::TreeUnlinked);
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(TREES_PER_REPORT) {
                let mut progress = Progress::new(Doing::Deleting, self.names.len() as u64);
                progress.done = done;
                progress.bytes = self.who.removals.total().bytes_freed;
                self.who.watch.progress(&progress);
            }
        }
    }
}
