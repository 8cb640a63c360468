// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tells from outside that the files of a database were written or replaced.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{Files, io_error};
use crate::Result;

/// Files written this recently may be written again without getting another time: many kernels tell times
/// only to a clock tick, of which the longest last 10 ms.
const FRESH: Duration = Duration::from_millis(20);

/// How often files that were just written are waited for: 200 ms in all. If somebody writes that often, nothing is
/// gained by more patience.
const SETTLING: u32 = 10;

/// What tells that a file is another one or has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) length: u64,
    modified: SystemTime,
}

impl Stamp {
    /// Returns the stamp of a file; `None` if there is none.
    fn of(path: &Path) -> Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self {
                device: metadata.dev(),
                inode: metadata.ino(),
                length: metadata.len(),
                // Not the change time: SQLite moves it when root opens a log, by giving it the owner that it has.
                modified: metadata.modified().map_err(io_error("looking at", path))?,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("looking at", path)(error)),
        }
    }

    /// Tells whether the file was written so recently that its time may not tell it from what comes next.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let age = now
            .duration_since(self.modified)
            .unwrap_or_else(|ahead| ahead.duration());
        age < FRESH
    }

    fn is_same_file(left: Option<&Self>, right: Option<&Self>) -> bool {
        let identity = |stamp: &Self| (stamp.device, stamp.inode);
        left.map(identity) == right.map(identity)
    }
}

/// The state of all files of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps {
    pub(super) database: Option<Stamp>,
    pub(super) wal: Option<Stamp>,
    pub(super) shm: Option<Stamp>,
    pub(super) journal: Option<Stamp>,
}

impl Stamps {
    pub(super) fn of(files: &Files) -> Result<Self> {
        Ok(Self {
            // By its name, so that a link that leads elsewhere now is noticed.
            database: Stamp::of(&files.named)?,
            wal: Stamp::of(&files.wal)?,
            shm: Stamp::of(&files.shm)?,
            journal: Stamp::of(&files.journal)?,
        })
    }

    /// As [`Stamps::of`], but waits a moment as long as a change that comes next might not be noticed.
    pub(super) fn settled(files: &Files) -> Result<Self> {
        settle(|| Self::of(files), SystemTime::now, std::thread::sleep)
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        [self.database, self.wal, self.journal]
            .iter()
            .flatten()
            .any(|stamp| stamp.is_fresh(now))
    }

    /// Tells whether there is a log with something in it.
    pub(super) fn has_log(&self) -> bool {
        self.wal.is_some_and(|wal| wal.length > 0)
    }

    /// Tells whether nothing was written.
    pub(super) fn is_same_state(&self, now: &Self) -> bool {
        // The shared memory file carries no rows.
        (self.database, self.wal, self.journal) == (now.database, now.wal, now.journal)
    }

    /// Tells whether no file was replaced.
    pub(super) fn are_same_files(&self, now: &Self) -> bool {
        [
            (&self.database, &now.database),
            (&self.wal, &now.wal),
            (&self.shm, &now.shm),
        ]
        .iter()
        .all(|(then, now)| Stamp::is_same_file(then.as_ref(), now.as_ref()))
    }
}

/// Looks until nothing is fresh any more, but not for ever.
fn settle(
    mut look: impl FnMut() -> Result<Stamps>,
    mut now: impl FnMut() -> SystemTime,
    mut pause: impl FnMut(Duration),
) -> Result<Stamps> {
    for _ in 0..SETTLING {
        let stamps = look()?;
        if !stamps.is_fresh(now()) {
            return Ok(stamps);
        }
        pause(FRESH);
    }
    look()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::UNIX_EPOCH;

    use super::*;

    /// Lets a log be written for some milliseconds, and returns how long was waited, and whether the last state was
    /// still fresh.
    fn check(written_for: u64, waited: u64, fresh: bool) {
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let clock = Cell::new(start);
        let look = || {
            let modified = clock.get().min(start + Duration::from_millis(written_for));
            let stamp = Stamp {
                device: 1,
                inode: 1,
                length: 1,
                modified,
            };
            Ok(Stamps {
                database: None,
                wal: Some(stamp),
                shm: None,
                journal: None,
            })
        };
        let settled = settle(look, || clock.get(), |pause| clock.set(clock.get() + pause));
        let settled = settled.expect("looking does not fail here");
        assert_eq!(
            clock.get().duration_since(start).ok(),
            Some(Duration::from_millis(waited)),
            "written for {written_for} ms"
        );
        assert_eq!(
            settled.is_fresh(clock.get()),
            fresh,
            "written for {written_for} ms"
        );
    }

    #[test]
    fn files_are_waited_for_until_they_rest() {
        check(0, 20, false);
        check(15, 40, false);
        check(50, 80, false);
        check(10_000, 200, true);
    }
}
