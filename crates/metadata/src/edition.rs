// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tells whether answers that were kept are still right.

use std::sync::atomic::{AtomicU64, Ordering};

/// The state that a source was in when it was asked for it.
///
/// Two equal editions were told by the same opened source with no change in between. The reverse does not hold: another
/// connection to the same rows has other editions, and so has the same one after it was opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition(Vec<Part>);

/// The edition of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which connection tells it: what it counts means nothing to others.
    pub(crate) connection: u64,
    /// Moves when others commit.
    pub(crate) by_others: i64,
    /// Moves when the connection itself changes a row.
    pub(crate) by_itself: u64,
}

impl Edition {
    pub(crate) fn of(part: Part) -> Self {
        Self(vec![part])
    }

    /// The edition of two sources seen as one.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// Returns a number that no other connection of this process has.
pub(crate) fn next_connection() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
