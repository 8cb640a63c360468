// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the caller sees of long work, and how the caller stops it.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// What long work is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doing {
    /// Objects are hashed.
    Hashing,
    /// Objects of two layers are compared.
    Comparing,
    /// Objects are searched for identical files.
    Searching,
    /// Identical files become links.
    Linking,
    /// Objects are moved out of the layer and unlinked.
    Deleting,
    /// Objects are brought from another store.
    Copying,
    /// Objects are replaced by good ones.
    Repairing,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::Hashing => "hashing objects",
            Doing::Comparing => "comparing objects",
            Doing::Searching => "searching objects",
            Doing::Linking => "linking files",
            Doing::Deleting => "deleting objects",
            Doing::Copying => "copying objects",
            Doing::Repairing => "repairing objects",
        })
    }
}

/// How far long work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub doing: Doing,
    /// How many objects are done.
    pub done: u64,
    /// How many there are.
    pub all: u64,
    /// Bytes that were read, written or freed so far.
    pub bytes: u64,
    /// How many bytes there are, where that is known.
    pub all_bytes: Option<u64>,
}

impl Progress {
    /// Nothing is done yet of `all` objects.
    #[must_use]
    pub fn new(doing: Doing, all: u64) -> Self {
        Progress {
            doing,
            done: 0,
            all,
            bytes: 0,
            all_bytes: None,
        }
    }
}

/// Somebody who watches long work. The functions are called often, by several threads, and must be quick.
pub trait Watcher: fmt::Debug + Send + Sync {
    /// Is told how far the work has come.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }

    /// Says whether the work is to stop. It stops where the store is whole, so not always at once.
    fn wants_to_stop(&self) -> bool {
        false
    }
}

/// The watcher of a store, if it has one.
#[derive(Debug, Clone, Default)]
pub struct Watch(Option<Arc<dyn Watcher>>);

impl Watch {
    /// Lets `watcher` watch.
    #[must_use]
    pub fn new(watcher: Arc<dyn Watcher>) -> Self {
        Watch(Some(watcher))
    }

    /// Tells how far the work has come.
    pub fn progress(&self, progress: &Progress) {
        if let Some(watcher) = &self.0 {
            watcher.progress(progress);
        }
    }

    /// Whether the work is to stop; for loops of several threads that end by themselves.
    #[must_use]
    pub fn wants_to_stop(&self) -> bool {
        self.0.as_ref().is_some_and(|watcher| watcher.wants_to_stop())
    }

    /// Stops the work if the caller wants it. To be called where the store is whole.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn go_on(&self) -> Result<()> {
        if self.wants_to_stop() {
            return Err(Error::Stopped);
        }
        Ok(())
    }
}
