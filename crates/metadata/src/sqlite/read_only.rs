// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a database that must not be changed, whatever state its files are in.
//!
//! Neither rows that are only in the write-ahead log nor those that a live writer commits may be missed, and nothing
//! may be created, changed or checkpointed. Which way does both depends on the files beside the database:
//!
//! | `-wal` | `-shm` | way |
//! |---|---|---|
//! | absent or empty | any | [`Way::Immutable`] |
//! | not empty | present | [`Way::SharedMemory`]; [`Way::PrivateIndex`] if SQLite cannot use the files |
//! | not empty | absent | [`Way::PrivateIndex`] |
//!
//! An immutable or private connection never notices that others write. So the files' inodes, lengths and times are
//! compared before and after each batch of questions, and if they changed, everything is opened and asked
//! again. Whoever writes, writes to the log first.
//!
//! To open and close a file outside of SQLite drops the locks that SQLite holds on it elsewhere in this process, so the
//! header of the database is not looked at here. A connection of the first or last kind has the same effect when it is closed,
//! which matters only to a process that writes a database and reads it read-only as well.
//!
//! One gap is left: should a log that was there vanish before SQLite opens it, and should we be allowed to, SQLite
//! makes an empty one. The logs of Nix stay.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags};

use super::busy::retry;
use super::connection::{set_up_reading, uri};
use super::fault::{explain, is_out_of_reach};
use super::files::{Files, io_error};
use super::{read, schema_file};
use crate::{Error, Result};

/// How often files that change while they are opened or read are tried again.
pub(super) const ATTEMPTS: u32 = 20;

/// Pause between attempts, multiplied by their number. All of them together last two seconds: longer than the
/// transactions of others, shorter than a user's patience.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Files written this recently may be written again without getting another time: many kernels tell times
/// only to a clock tick, of which the longest last 10 ms.
const FRESH: Duration = Duration::from_millis(20);

/// How a database is read without changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As a file that does not change; there is no log.
    Immutable,
    /// With the log and the shared memory file of its users, opened read-only. While there are no users, SQLite keeps
    /// an index of the log in its own memory.
    SharedMemory,
    /// With the log and an index of it in our own memory, without locks. SQLite rules out its parameter `nolock` for
    /// databases with a log; its file system layer without locks does the same.
    PrivateIndex,
}

impl Way {
    fn parameters(self) -> &'static str {
        match self {
            Self::Immutable => "immutable=1",
            Self::SharedMemory => "mode=ro&readonly_shm=1",
            Self::PrivateIndex => "mode=ro&vfs=unix-none",
        }
    }
}

/// What tells that a file is another one or has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
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
struct Stamps {
    database: Option<Stamp>,
    wal: Option<Stamp>,
    shm: Option<Stamp>,
    journal: Option<Stamp>,
}

impl Stamps {
    fn of(files: &Files) -> Result<Self> {
        Ok(Self {
            database: Stamp::of(&files.database)?,
            wal: Stamp::of(&files.wal)?,
            shm: Stamp::of(&files.shm)?,
            journal: Stamp::of(&files.journal)?,
        })
    }

    /// As [`Stamps::of`], but waits a moment if a change that comes next might not be noticed.
    fn settled(files: &Files) -> Result<Self> {
        let stamps = Self::of(files)?;
        let now = SystemTime::now();
        if [stamps.database, stamps.wal, stamps.journal]
            .iter()
            .flatten()
            .any(|stamp| stamp.is_fresh(now))
        {
            std::thread::sleep(FRESH);
            return Self::of(files);
        }
        Ok(stamps)
    }

    /// Returns the ways that may work for files in this state, best first.
    fn ways(&self) -> &'static [Way] {
        match (self.wal, self.shm) {
            (Some(Stamp { length: 1.., .. }), Some(_)) => &[Way::SharedMemory, Way::PrivateIndex],
            (Some(Stamp { length: 1.., .. }), None) => &[Way::PrivateIndex],
            _ => &[Way::Immutable],
        }
    }

    /// Tells whether a connection that was opened in a certain way can go on as if nothing had happened.
    fn still_serves(&self, now: &Self, way: Way) -> bool {
        match way {
            // The shared memory file carries no rows.
            Way::Immutable | Way::PrivateIndex => {
                (self.database, self.wal, self.journal) == (now.database, now.wal, now.journal)
            }
            // SQLite itself sees what is written, but not that files were replaced.
            Way::SharedMemory => [
                (&self.database, &now.database),
                (&self.wal, &now.wal),
                (&self.shm, &now.shm),
            ]
            .iter()
            .all(|(then, now)| Stamp::is_same_file(then.as_ref(), now.as_ref())),
        }
    }
}

/// A connection that changes nothing, and what the files were like when it was made.
#[derive(Debug)]
pub(super) struct ReadOnlyConnection {
    pub(super) connection: Connection,
    pub(super) way: Way,
    stamps: Stamps,
}

impl ReadOnlyConnection {
    /// Opens a store's database for reading.
    pub(super) fn open(files: &Files, busy_limit: Duration) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let stamps = Stamps::settled(files)?;
            let opened = Self::open_as(files, busy_limit, stamps);
            // Whatever went wrong may come from files that changed meanwhile.
            let worth_repeating = match &opened {
                Ok(opened) => !opened.is_current(files)?,
                Err(Error::HotJournal { .. }) => true,
                Err(_) => Stamps::of(files)? != stamps,
            };
            if !worth_repeating {
                return opened;
            }
            if attempt == ATTEMPTS {
                return opened.and_then(|_| {
                    Err(Error::Changing {
                        database: files.database.clone(),
                    })
                });
            }
            std::thread::sleep(PAUSE * attempt);
            attempt += 1;
        }
    }

    fn open_as(files: &Files, busy_limit: Duration, stamps: Stamps) -> Result<Self> {
        if stamps.database.is_none() {
            return Err(Error::MissingDatabase {
                database: files.database.clone(),
            });
        }
        match schema_file::read(files)? {
            Some(found) => schema_file::check_readable(files, found)?,
            None => {
                return Err(Error::MissingSchema {
                    file: files.schema.clone(),
                });
            }
        }
        // Without a log there may be a journal. SQLite could only roll it back, which would be a change.
        if stamps.wal.is_none()
            && stamps.journal.is_some_and(|journal| journal.length > 0)
            && is_hot(&files.journal)
        {
            return Err(Error::HotJournal {
                journal: files.journal.clone(),
            });
        }
        let mut failure = None;
        for &way in stamps.ways() {
            match retry(&files.database, busy_limit, || connect(files, way)) {
                Ok(connection) => {
                    return Ok(Self {
                        connection,
                        way,
                        stamps,
                    });
                }
                Err(error) if is_out_of_reach(&error) => {
                    tracing::debug!(database = %files.database.display(), ?way, %error, "cannot be read in this way");
                    failure = failure.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.expect("there is at least one way, and each one that was tried failed"))
    }

    /// Tells whether the files are still those that the connection was made for.
    pub(super) fn is_current(&self, files: &Files) -> Result<bool> {
        Ok(self.stamps.still_serves(&Stamps::of(files)?, self.way))
    }
}

/// Opens the database in one way, and reads enough of it to know that the way works and that the tables are there.
fn connect(files: &Files, way: Way) -> Result<Connection> {
    let fail = |error| explain(&files.database, "opening", error);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(uri(&files.database, way.parameters()), flags).map_err(fail)?;
    set_up_reading(&connection).map_err(fail)?;
    if way == Way::PrivateIndex {
        // Whoever has a database to himself keeps the index of the log in his own memory.
        connection
            .query_row("PRAGMA locking_mode = exclusive", [], |_| Ok(()))
            .map_err(fail)?;
    }
    for statement in read::NEEDED {
        connection.prepare_cached(statement).map_err(fail)?;
    }
    Ok(connection)
}

/// Tells whether a journal that is not empty has to be rolled back. SQLite clears the first byte of one that is done
/// with. If the file cannot be read, it counts as hot.
fn is_hot(journal: &Path) -> bool {
    let mut first = [0];
    let read = fs::File::open(journal).and_then(|mut file| io::Read::read(&mut file, &mut first));
    !matches!(read, Ok(length) if length == 0 || first == [0])
}
