// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doing the rest of what a process that is gone had begun.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use superpose_metadata::MetadataSource;
use superpose_store_path::{HashPart, StorePath};

use super::Store;
use super::removal::Removal;
use super::trash::Trash;
use crate::journal::{Intent, Journal, Moved, State, Via};
use crate::roots::Stale;
use crate::{Result, temp_roots};

impl Store {
    /// Opens the journal for something that is about to begin, and does the rest of what it says first. The caller holds
    /// the collector's lock.
    pub(super) fn idle_journal(&self) -> Result<Journal> {
        let own = self.state.create_own()?;
        let (mut journal, state) = Journal::open(own.path(), self.options.wait())?;
        if let State::Interrupted(intent) = state {
            self.finish(&mut journal, &intent)?;
        }
        Ok(journal)
    }

    /// Does the rest of what a process that is gone had begun. The caller holds the collector's lock.
    ///
    /// Every step is one that may have been made already, so that a replay that is interrupted is replayed.
    pub(super) fn finish(&self, journal: &mut Journal, intent: &Intent) -> Result<()> {
        let grown;
        let intent = match intent {
            Intent::Removal(moves) => {
                let trash = Trash::locate(&self.state, &self.overlay()?.upper)?;
                grown = Intent::Removal(self.over_grown(moves, &trash)?);
                self.move_rest(grown.moves(), &trash)?;
                &grown
            }
            // What was not moved stays, and is valid.
            Intent::Deduplication(_) => intent,
            Intent::Linking(objects) => {
                self.mend_linked(objects)?;
                self.complete_linking(journal)?;
                tracing::info!("finished what was interrupted");
                return Ok(());
            }
        };
        let mut removal = Removal::default();
        self.complete(journal, intent, &mut removal, None)?;
        self.empty_trash(&mut removal, None)?;
        tracing::info!("finished what was interrupted");
        Ok(())
    }

    /// The same moves over the lower store as it is now. It may have grown since they were planned; what it has by now must
    /// leave behind the mount, or the kernel would leave a whiteout over it, or refuse.
    ///
    /// Of all of them, those that were made before included: if the last replay came no further, the remount for it is owed.
    fn over_grown(&self, moves: &[Moved], trash: &Trash) -> Result<Vec<Moved>> {
        let below = self.overlay()?;
        let mut moves = moves.to_vec();
        for moved in moves.iter_mut().filter(|moved| moved.via == Via::MergedView) {
            if below.lies_below(OsStr::from_bytes(&moved.name))?
                && let Ok(path) = StorePath::from_base_name(&moved.name)
            {
                moved.via = Via::UpperLayer;
                // A new name: the other one is one for the layer.
                moved.trash = trash.name_for(&path);
            }
        }
        Ok(moves)
    }

    /// Moves the rest of what was to be removed: what has no row. An object whose row is there was not deleted, or was
    /// added again since; one that a temporary root protects is being added right now.
    fn move_rest(&self, moves: &[Moved], trash: &Trash) -> Result<()> {
        let protected: HashSet<HashPart> = temp_roots::scan(&self.state, self.dir(), Stale::Report)?
            .roots
            .iter()
            .map(|root| root.path.hash_part())
            .collect();
        let named: Vec<(&Moved, StorePath)> = moves
            .iter()
            .filter_map(|moved| Some((moved, StorePath::from_base_name(&moved.name).ok()?)))
            .collect();
        let paths: Vec<StorePath> = named.iter().map(|(_, path)| path.clone()).collect();
        let known = self.database.are_valid(&paths)?;
        let left: Vec<Moved> = named
            .into_iter()
            .zip(known)
            .filter(|((_, path), known)| !known && !protected.contains(&path.hash_part()))
            .map(|((moved, _), _)| moved.clone())
            .collect();
        self.move_out(&left, Some(trash))
    }

    /// Gives objects in which files were replaced by links the metadata of store objects again: a directory in which
    /// that was interrupted has another modification time, and may be writable.
    fn mend_linked(&self, objects: &[Vec<u8>]) -> Result<()> {
        let layer = self.layer();
        for name in objects {
            let name = OsStr::from_bytes(name);
            let is_object = layer
                .stat(name)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice);
            if is_object {
                superpose_nar::canonicalise(layer.fd, name)?;
            }
        }
        Ok(())
    }
}
