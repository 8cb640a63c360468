// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two connections that see one state of the database, so that two threads can read it.

use rusqlite::{Connection, OpenFlags};

use super::connection::uri;
use super::database::Database;
use super::read::Reader;
use crate::Result;

/// How often the state is sought: somebody may commit in between.
const ATTEMPTS: u32 = 3;

/// Changes whenever somebody else has committed since this connection looked last. To look at it begins to read.
const DATA_VERSION: &str = "data_version";

/// A database of at most so many bytes is looked at where the system has it, and not copied page by page. Nothing that is
/// mapped can go while a reader of a database with a log is at work: the log is not written over what he sees. A larger
/// one would count as memory of the process.
const MOST_MAPPED: u64 = 128 << 20;

impl Database {
    /// Asks something of two connections in the same state of the database; the second one is for another thread.
    ///
    /// `None`, and nothing was asked, where that is not to be had: in a database that is read only or has no log, within a
    /// transaction, or if others commit all the time.
    ///
    /// # Errors
    /// Those of the question.
    pub(super) fn read_by_two<T>(
        &self,
        ask: impl FnOnce(&Reader<'_>, Connection) -> Result<T>,
    ) -> Result<Option<T>> {
        let Ok((connection, database)) = self.writable() else {
            return Ok(None);
        };
        if !connection.is_autocommit() {
            return Ok(None);
        }
        let uri = uri(database, "immutable=0");
        for _ in 0..ATTEMPTS {
            match second_in_state_of(connection, &uri) {
                Ok(Some(second)) => {
                    let answer = ask(&self.reader(connection), second);
                    end(connection);
                    map(connection, 0);
                    return answer.map(Some);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "no second connection: one is enough");
                    break;
                }
            }
            end(connection);
        }
        end(connection);
        map(connection, 0);
        Ok(None)
    }
}

/// Begins to read with this connection and with a second one; `None` if they may not see the same, and then the first one
/// reads still.
fn second_in_state_of(first: &Connection, uri: &str) -> rusqlite::Result<Option<Connection>> {
    if first.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))? != "wal" {
        // With other ways to lock, readers keep each other out.
        return Err(rusqlite::Error::InvalidQuery);
    }
    let size = std::fs::metadata(first.path().unwrap_or_default()).map_or(0, |found| found.len());
    let mapped = if size <= MOST_MAPPED { MOST_MAPPED } else { 0 };
    map(first, mapped);
    let before = data_version(first)?;
    let second = begin_second(uri, mapped)?;
    // What the second one sees lies between the two states of the first one, which are the same.
    Ok(begins_at(first, before)?.then_some(second))
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, DATA_VERSION, |row| row.get(0))
}

fn begin_second(uri: &str, mapped: u64) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let second = Connection::open_with_flags(uri, flags)?;
    map(&second, mapped);
    second.execute_batch("BEGIN")?;
    data_version(&second)?;
    Ok(second)
}

/// Begins to read, and tells whether that is still what was seen before.
fn begins_at(connection: &Connection, before: i64) -> rusqlite::Result<bool> {
    connection.execute_batch("BEGIN")?;
    Ok(data_version(connection)? == before)
}

/// Maps so much of the database from the next question on; it is only faster.
fn map(connection: &Connection, bytes: u64) {
    if let Err(error) = connection.pragma_update(None, "mmap_size", bytes.cast_signed()) {
        tracing::debug!(%error, "cannot map the database");
    }
}

/// Ends a transaction that only read, if one is running. It has nothing to lose.
fn end(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::debug!(%error, "cannot end reading");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenDatabase;
    use superpose_store_path::StoreDir;

    fn count(connection: &Connection) -> i64 {
        let count = "SELECT count(*) FROM ValidPaths";
        connection
            .query_row(count, [], |row| row.get(0))
            .expect("a count")
    }

    fn add_row(connection: &Connection, number: u32) {
        let insert = "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?1, '', 0)";
        connection.execute(insert, [number.to_string()]).expect("a row");
    }

    #[test]
    fn both_see_the_same_whatever_is_committed_meanwhile() {
        let top = tempfile::tempdir().expect("a directory");
        let options = OpenDatabase::read_write(top.path(), StoreDir::default());
        let ours = Database::open(&options).expect("a database");
        let theirs = Database::open(&options).expect("the same");
        add_row(theirs.writable().expect("it is").0, 1);
        let answer = ours.read_by_two(|reader, second| {
            add_row(theirs.writable().expect("it is").0, 2);
            Ok((count(reader.connection), count(&second)))
        });
        assert_eq!(answer.expect("an answer"), Some((1, 1)));
        let answer = ours.read_by_two(|reader, second| Ok((count(reader.connection), count(&second))));
        assert_eq!(answer.expect("an answer"), Some((2, 2)), "the state was left");
    }

    #[test]
    fn a_commit_in_between_is_noticed() {
        let top = tempfile::tempdir().expect("a directory");
        let ours =
            Database::open(&OpenDatabase::read_write(top.path(), StoreDir::default())).expect("a database");
        let connection = ours.writable().expect("it is").0;
        let uri = uri(ours.file(), "immutable=0");
        for is_committed in [false, true] {
            let before = data_version(connection).expect("it can be read");
            let second = begin_second(&uri, 0).expect("it opens");
            if is_committed {
                add_row(&Connection::open(ours.file()).expect("it opens"), 1);
            }
            assert_eq!(begins_at(connection, before), Ok(!is_committed));
            assert_eq!((count(connection), count(&second)), (i64::from(is_committed), 0));
            end(connection);
        }
    }
}
