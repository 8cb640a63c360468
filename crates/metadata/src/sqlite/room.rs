// SPDX-License-Identifier: MIT OR Apache-2.0
//! More memory for large batches.

use rusqlite::Connection;

/// Batches of fewer paths than this do with SQLite's default cache.
const LARGE: usize = 500;

/// Size of the cache during a large batch, negative and in KiB as SQLite has it: what 10,000 paths and their references
/// fill. It is an upper bound, not taken at once.
const LARGE_CACHE: i64 = -32768;

/// From this many paths on a batch is one of several, as those that a server answers: they find each other's pages.
const MIDDLE: usize = 64;

/// Size of the cache that stays once there was such a batch: a database of about 25,000 paths. Of a larger one, pages are
/// read again by batches that are spread all over it: a server has a few connections, each with such a cache, and more
/// would be on the bill of all.
const MIDDLE_CACHE: i64 = -16384;

const CACHE_SIZE: &str = "cache_size";

/// A cache that is large enough for what is being done, until this is dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    connection: &'a Connection,
    is_large: bool,
    is_middle: bool,
}

impl<'a> Room<'a> {
    /// Makes room for work on that many paths. Within larger work it leaves things to the room that there is already, which
    /// would otherwise be lost together with this one.
    pub(super) fn for_paths(connection: &'a Connection, paths: usize) -> Self {
        let mut room = Self {
            connection,
            is_large: false,
            is_middle: false,
        };
        room.grow(paths);
        room
    }

    /// Makes room for more paths than were thought of.
    pub(super) fn grow(&mut self, paths: usize) {
        if self.is_large || paths < MIDDLE || (self.is_middle && paths < LARGE) {
            return;
        }
        let found = cache_size(self.connection);
        if paths >= LARGE && !matches!(found, Ok(LARGE_CACHE)) {
            self.is_large = true;
            self.set(LARGE_CACHE);
        } else if !matches!(found, Ok(LARGE_CACHE | MIDDLE_CACHE)) {
            self.set(MIDDLE_CACHE);
        }
        self.is_middle = true;
    }

    fn set(&self, size: i64) {
        if let Err(error) = self.connection.pragma_update(None, CACHE_SIZE, size) {
            tracing::debug!(%error, "cannot change the size of the cache");
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.is_large {
            self.set(MIDDLE_CACHE);
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
        let size = || cache_size(&connection).ok();
        {
            let mut outer = Room::for_paths(&connection, MIDDLE);
            assert_eq!(size(), Some(MIDDLE_CACHE));
            outer.grow(LARGE);
            assert_eq!(size(), Some(LARGE_CACHE));
            drop(Room::for_paths(&connection, LARGE));
            drop(Room::for_paths(&connection, 1));
            assert_eq!(size(), Some(LARGE_CACHE), "inner ones change nothing");
        }
        assert_eq!(size(), Some(MIDDLE_CACHE));
    }

    /// What a server asks in one batch after the other would be read again for each.
    #[test]
    fn a_batch_leaves_room_for_the_next_and_single_questions_make_none() {
        let connection = Connection::open_in_memory().expect("memory can be had");
        let size = || cache_size(&connection).ok();
        let before = size();
        drop(Room::for_paths(&connection, MIDDLE - 1));
        assert_eq!(size(), before);
        drop(Room::for_paths(&connection, MIDDLE));
        assert_eq!(size(), Some(MIDDLE_CACHE));
        drop(Room::for_paths(&connection, 1));
        assert_eq!(size(), Some(MIDDLE_CACHE));
    }
}
