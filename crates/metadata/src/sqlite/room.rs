// SPDX-License-Identifier: MIT OR Apache-2.0
//! More memory for large batches.

use rusqlite::Connection;

/// Batches of fewer paths than this do with SQLite's default cache.
const LARGE: usize = 500;

/// Size of the cache during a large batch, negative and in KiB as SQLite has it: what 10,000 paths and their references
/// fill. It is an upper bound, not taken at once.
const LARGE_CACHE: i64 = -32768;

const CACHE_SIZE: &str = "cache_size";

/// A cache that is large enough for what is being done, until this is dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    connection: &'a Connection,
    /// How large the cache was before, if it was made larger.
    before: Option<i64>,
}

impl<'a> Room<'a> {
    /// Makes room for work on that many paths. Within larger work it leaves things to the room that there is already, which
    /// would otherwise be lost together with this one.
    pub(super) fn for_paths(connection: &'a Connection, paths: usize) -> Self {
        let mut room = Self {
            connection,
            before: None,
        };
        room.grow(paths);
        room
    }

    /// Makes room for more paths than were thought of.
    pub(super) fn grow(&mut self, paths: usize) {
        if self.before.is_none()
            && paths >= LARGE
            && let Ok(before) = cache_size(self.connection)
            && before > LARGE_CACHE
        {
            self.before = Some(before);
            self.set(LARGE_CACHE);
        }
    }

    fn set(&self, size: i64) {
        if let Err(error) = self.connection.pragma_update(None, CACHE_SIZE, size) {
            tracing::debug!(%error, "cannot change the size of the cache");
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            self.set(before);
        }
    }
}

fn cache_size(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, CACHE_SIZE, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_room_lasts() {
        let connection = Connection::open_in_memory().expect("memory can be had");
        const SMALL_CACHE: i64 = -1234;
        connection
            .pragma_update(None, CACHE_SIZE, SMALL_CACHE)
            .expect("it takes any size");
        let size = || cache_size(&connection).ok();
        {
            let mut outer = Room::for_paths(&connection, LARGE - 1);
            assert_eq!(size(), Some(SMALL_CACHE));
            outer.grow(LARGE);
            assert_eq!(size(), Some(LARGE_CACHE));
            drop(Room::for_paths(&connection, LARGE));
            drop(Room::for_paths(&connection, 1));
            assert_eq!(size(), Some(LARGE_CACHE), "inner ones change nothing");
        }
        assert_eq!(size(), Some(SMALL_CACHE));
    }
}
