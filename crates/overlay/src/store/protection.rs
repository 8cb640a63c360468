// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for whoever uses a store, for as long as he does.

use std::path::Path;
use std::sync::Arc;

use superpose_store_path::{StoreDir, StorePath};

use super::Store;
use crate::flock::LockWait;
use crate::state_dir::StateDir;
use crate::temp_roots::TempRoots;
use crate::watch::Watch;
use crate::{Result, roots};

/// The temporary roots of one user of a store: what is in them no collector takes, until this is dropped.
///
/// Every open store has some of its own. Who serves several users with one open store gives each of them his own and
/// lets the store work with it: [`Store::protect_with`]. Can be used by several threads, and without the store.
#[derive(Debug)]
pub struct Protection {
    pub(super) roots: TempRoots,
}

impl Protection {
    pub(super) fn new(state: &StateDir, store_dir: &StoreDir) -> Arc<Self> {
        Arc::new(Self {
            roots: TempRoots::new(state, store_dir),
        })
    }

    fn of_at_most(limit: usize, state: &StateDir, store_dir: &StoreDir) -> Arc<Self> {
        Arc::new(Self {
            roots: TempRoots::of_at_most(limit, state, store_dir),
        })
    }

    /// Protects paths. A collector that is running is waited for, or told.
    ///
    /// To be called before asking whether they are valid: a path that was valid before it was protected may be gone.
    ///
    /// # Errors
    /// [`LockHeld`](crate::Error::LockHeld) if `wait` ended before all of them were protected;
    /// [`TooManyTempRoots`](crate::Error::TooManyTempRoots) if they are more than this user may have; if the file of roots cannot
    /// be made or written.
    pub fn add(&self, paths: &[StorePath], wait: LockWait) -> Result<()> {
        self.roots.add(paths, wait, &mut |_| {
            tracing::info!("waiting for a garbage collection to end");
        })
    }
}

impl Store {
    /// Makes the protection of another user of this store, who may have so many paths protected: each is held in memory and
    /// in a file that every collector reads. Nothing is written before something is protected.
    #[must_use]
    pub fn new_protection(&self, limit: usize) -> Arc<Protection> {
        Protection::of_at_most(limit, &self.state, self.dir())
    }

    /// Lets everything that this store is about to use be protected by `protection` from now on, and returns what did it
    /// until now. It must come from [`new_protection`](Self::new_protection) of a store at the same place.
    pub fn protect_with(&mut self, protection: Arc<Protection>) -> Arc<Protection> {
        std::mem::replace(&mut self.temp_roots, protection)
    }

    /// Lets long work be watched by somebody else from now on: one open store serves several users in turn.
    pub fn watch_with(&mut self, watch: Watch) {
        self.options.watch = watch;
    }

    /// Registers a link, made or to be made by its owner, as a root: for as long as it leads into the store it keeps what it
    /// leads to. Neither it nor its target need be there yet.
    ///
    /// # Errors
    /// [`RootRefused`](crate::Error::RootRefused) if the link is relative, or its path holds a NUL; if it cannot be registered.
    pub fn add_indirect_root(&self, link: &Path) -> Result<()> {
        roots::add::add_indirect_root(&self.state, link)
    }
}
