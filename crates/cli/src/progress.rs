// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far long work has come, on a terminal.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::messages;

/// Redrawing more often than 20 times a second helps nobody.
const INTERVAL: Duration = Duration::from_millis(50);

/// One line that is drawn over and over, and taken away at the end. Nothing at all where there is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    doing: &'static str,
    drawn: Option<Mutex<Option<Instant>>>,
}

impl Progress {
    /// Shows progress of something, for example `"hashing"`, if there is somebody to see it.
    pub(crate) fn start(doing: &'static str, wanted: Wanted) -> Self {
        let shown = wanted == Wanted::Yes && messages::is_terminal();
        Progress {
            doing,
            drawn: shown.then(Mutex::default),
        }
    }

    /// Says that `done` of `all` is done.
    pub(crate) fn show(&self, done: usize, all: usize) {
        let Some(drawn) = &self.drawn else { return };
        let Ok(mut drawn) = drawn.try_lock() else { return };
        if drawn.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        *drawn = Some(Instant::now());
        // Lost if it cannot be written, as every message.
        write!(io::stderr(), "\r\x1b[K[{done}/{all}] {}", self.doing).ok();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            io::stderr().write_all(b"\r\x1b[K").ok();
        }
    }
}

/// Whether the user wants to see progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Yes, if there is a terminal.
    Yes,
    /// No: `--quiet`.
    No,
}
