// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections for reading and writing, set up as Nix does.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, FileControl, MAIN_DB, OpenFlags};
use rustix::fs::Access;

use super::big_lock::BigLock;
use super::busy::{SQLITE_SLICE, retry};
use super::fault::explain;
use super::files::{Files, io_error};
use super::options::{JournalMode, MetadataSync, OpenDatabase};
use super::{reserved, schema, schema_file};
use crate::{Error, Result};

/// Statements kept prepared. There are about thirty in all.
const STATEMENTS: usize = 48;

/// Pages after which the write-ahead log is copied into the database; Nix's value.
const CHECKPOINT_PAGES: u32 = 40_000;

/// Length to which the write-ahead log is cut after a checkpoint, in bytes; Nix's value, in effect none.
const LOG_SIZE_LIMIT: u64 = 1 << 40;

/// The locking of databases that do without a write-ahead log.
const LOCK_FILES: &str = "unix-dotfile";

/// Opens a store's database for reading and writing, making it if there is no store yet.
///
/// The order is that of Nix: ballast, big lock, schema, database.
pub(super) fn open_read_write(files: &Files, options: &OpenDatabase) -> Result<(Connection, BigLock)> {
    rustix::fs::access(&files.dir, Access::READ_OK | Access::WRITE_OK)
        .map_err(|error| io_error("checking for read and write permission on", &files.dir)(error.into()))?;
    reserved::ensure(files, options.reserved_space);
    let lock = BigLock::shared(files, options.busy_limit)?;
    let schema = schema_file::read(files)?;
    if let Some(found) = schema {
        schema_file::check_writable(files, found)?;
    }
    let mut connection = connect(files, options, schema.is_none())?;
    let fail = |error| explain(&files.database, "setting up", error);
    let expected = journal_mode(options);
    let found = retry(&files.database, options.busy_limit, || {
        set_up(&connection, options, expected).map_err(fail)
    })?;
    if found != expected {
        return Err(Error::JournalMode {
            database: files.database.clone(),
            expected,
            found,
        });
    }
    if schema.is_none() {
        retry(&files.database, options.busy_limit, || {
            schema::create(&mut connection).map_err(fail)
        })?;
        schema_file::write(files)?;
    }
    Ok((connection, lock))
}

fn connect(files: &Files, options: &OpenDatabase, create: bool) -> Result<Connection> {
    let mut flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let uri = uri(&files.database, "immutable=0");
    let opened = match options.journal_mode {
        JournalMode::Wal => Connection::open_with_flags(uri, flags),
        JournalMode::Truncate => Connection::open_with_flags_and_vfs(uri, flags, LOCK_FILES),
    };
    opened.map_err(|error| {
        if !create && matches!(files.database.try_exists(), Ok(false)) {
            Error::MissingDatabase {
                database: files.database.clone(),
            }
        } else {
            explain(&files.database, "opening", error)
        }
    })
}

/// Returns SQLite's name of the wanted mode.
fn journal_mode(options: &OpenDatabase) -> &'static str {
    match options.journal_mode {
        JournalMode::Wal => "wal",
        JournalMode::Truncate => "truncate",
    }
}

/// Sets up a connection and returns the journal mode that it is in then.
/// Sets how much memory the connection's cache of pages may take, in KiB.
pub(super) fn set_cache_size(connection: &Connection, kibibytes: u32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -i64::from(kibibytes))
}

fn set_up(connection: &Connection, options: &OpenDatabase, journal_mode: &str) -> rusqlite::Result<String> {
    connection.busy_timeout(SQLITE_SLICE.min(options.busy_limit))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    set_cache_size(connection, options.cache_size)?;
    // The cascades are part of what deleting a path means.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    connection.execute_batch(match options.sync {
        MetadataSync::Normal => "PRAGMA synchronous = normal",
        MetadataSync::Off => "PRAGMA synchronous = off",
    })?;
    let mut mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
    if mode != journal_mode {
        let switch = format!("PRAGMA main.journal_mode = {journal_mode}");
        mode = connection.query_row(&switch, [], |row| row.get(0))?;
    }
    if options.journal_mode == JournalMode::Wal {
        connection.execute_batch(&format!(
            "PRAGMA journal_size_limit = {LOG_SIZE_LIMIT}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"
        ))?;
        // Readers that may not make the log's files need them to stay.
        connection.file_control(Some(MAIN_DB), FileControl::PersistWal(&mut 1))?;
    }
    Ok(mode)
}

/// Prepares a connection for reading only.
pub(super) fn set_up_reading(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(SQLITE_SLICE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Closing must not copy the log into a database that is not ours.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Nor need we trust whoever made it: a view in place of a table could run for ever.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(())
}

/// Makes the URI of a database file. Every byte that could mean something is encoded.
pub(super) fn uri(database: &Path, parameters: &str) -> String {
    let mut uri = String::from("file://");
    for &byte in database.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02X}").expect("writing to a string succeeds");
        }
    }
    uri.push('?');
    uri.push_str(parameters);
    uri
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn uris_hide_what_could_mean_something() {
        let check = |path: &[u8], expected: &str| {
            assert_eq!(uri(Path::new(OsStr::from_bytes(path)), "a=1"), expected)
        };
        check(b"/a/db.sqlite", "file:///a/db.sqlite?a=1");
        check(b"/a b/?#%+&", "file:///a%20b/%3F%23%25%2B%26?a=1");
        check(b"/\xff", "file:///%FF?a=1");
    }
}
