// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for other users of a store, but not for ever.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fault::is_busy;
use crate::{Error, Result};

/// How long SQLite itself waits for a lock. Short, so that the limit is kept and waiting is reported.
pub(super) const SQLITE_SLICE: Duration = Duration::from_secs(1);

/// How often waiting is reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Pause before something is tried again that failed at once.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs `attempt` until it gives something, fails otherwise than for being busy, or `limit` has passed.
pub(super) fn until<T>(
    file: &Path,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut next_report = SQLITE_SLICE;
    loop {
        match attempt() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(error),
        }
        let waited = start.elapsed();
        if waited >= limit {
            return Err(Error::Busy {
                file: file.to_owned(),
                waited,
            });
        }
        if waited >= next_report {
            tracing::warn!(file = %file.display(), "busy; waiting for other processes");
            next_report = waited + REPORT_EVERY;
        }
        std::thread::sleep(PAUSE.min(limit.saturating_sub(waited)));
    }
}

/// Runs `attempt` as [`until`] does, taking every success for the last one.
pub(super) fn retry<T>(file: &Path, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    until(file, limit, || attempt().map(Some))
}
