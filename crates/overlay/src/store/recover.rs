// SPDX-License-Identifier: MIT OR Apache-2.0
//! What opening a store for writing does first: the rest of what processes that are gone had begun.

use std::collections::{BTreeSet, HashSet};
use std::error::Error as StdError;
use std::ffi::OsStr;

use superpose_metadata::MetadataSource;
use superpose_store_path::{HashPart, StorePath};

use super::Store;
use super::open::Leftovers;
use super::removal::Leaving;
use crate::flock::LockWait;
use crate::gc_lock::CollectorLock;
use crate::journal::{Journal, State};
use crate::roots::Stale;
use crate::state_dir::OWN;
use crate::temp_roots::{Abandoned, Listener};
use crate::upper_layer::Entry;
use crate::{Error, Result, random, temp_roots};

impl Store {
    /// Finishes what the journal says, and undoes additions that were interrupted.
    ///
    /// # Errors
    /// If the journal is damaged. That the rest cannot be done now (the remount is not permitted, the hook fails, a
    /// tree resists) is logged and stays owed: what is valid is there in any case, and a store that does not open
    /// helps nobody.
    pub(super) fn recover(&mut self) -> Result<()> {
        self.replay_journal()?;
        if let Err(error) = self.undo_additions() {
            tracing::warn!(
                error = &error as &dyn StdError,
                "what an addition that was interrupted has left is not removed"
            );
        }
        Ok(())
    }

    fn replay_journal(&self) -> Result<()> {
        let own = self.state.path().join(OWN);
        if !matches!(Journal::peek(&own)?, State::Interrupted(_)) {
            return Ok(());
        }
        let _lock = self.collector_lock()?;
        let (mut journal, state) = Journal::open(&own, self.options.wait())?;
        if let State::Interrupted(intent) = state
            && let Err(error) = self.finish(&mut journal, &intent)
        {
            tracing::warn!(
                error = &error as &dyn StdError,
                "a deletion that was interrupted is not finished: removed objects may read as they were"
            );
        }
        Ok(())
    }

    /// Removes what processes that were killed left of objects that they were adding.
    ///
    /// Their temporary roots name it. It is garbage, which any collector removes; but a store that is never collected
    /// need not keep it. Where a collector is at work, it is left to that one.
    fn undo_additions(&mut self) -> Result<()> {
        let abandoned = temp_roots::take_up(&self.state, self.dir())?;
        if abandoned.is_empty() {
            return Ok(());
        }
        let lock = match CollectorLock::acquire(&self.state, LockWait::Never, &mut |_| {}) {
            Ok(lock) => lock,
            Err(Error::LockHeld { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let listener = Listener::start(lock, &self.state, self.dir())?;
        let named = self.made_by(&abandoned);
        let dead: Vec<&str> = abandoned.iter().map(Abandoned::owner).collect();
        let left = self.unregistered(named.into_iter().collect(), &dead)?;
        if !left.is_empty() {
            // Somebody else wants one of them at this very moment: the next one who opens the store looks again.
            if !listener.seal(0, left.iter().map(StorePath::hash_part).collect()) {
                return Ok(());
            }
            self.remove(&Leaving {
                objects: &left,
                junk: &[],
                rows: &[],
                listener: &listener,
                waiting: None,
            })?;
            tracing::info!(
                objects = left.len(),
                "removed what an interrupted addition had left"
            );
        }
        abandoned
            .into_iter()
            .try_for_each(|abandoned| abandoned.remove(&self.state))
    }

    /// The names under which dead processes may have left something of their own making.
    ///
    /// Not all that a process protects it makes: what is registered, was put there by somebody else. But nothing is made
    /// that did not have a scratch name first.
    fn made_by(&self, abandoned: &[Abandoned]) -> BTreeSet<StorePath> {
        let mut made = BTreeSet::new();
        for abandoned in abandoned {
            let has_added = abandoned.paths.iter().any(random::is_scratch);
            for path in &abandoned.paths {
                let is_made = match self.options.leftovers {
                    Leftovers::Remove => has_added,
                    Leftovers::KeepObjects => random::is_scratch(path),
                };
                made.extend(is_made.then(|| path.clone()));
                made.extend(lock_of(path));
            }
        }
        made
    }

    /// Those of `paths` that are in the layer, valid nowhere, and protected by nobody but the `dead`: neither an object
    /// nor on its way to be one.
    fn unregistered(&self, paths: Vec<StorePath>, dead: &[&str]) -> Result<Vec<StorePath>> {
        // In this order: whoever adds one of them protects it until its row is there, and may end right then.
        let protected: HashSet<HashPart> = temp_roots::scan(&self.state, self.dir(), Stale::Report)?
            .roots
            .iter()
            .filter(|root| !dead.contains(&root.owner.as_str()))
            .map(|root| root.path.hash_part())
            .collect();
        let valid = self.metadata().are_valid(&paths)?;
        let mut left = Vec::new();
        for (path, valid) in paths.into_iter().zip(valid) {
            if !valid && !protected.contains(&path.hash_part()) && self.is_in_layer(&path)? {
                left.push(path);
            }
        }
        Ok(left)
    }

    fn is_in_layer(&self, path: &StorePath) -> Result<bool> {
        match &self.below {
            Some(below) => Ok(below.upper.entry(OsStr::new(path.base_name()))? == Entry::Object),
            None => self.exists(path),
        }
    }
}

/// The name of the file that is locked by whoever adds the path, as a store path.
fn lock_of(path: &StorePath) -> Option<StorePath> {
    StorePath::from_base_name(format!("{path}.lock").as_bytes()).ok()
}
