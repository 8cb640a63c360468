// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error type of the crate.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use superpose_store_path::HashAlgorithm;

/// The result of this crate's fallible operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be learned or recorded.
///
/// Store paths are given in full. A message does not repeat its source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that has to be valid is not.
    #[error("path `{path}` is not valid")]
    NotValid {
        /// The path.
        path: String,
    },
    /// A path refers to one that is not valid in the same database, where the foreign keys have to close.
    ///
    /// Written all the same, the row would name an object that nobody promised to keep.
    #[error("path `{reference}` is not valid, but `{path}` refers to it; register or copy its closure first")]
    ReferenceNotValid {
        /// The path that was to be recorded.
        path: String,
        /// What it refers to.
        reference: String,
    },
    /// The references of the given paths form a ring.
    #[error("cycle detected in the references of `{path}`")]
    Cycle {
        /// One path of the ring.
        path: String,
    },
    /// An archive hash is of another algorithm than the one that Nix records.
    #[error("NAR hash of `{path}` is a {found} hash: expected sha256")]
    NarHashAlgorithm {
        /// The path.
        path: String,
        /// The algorithm that was given.
        found: HashAlgorithm,
    },
    /// A content address does not lead to the path that it was given for.
    #[error("content address `{content_address}` with the given references does not lead to `{path}`")]
    NotContentAddressed {
        /// The path.
        path: String,
        /// The content address, as text.
        content_address: String,
    },
    /// A number does not fit into a column, which holds signed 64-bit integers.
    #[error("{column} of `{path}` is {found}: expected at most 2^63 - 1")]
    TooLarge {
        /// The path.
        path: String,
        /// The column.
        column: &'static str,
        /// The number.
        found: u64,
    },
    /// A derivation does not parse, or its outputs are not those that follow from it.
    #[error("derivation `{path}` is not right")]
    Derivation {
        /// The path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<superpose_store_path::Error>,
    },
    /// The file of a derivation cannot be read.
    #[error("reading the derivation `{path}`")]
    ReadDerivation {
        /// The path.
        path: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A path cannot be removed, because others refer to it.
    ///
    /// Removed all the same, it would leave objects whose closure is not complete.
    #[error("path `{path}` is still referred to by `{referrer}`{}; remove the referrers with it",
        if *more == 0 { String::new() } else { format!(" and {more} more") })]
    StillReferenced {
        /// The path.
        path: String,
        /// One path that refers to it.
        referrer: String,
        /// How many others do.
        more: usize,
    },
    /// A realisation is known already, with another output path.
    #[error("realisation `{key}` leads to `{existing}` already: it cannot lead to `{found}` as well")]
    ConflictingRealisation {
        /// The key, as text.
        key: String,
        /// The output path that is recorded.
        existing: String,
        /// The output path that was to be recorded.
        found: String,
    },
    /// A text that registers paths holds something that does not belong there.
    #[error("the text that registers paths is wrong in line {line}: expected {expected}, found `{found}`")]
    RegistrationText {
        /// The line, counted from 1.
        line: u64,
        /// What belongs there.
        expected: &'static str,
        /// What is there, escaped and shortened.
        found: String,
        /// Why it is not what it should be, where there is more to say.
        #[source]
        source: Option<Box<superpose_store_path::Error>>,
    },
    /// A text that registers paths ends in the middle of one. Registered all the same, references would be missing.
    #[error("the text that registers paths ends in line {line}: expected {expected}, and a newline")]
    RegistrationTextEnds {
        /// The line, counted from 1.
        line: u64,
        /// What is missing.
        expected: &'static str,
    },
    /// A column holds a text that is not what it should be.
    #[error("column {column} of `{row}` in `{}` is not valid", database.display())]
    Column {
        /// The database file.
        database: PathBuf,
        /// The path that the row is about, or the row's number if the path itself is broken.
        row: String,
        /// Table and column.
        column: &'static str,
        /// What is wrong with the text.
        #[source]
        source: Box<superpose_store_path::Error>,
    },
    /// A column holds a value that it should never hold.
    #[error("column {column} of `{row}` in `{}` holds {found}: expected {expected}", database.display())]
    ColumnValue {
        /// The database file.
        database: PathBuf,
        /// The path that the row is about, or the row's number if the path itself is broken.
        row: String,
        /// Table and column.
        column: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// There is no database file.
    #[error("database `{}` does not exist; check the state directory of the store", database.display())]
    MissingDatabase {
        /// The file that was looked for.
        database: PathBuf,
    },
    /// The database file is something else.
    #[error("`{}` is not an SQLite database; restore it from a backup or from `nix-store --dump-db`", database.display())]
    NotADatabase {
        /// The file.
        database: PathBuf,
    },
    /// The database file is damaged.
    #[error("database `{}` is damaged; restore it from a backup or from `nix-store --dump-db`", database.display())]
    DamagedDatabase {
        /// The file.
        database: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The database lacks tables or columns of a Nix store.
    #[error("database `{}` lacks tables or columns of a Nix store; open the store once with Nix, which adds them", database.display())]
    MissingTables {
        /// The file.
        database: PathBuf,
        /// What SQLite misses.
        #[source]
        source: rusqlite::Error,
    },
    /// There is a database, but no file that tells its schema.
    #[error("schema file `{}` does not exist; check the state directory, or open the store once with Nix, which writes it", file.display())]
    MissingSchema {
        /// The file that was looked for.
        file: PathBuf,
    },
    /// The schema file does not hold a number.
    #[error("schema file `{}` is corrupt: it holds `{found}`, expected `{expected}` without a newline", file.display())]
    CorruptSchema {
        /// The file.
        file: PathBuf,
        /// What it holds, shortened.
        found: String,
        /// What it should hold.
        expected: u32,
    },
    /// The store is of a schema that came later than this program.
    ///
    /// Its rows may mean something that is not known here.
    #[error("schema file `{}` says {found}: expected {expected}; use a newer release of this program", file.display())]
    NewerSchema {
        /// The file.
        file: PathBuf,
        /// The schema of the store.
        found: u32,
        /// The schema that is understood.
        expected: u32,
    },
    /// The store is of a schema that is too old to be used.
    #[error("schema file `{}` says {found}: expected {expected}; open the store once with Nix, which upgrades it", file.display())]
    OlderSchema {
        /// The file.
        file: PathBuf,
        /// The schema of the store.
        found: u32,
        /// The schema that is understood.
        expected: u32,
    },
    /// Others kept the database to themselves for longer than the limit.
    #[error("`{}` was kept busy by other processes for {} s; see who holds it with `fuser`, or allow more time", file.display(), waited.as_secs())]
    Busy {
        /// The database or lock file.
        file: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The database cannot be switched to the wanted way of making transactions atomic.
    #[error("database `{}` stays in journal mode `{found}`: expected `{expected}`; a write-ahead log needs a local file \
        system, else set `use-sqlite-wal` to false for all users of the store", database.display())]
    JournalMode {
        /// The file.
        database: PathBuf,
        /// The mode that was asked for.
        expected: &'static str,
        /// The mode that it is in.
        found: String,
    },
    /// A writer stopped in the middle of a transaction, or is in one now, and the store cannot be written here.
    ///
    /// Read all the same, the database would show half of that transaction.
    #[error("journal `{}` holds an unfinished transaction; open the store once for writing, which rolls it back", journal.display())]
    HotJournal {
        /// The journal file.
        journal: PathBuf,
    },
    /// The files of a database that is read without locks changed again and again while they were read.
    #[error("database `{}` keeps changing while it is read and gives no shared memory to coordinate with; \
        stop the writer, or let this process read the `-shm` file", database.display())]
    Changing {
        /// The file.
        database: PathBuf,
    },
    /// The database changed while its paths were being visited, and is read in a way that does not keep its old state.
    ///
    /// Read on all the same, rows of different times would be mixed.
    #[error("database `{}` changed while its paths were visited; visit them again, \
        and ask about them only once all were shown", database.display())]
    ChangedDuringVisit {
        /// The file.
        database: PathBuf,
    },
    /// This process writes the database, and its shared memory cannot be used to read it as well.
    ///
    /// Read without that memory, the locks of the connection that writes would be lost as soon as the file is closed.
    #[error("database `{}` is open for writing in this process, and its shared memory cannot be used for reading; \
        ask the one that is open for writing", database.display())]
    OpenInThisProcess {
        /// The file.
        database: PathBuf,
    },
    /// This process began to read the database before it was opened for writing, and still does.
    ///
    /// SQLite shares the log's index within a process, and has it as the first connection opened it: for reading only.
    #[error("database `{}` cannot be written while this process reads it otherwise; close what reads it first, \
        or open it for reading after it was opened for writing", database.display())]
    ReaderInThisProcess {
        /// The file.
        database: PathBuf,
    },
    /// A write was asked of a database that was opened for reading.
    #[error("database `{}` is open for reading only", database.display())]
    ReadOnly {
        /// The file.
        database: PathBuf,
    },
    /// The system refused a file operation.
    #[error("{operation} `{}`", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// SQLite refused an operation.
    #[error("{operation} the database `{}`", database.display())]
    Sqlite {
        /// What was being done.
        operation: &'static str,
        /// In which file.
        database: PathBuf,
        /// What went wrong.
        #[source]
        source: rusqlite::Error,
    },
    /// No daemon can be reached at a socket.
    #[error("cannot connect to the Nix daemon at `{}`; start it, or give its socket in the store URL: unix:///path/of/the/socket",
        socket.display())]
    DaemonUnreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A daemon was silent for longer than the limit.
    #[error("the Nix daemon at `{}` was silent for {} s; it may be waiting for a lock that another process holds",
        socket.display(), waited.as_secs())]
    DaemonSilent {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// A conversation with a daemon broke, or what listens on the socket is no daemon.
    #[error("asking the Nix daemon at `{}`", socket.display())]
    Daemon {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<superpose_worker_protocol::Error>,
    },
    /// A daemon answered a question with an error.
    #[error("the Nix daemon at `{}` does not tell {question}; it says: {found}", socket.display())]
    DaemonReport {
        /// The socket.
        socket: PathBuf,
        /// What it was asked for.
        question: String,
        /// What it says, without colours.
        found: String,
    },
    /// A function that the caller passed in failed.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an error of a caller's own function, so that it passes through an operation of this crate.
    pub fn caller(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Caller(error.into())
    }
}
