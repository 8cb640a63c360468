// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a database that must not be changed, whatever state its files are in.
//!
//! Neither rows that are only in the write-ahead log nor those that a live writer commits may be missed, and nothing
//! may be created, changed or checkpointed. Which way does both depends on the files beside the database:
//!
//! | `-wal` | `-shm` | way |
//! |---|---|---|
//! | absent, empty, or with a header that is none | any | [`Way::Immutable`] |
//! | not empty | present | [`Way::SharedMemory`]; [`Way::PrivateIndex`] if SQLite cannot use the files |
//! | not empty | absent, or on a file system that does not share memory | [`Way::PrivateIndex`] |
//! | not empty, written by this process | present | [`Way::SharedMemory`] |
//!
//! An immutable or private connection never notices that others write. So the files' inodes, lengths and times are
//! compared before and after each batch of questions, and if they changed, everything is opened and asked
//! again. Whoever writes, writes to the log first.
//!
//! After a power cut a log may begin with anything. Nothing in it is committed then; but SQLite, reading by shared memory,
//! would wait ten seconds for somebody to put it right, each time.
//!
//! To open and close a file outside of SQLite drops the locks that SQLite holds on it elsewhere in this process, so the
//! header of the database is not looked at here; the log is never locked. SQLite keeps the account of its own
//! descriptors, but not of those of [`Way::PrivateIndex`]. So that way is not taken while this process writes the
//! database, and if it was taken before, the connection is never closed.
//!
//! One gap is left: should a log that was there vanish before SQLite opens it, and should we be allowed to, SQLite
//! makes an empty one. The logs of Nix stay.

use std::fs;
use std::io;
use std::mem;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::busy::retry;
use super::connection::{set_up_reading, uri};
use super::descriptors::is_open_for_writing;
use super::fault::{explain, is_out_of_reach};
use super::files::Files;
use super::log_header;
use super::stamps::Stamps;
use super::{read, schema_file};
use crate::edition::next_connection;
use crate::{Error, Result};

/// How often files that change while they are opened or read are tried again.
pub(super) const ATTEMPTS: u32 = 20;

/// Pause between attempts, multiplied by their number. All of them together last two seconds: longer than the
/// transactions of others, shorter than a user's patience.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// How long a way of reading is waited for while another one is left, which needs no locks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Magic numbers of file systems on which others may write the shared memory file without our seeing it: NFS, CIFS,
/// SMB2 and SMB, 9p, FUSE with virtiofs, Ceph, AFS; and overlays, where a file that somebody opens for writing is another one
/// than it was before.
const UNSHARED: [i64; 9] = [
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x517b,
    0x0102_1997,
    0x6573_5546,
    0x00c3_6400,
    0x5346_414f,
    0x794c_7630,
];

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

/// What decides on the ways besides the files' state.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The file system shows what others write to a file that is mapped here.
    shares_memory: bool,
    /// This process has the database open for writing.
    is_written_here: bool,
    /// There is nothing in the log.
    has_void_log: bool,
}

impl Place {
    fn of(files: &Files, stamps: &Stamps) -> Self {
        // By name: a descriptor would have to be closed again.
        let file_system = rustix::fs::statfs(&files.database);
        Self {
            shares_memory: file_system.is_ok_and(|found| shares_memory(found.f_type)),
            is_written_here: is_written_here(stamps),
            has_void_log: log_header::is_void(&files.wal),
        }
    }
}

/// Tells whether a file system shows what others write to a file that is mapped here.
fn shares_memory(magic: i64) -> bool {
    // The kernel gives some of them as negative numbers of 32 bits.
    !UNSHARED.contains(&(magic & 0xffff_ffff))
}

fn is_written_here(stamps: &Stamps) -> bool {
    stamps
        .database
        .is_some_and(|database| is_open_for_writing(database.device, database.inode))
}

/// Returns the ways that may work for files in some state, best first.
fn ways(stamps: &Stamps, place: impl FnOnce() -> Place) -> &'static [Way] {
    if !stamps.has_log() {
        return &[Way::Immutable];
    }
    match place() {
        Place {
            is_written_here: true,
            ..
        } => &[Way::SharedMemory],
        Place {
            has_void_log: true, ..
        } => &[Way::Immutable],
        Place {
            shares_memory: true, ..
        } if stamps.shm.is_some() => &[Way::SharedMemory, Way::PrivateIndex],
        _ => &[Way::PrivateIndex],
    }
}

/// A connection that changes nothing, and what the files were like when it was made.
#[derive(Debug)]
pub(super) struct ReadOnlyConnection {
    connection: Option<Connection>,
    pub(super) way: Way,
    pub(super) number: u64,
    files: Files,
    stamps: Stamps,
}

impl ReadOnlyConnection {
    /// Opens a store's database for reading.
    pub(super) fn open(files: &Files, busy_limit: Duration) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let files = files.resolved()?;
            let stamps = Stamps::settled(&files)?;
            let opened = Self::open_as(&files, busy_limit, stamps);
            // Whatever went wrong may come from files that changed meanwhile.
            let worth_repeating = match &opened {
                Ok(opened) => !opened.is_current()?,
                Err(Error::HotJournal { .. }) => true,
                Err(_) => Stamps::of(&files)? != stamps,
            };
            if !worth_repeating {
                return opened;
            }
            if attempt == ATTEMPTS {
                return opened.and_then(|_| {
                    Err(Error::Changing {
                        database: files.database,
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
        if !stamps.has_log()
            && stamps.journal.is_some_and(|journal| journal.length > 0)
            && is_hot(&files.journal)
        {
            return Err(Error::HotJournal {
                journal: files.journal.clone(),
            });
        }
        let mut failure = None;
        let mut ways = ways(&stamps, || Place::of(files, &stamps)).iter().peekable();
        while let Some(&way) = ways.next() {
            let has_other = ways.peek().is_some();
            let limit = if has_other {
                busy_limit.min(PATIENCE)
            } else {
                busy_limit
            };
            match retry(&files.database, limit, || connect(files, way)) {
                Ok(connection) => {
                    return Ok(Self {
                        connection: Some(connection),
                        way,
                        number: next_connection(),
                        files: files.clone(),
                        stamps,
                    });
                }
                Err(error) if is_out_of_reach(&error) || has_other && matches!(error, Error::Busy { .. }) => {
                    tracing::debug!(database = %files.database.display(), ?way, %error, "cannot be read in this way");
                    failure = failure.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        if stamps.has_log() && is_written_here(&stamps) {
            return Err(Error::OpenInThisProcess {
                database: files.database.clone(),
            });
        }
        Err(failure.expect("there is at least one way, and each one that was tried failed"))
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("it is taken only when it is dropped")
    }

    /// Tells whether the files are still those that the connection was made for.
    pub(super) fn is_current(&self) -> Result<bool> {
        let now = Stamps::of(&self.files)?;
        Ok(match self.way {
            Way::Immutable | Way::PrivateIndex => self.stamps.is_same_state(&now),
            // SQLite itself sees what is written, but not that files were replaced.
            Way::SharedMemory => self.stamps.are_same_files(&now),
        })
    }
}

impl Drop for ReadOnlyConnection {
    fn drop(&mut self) {
        let connection = self.connection.take();
        if self.way == Way::PrivateIndex && is_written_here(&self.stamps) {
            // Opened for writing since then. Closed now, the connection would take the writer's locks along, and the next
            // process to close the database could remove the log that the writer goes on writing.
            tracing::debug!(database = %self.files.database.display(), "left open, as this process writes it");
            mem::forget(connection);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_not_shared_over_the_network() {
        for (magic, expected) in [
            (0xef53, true),
            (0x0102_1994, true),
            (0x9123_683e, true),
            (0x6969, false),
            (0xff53_4d42, false),
            (i64::from(0xff53_4d42_u32 as i32), false),
            (0xfe53_4d42, false),
            (0x0102_1997, false),
            (0x6573_5546, false),
            (0x794c_7630, false),
        ] {
            assert_eq!(shares_memory(magic), expected, "{magic:x}");
        }
    }

    #[test]
    fn ways_follow_from_files_and_place() {
        let dir = tempfile::TempDir::new().expect("a directory can be made");
        let files = Files::new(dir.path()).expect("it has a path");
        let check = |log: &[u8], has_shm: bool, shares_memory, is_written_here, expected: &[Way]| {
            let has_void_log = log == b"void";
            fs::write(&files.wal, log).expect("it can be written");
            if has_shm {
                fs::write(&files.shm, b"").expect("it can be written");
            } else {
                drop(fs::remove_file(&files.shm));
            }
            let stamps = Stamps::of(&files).expect("they are there");
            let place = Place {
                shares_memory,
                is_written_here,
                has_void_log,
            };
            assert_eq!(ways(&stamps, || place), expected, "{log:?} {has_shm} {place:?}");
        };
        let (shared, private) = (Way::SharedMemory, Way::PrivateIndex);
        check(b"", true, true, false, &[Way::Immutable]);
        check(b"", true, false, true, &[Way::Immutable]);
        check(b"log", true, true, false, &[shared, private]);
        check(b"log", false, true, false, &[private]);
        check(b"log", true, false, false, &[private]);
        check(b"void", true, true, false, &[Way::Immutable]);
        check(b"void", false, false, false, &[Way::Immutable]);
        check(b"void", true, true, true, &[shared]);
        // Within a process memory is shared everywhere.
        check(b"log", true, true, true, &[shared]);
        check(b"log", true, false, true, &[shared]);
    }
}
