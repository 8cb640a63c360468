// SPDX-License-Identifier: MIT OR Apache-2.0
//! More memory for large batches.

use rusqlite::Connection;

/// Batches of fewer paths than this do with SQLite's default cache.
const LARGE: usize = 500;

/// Size of the cache during a large batch: what 10,000 paths and their references fill. It is an upper bound, not
/// taken at once.
const LARGE_CACHE: &str = "PRAGMA cache_size = -32768";

/// SQLite's own default, 2 MB.
const SMALL_CACHE: &str = "PRAGMA cache_size = -2000";

/// A cache that is large enough for what is being done, until this is dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    connection: &'a Connection,
    is_large: bool,
}

impl<'a> Room<'a> {
    /// Makes room for work on that many paths.
    pub(super) fn for_paths(connection: &'a Connection, paths: usize) -> Self {
        let mut room = Self {
            connection,
            is_large: false,
        };
        room.grow(paths);
        room
    }

    /// Makes room for more paths than were thought of.
    pub(super) fn grow(&mut self, paths: usize) {
        if !self.is_large && paths >= LARGE {
            self.is_large = true;
            self.set(LARGE_CACHE);
        }
    }

    fn set(&self, statement: &str) {
        if let Err(error) = self.connection.execute_batch(statement) {
            tracing::debug!(%error, "cannot change the size of the cache");
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.is_large {
            self.set(SMALL_CACHE);
        }
    }
}
