// SPDX-License-Identifier: MIT OR Apache-2.0
//! The database of a store as a value: opened, asked, and written through transactions.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB};
use superpose_store_path::{HashPart, StoreDir, StorePath};

use super::big_lock::BigLock;
use super::busy::retry;
use super::connection::{open_read_write, set_cache_size};
use super::fault::explain;
use super::files::{Files, io_error};
use super::names::KnownNames;
use super::options::{OpenDatabase, OpenMode};
use super::read::Reader;
use super::read_only::{ATTEMPTS, PAUSE, ReadOnlyConnection, Way};
use super::reserved;
use super::transaction::Transaction;
use crate::edition::{Part, next_connection};
use crate::{
    ArchiveInfo, Closure, Edition, Error, MetadataSource, Outputs, PathInfo, Prune, Realisation,
    RealisationKey, RealisationKind, Result, Visit,
};

/// How a database is being accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Read and written, like Nix does.
    ReadWrite,
    /// Read as a file that nobody writes; if somebody does, it is opened again.
    Immutable,
    /// Read together with its log, coordinated with its other users.
    SharedMemory,
    /// Read together with its log, on our own; if somebody writes, it is opened again.
    PrivateIndex,
}

/// The SQLite database of a Nix store.
#[derive(Debug)]
pub struct Database {
    store_dir: StoreDir,
    files: Files,
    busy_limit: Duration,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    ReadWrite {
        connection: Connection,
        number: u64,
        names: Box<RefCell<KnownNames>>,
        _lock: BigLock,
    },
    ReadOnly(Box<RefCell<ReadOnlyConnection>>),
}

impl Database {
    /// Opens a database.
    ///
    /// For reading and writing the directory must exist; what is missing in it is made. For reading only, nothing
    /// is made or changed, and the way to read is chosen accordingly.
    ///
    /// # Limitations
    /// As root, SQLite gives the log and its shared memory the owner of the database, which they have already: their change
    /// time moves.
    ///
    /// A process should open a database for writing before it opens the same one for reading. If it reads one whose log is not
    /// empty, and opens it for writing only then, it cannot write as long as it goes on reading
    /// ([`Error::ReaderInThisProcess`]), since SQLite shares the log's memory within a process as the first one opened it. If it
    /// reads with [`Access::PrivateIndex`] then, the descriptors of that reader stay open when it is dropped: to close them
    /// would drop the locks of the writer. To drop it in one thread at the very moment at which another one opens the database for
    /// writing must be avoided.
    ///
    /// # Errors
    /// If the files are missing, damaged, of an unknown schema, locked for longer than the limit, or not permitted.
    pub fn open(options: &OpenDatabase) -> Result<Self> {
        let files = Files::new(&options.dir)?;
        let backing = match options.mode {
            OpenMode::ReadWrite => {
                let (connection, lock) = open_read_write(&files, options)?;
                Backing::ReadWrite {
                    connection,
                    number: next_connection(),
                    names: Box::default(),
                    _lock: lock,
                }
            }
            OpenMode::ReadOnly => {
                let connection = ReadOnlyConnection::open(&files, options.busy_limit)?;
                Backing::ReadOnly(Box::new(RefCell::new(connection)))
            }
        };
        Ok(Self {
            store_dir: options.store_dir.clone(),
            files,
            busy_limit: options.busy_limit,
            backing,
        })
    }

    /// Returns the database file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.files.database
    }

    /// Tells how the database is being accessed. The way of reading may change with every question.
    #[must_use]
    pub fn access(&self) -> Access {
        match &self.backing {
            Backing::ReadWrite { .. } => Access::ReadWrite,
            Backing::ReadOnly(connection) => match connection.borrow().way {
                Way::Immutable => Access::Immutable,
                Way::SharedMemory => Access::SharedMemory,
                Way::PrivateIndex => Access::PrivateIndex,
            },
        }
    }

    /// Begins a transaction that writes: waits for other writers and keeps them away until it ends.
    ///
    /// # Errors
    /// If the database is open for reading only, or others kept it busy for longer than the limit.
    pub fn begin(&mut self) -> Result<Transaction<'_>> {
        let (connection, database) = self.writable()?;
        retry(database, self.busy_limit, || {
            let begun = connection
                .prepare_cached("BEGIN IMMEDIATE")
                .and_then(|mut begin| begin.execute([]));
            begun.map_err(|error| {
                let refused = error.sqlite_error_code() == Some(ErrorCode::ReadOnly);
                if refused && matches!(connection.is_readonly(MAIN_DB), Ok(false)) {
                    // Not the file cannot be written, but the index of the log.
                    Error::ReaderInThisProcess {
                        database: database.to_owned(),
                    }
                } else {
                    explain(database, "beginning to write", error)
                }
            })
        })?;
        Ok(Transaction::new(self))
    }

    /// Tells whether the database has the tables for realisations of a kind, which only some releases of Nix make, and
    /// only with the experimental feature for them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn keeps_realisations(&self, kind: RealisationKind) -> Result<bool> {
        self.read(|reader| reader.keeps_realisations(kind))
    }

    /// Frees the ballast file, as is done at the start of a garbage collection. It is made again when the database is
    /// next opened.
    ///
    /// # Errors
    /// If the database is open for reading only, or the file cannot be removed.
    pub fn release_reserved_space(&self) -> Result<()> {
        self.writable()?;
        reserved::release(&self.files).map_err(io_error("removing", &self.files.reserved))
    }

    /// Changes how much memory pages of the database may take, in KiB. What is larger now shrinks at once.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn set_cache_size(&self, kibibytes: u32) -> Result<()> {
        let set = |connection: &Connection| {
            set_cache_size(connection, kibibytes)
                .map_err(|error| explain(&self.files.database, "changing the cache", error))
        };
        match &self.backing {
            Backing::ReadWrite { connection, .. } => set(connection),
            // It has the default again when somebody writes to the database and it is opened anew.
            Backing::ReadOnly(connection) => set(connection.borrow().connection()),
        }
    }

    /// Makes all committed transactions durable: writes the log to the disk.
    ///
    /// Call it before something is done that must not outlive the transactions, such as to delete files that they no
    /// longer name. Without a log there is nothing to do: each commit was durable already, unless
    /// [`MetadataSync::Off`](crate::MetadataSync::Off) was asked for.
    ///
    /// # Errors
    /// If the database is open for reading only, or the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.writable()?;
        sync_log(&self.files.wal, File::sync_data)
    }

    /// Returns the connection that can write.
    pub(super) fn writable(&self) -> Result<(&Connection, &Path)> {
        match &self.backing {
            Backing::ReadWrite { connection, .. } => Ok((connection, &self.files.database)),
            Backing::ReadOnly(_) => Err(Error::ReadOnly {
                database: self.files.database.clone(),
            }),
        }
    }

    pub(super) fn busy_limit(&self) -> Duration {
        self.busy_limit
    }

    pub(super) fn reader<'a>(&'a self, connection: &'a Connection) -> Reader<'a> {
        Reader {
            connection,
            store_dir: &self.store_dir,
            database: &self.files.database,
        }
    }

    /// Asks something, which is asked again if the answer may be wrong.
    pub(super) fn read<T>(&self, mut ask: impl FnMut(&Reader<'_>) -> Result<T>) -> Result<T> {
        match &self.backing {
            Backing::ReadWrite { connection, .. } => retry(&self.files.database, self.busy_limit, || {
                self.reader(connection).snapshot(&mut ask)
            }),
            Backing::ReadOnly(connection) => {
                for attempt in 0..ATTEMPTS {
                    std::thread::sleep(PAUSE * attempt);
                    if let Some(answer) = self.read_unlocked(connection, &mut ask)? {
                        return Ok(answer);
                    }
                }
                Err(Error::Changing {
                    database: self.files.database.clone(),
                })
            }
        }
    }

    /// Asks something of a database that is open for reading only; `None` if it changed in the meantime.
    fn read_unlocked<T>(
        &self,
        cell: &RefCell<ReadOnlyConnection>,
        ask: &mut impl FnMut(&Reader<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        // Borrowed already: asked from within another question, whose state of the store this one has to see.
        let is_nested = match cell.try_borrow_mut() {
            Ok(mut connection) => {
                if !connection.is_current()? {
                    *connection = ReadOnlyConnection::open(&self.files, self.busy_limit)?;
                }
                false
            }
            Err(_) => true,
        };
        let connection = cell.borrow();
        let answer = retry(&self.files.database, self.busy_limit, || {
            self.reader(connection.connection()).snapshot(&mut *ask)
        });
        // An error too may come from pages of different times.
        if connection.is_current()? {
            answer.map(Some)
        } else if is_nested {
            Err(self.changed_during_visit())
        } else {
            Ok(None)
        }
    }

    fn changed_during_visit(&self) -> Error {
        Error::ChangedDuringVisit {
            database: self.files.database.clone(),
        }
    }
}

/// SQLite has no locks on the log, which would be lost when it is closed.
fn sync_log(log: &Path, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
    match File::open(log).and_then(|log| sync(&log)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("writing to the disk", log)(error))
        }
        _ => Ok(()),
    }
}

impl MetadataSource for Database {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn edition(&self) -> Result<Option<Edition>> {
        let (connection, (by_others, by_itself)) = match &self.backing {
            // One statement sees one state by itself.
            Backing::ReadWrite {
                connection, number, ..
            } => {
                let ask = || self.reader(connection).changes();
                (*number, retry(&self.files.database, self.busy_limit, ask)?)
            }
            Backing::ReadOnly(connection) => {
                let changes = self.read(|reader| reader.changes())?;
                // The one that answered: only a question opens another.
                (connection.borrow().number, changes)
            }
        };
        Ok(Some(Edition::of(Part {
            connection,
            by_others,
            by_itself,
        })))
    }

    fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>> {
        self.read(|reader| reader.are_valid(paths))
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        match &self.backing {
            Backing::ReadWrite { names, .. } => self.read(|reader| {
                let mut names = names.borrow_mut();
                names.refresh(reader)?;
                reader.path_infos(paths, &mut names)
            }),
            // What was read without locks may be of several states.
            Backing::ReadOnly(_) => self.read(|reader| reader.path_infos(paths, &mut KnownNames::default())),
        }
    }

    fn archives(&self, paths: &[StorePath]) -> Result<Vec<Option<ArchiveInfo>>> {
        self.read(|reader| reader.archives(paths))
    }

    fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>> {
        self.read(|reader| reader.closure(roots, direction))
    }

    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>> {
        self.read(|reader| reader.closure_infos(roots, prune))
    }

    fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.read(|reader| reader.referrers(paths))
    }

    fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.read(|reader| reader.valid_derivers(paths))
    }

    fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>> {
        self.read(|reader| reader.derivation_outputs(derivations))
    }

    fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>> {
        self.read(|reader| reader.path_from_hash_part(parts))
    }

    fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>> {
        self.read(|reader| reader.realisations(keys))
    }

    fn realisations_of(&self, outputs: &[StorePath]) -> Result<Vec<Realisation>> {
        self.read(|reader| reader.realisations_of(outputs))
    }

    /// Shows every valid path.
    ///
    /// `visit` may ask this database other things; it then sees the same state of the store.
    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<()> {
        // What has been shown cannot be taken back: the question is not asked twice once a path was shown.
        let mut shown = false;
        self.read(|reader| {
            if shown {
                return Err(self.changed_during_visit());
            }
            reader.for_each_valid_path(&mut |path| {
                shown = true;
                visit(path)
            })
        })
    }

    fn count(&self) -> Result<u64> {
        self.read(|reader| reader.count())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use superpose_store_path::{Hash, HashAlgorithm, Name, hash_bytes};

    use super::*;

    /// A store, and as many paths as make the enforcement of foreign keys be switched off for a moment.
    fn store_and_many(dir: &Path) -> (Database, Vec<PathInfo>) {
        let database = Database::open(&OpenDatabase::read_write(dir, StoreDir::default()));
        let name = Name::new(b"many").expect("it is one");
        let path = |number: usize| {
            let hash = hash_bytes(HashAlgorithm::Sha256, &number.to_le_bytes());
            StorePath::from_parts(HashPart::new(hash.compress()), &name)
        };
        let infos = (0..600_usize).map(|number| PathInfo {
            references: (number.saturating_sub(10)..number).map(path).collect(),
            ..PathInfo::new(path(number), Hash::sha256([1; 32]), 1)
        });
        (database.expect("a new store can be made"), infos.collect())
    }

    #[test]
    fn foreign_keys_are_always_enforced_again() {
        let dir = tempfile::TempDir::new().expect("a directory can be made");
        let (mut database, infos) = store_and_many(dir.path());
        let is_enforced = |database: &Database| {
            let (connection, _) = database.writable().expect("it was opened for that");
            let value: i64 = connection
                .pragma_query_value(None, "foreign_keys", |row| row.get(0))
                .expect("there is such a pragma");
            value == 1
        };
        let mut none = |_: &StorePath| Err("is not there".into());
        assert!(is_enforced(&database), "after opening");

        // SQLite fails in the middle of the references.
        let stop = "CREATE TEMP TRIGGER stop BEFORE INSERT ON Refs WHEN new.referrer > 300 \
            BEGIN SELECT raise(ABORT, 'full'); END";
        let execute = |database: &Database, statement: &str| {
            let (connection, _) = database.writable().expect("it was opened for that");
            connection.execute_batch(statement).expect("it is right");
        };
        execute(&database, stop);
        let error = database.register(&infos, &mut none).expect_err("it is full");
        assert!(matches!(error, Error::Sqlite { .. }), "{error}");
        assert!(is_enforced(&database), "after a failure");
        execute(&database, "DROP TRIGGER stop");

        let stats = database.register(&infos, &mut none).expect("nothing is wrong");
        assert!(stats.references > 5_000, "{stats:?}");
        assert!(is_enforced(&database), "after a success");
        let mut transaction = database.begin().expect("nobody else is there");
        transaction.register(&infos, &mut none).expect("nothing is wrong");
        assert!(is_enforced(transaction.database()), "within a transaction");
    }

    #[test]
    fn the_log_is_what_is_synchronised() {
        let dir = tempfile::TempDir::new().expect("a directory can be made");
        let (mut database, infos) = store_and_many(dir.path());
        let mut none = |_: &StorePath| Err("is not there".into());
        database.register(&infos, &mut none).expect("nothing is wrong");
        let log = dir.path().join("db.sqlite-wal");
        let mut synced = None;
        sync_log(&database.files.wal, |file| {
            synced = Some(file.metadata()?.ino());
            Ok(())
        })
        .expect("it is there");
        assert_eq!(synced, fs::metadata(&log).ok().map(|log| log.ino()));
        database.sync().expect("it can be written");

        sync_log(&log, |_| Err(io::Error::other("refused"))).expect_err("the disk refuses");
        sync_log(&dir.path().join("none"), |_| unreachable!("there is none")).expect("nothing to do");
        let reader = Database::open(&OpenDatabase::read_only(dir.path(), StoreDir::default()));
        let error = reader
            .expect("it can be read")
            .sync()
            .expect_err("it is not ours");
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    }
}
