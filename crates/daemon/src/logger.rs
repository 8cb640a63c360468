// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the client is told while something goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use superpose_worker_protocol::{
    Activity, ActivityResult, ActivityType, Field, Level, LogFrame, ResultType, Version,
};

use crate::stream::SharedOut;

/// Tells the client of one connection what goes on. Cheap to clone; all clones tell the same client.
///
/// Only while a request is in work: in between a client expects nothing. That something cannot be told is no error here:
/// the reply finds out.
#[derive(Debug, Clone)]
pub(crate) struct Logger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    out: SharedOut,
    version: Version,
    /// The number of the level up to which texts are wanted.
    verbosity: AtomicU64,
    next: AtomicU64,
}

impl Logger {
    pub(crate) fn new(out: SharedOut, version: Version) -> Self {
        // As Nix numbers them: several sources on one connection have several process ids.
        let first = (u64::from(std::process::id()) << 32) + 1;
        Self(Arc::new(Inner {
            out,
            version,
            verbosity: AtomicU64::new(Level::Info.number()),
            next: AtomicU64::new(first),
        }))
    }

    /// Tells from now on what the client wants to hear.
    pub(crate) fn set_verbosity(&self, verbosity: Level) {
        self.0.verbosity.store(verbosity.number(), Ordering::Relaxed);
    }

    /// Tells a text, without a newline at its end, if the client wants to hear of such things.
    pub(crate) fn message(&self, level: Level, text: &str) {
        // Clients print whatever comes: what they do not want to hear is left out here.
        if level.number() <= self.0.verbosity.load(Ordering::Relaxed) {
            self.frame(&LogFrame::Next(format!("{text}\n").into_bytes()));
        }
    }

    /// Begins something; it ends when what is returned is dropped.
    pub(crate) fn start(&self, level: Level, kind: ActivityType, text: &str, fields: Vec<Field>) -> Running {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.frame(&LogFrame::StartActivity(Activity {
            id,
            level,
            kind,
            text: text.as_bytes().to_vec(),
            fields,
            parent: 0,
        }));
        Running {
            logger: self.clone(),
            id,
        }
    }

    /// Passes a frame on at once.
    pub(crate) fn frame(&self, frame: &LogFrame) {
        let mut out = self.0.out.lock();
        let told = frame.write(&mut out, self.0.version).and_then(|()| out.flush());
        if let Err(error) = told {
            tracing::debug!(%error, "a client cannot be told what goes on");
        }
    }
}

/// Something that goes on.
#[derive(Debug)]
#[must_use = "it ends when this is dropped"]
pub(crate) struct Running {
    logger: Logger,
    id: u64,
}

impl Running {
    /// Tells how far it is, unless the client has no room for it: one that is in the middle of an upload reads nothing until
    /// what it sends is taken, and who waited for it would take nothing.
    pub(crate) fn progress(&self, done: u64, expected: u64) {
        if !self.logger.0.out.lock().get_ref().get_ref().has_room() {
            return;
        }
        let fields = [done, expected, 0, 0].map(Field::Number);
        self.result(ResultType::Progress, fields.to_vec());
    }

    /// Tells news of it.
    pub(crate) fn result(&self, kind: ResultType, fields: Vec<Field>) {
        self.logger.frame(&LogFrame::Result(ActivityResult {
            id: self.id,
            kind,
            fields,
        }));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.logger.frame(&LogFrame::StopActivity(self.id));
    }
}
