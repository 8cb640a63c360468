// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of the upper layer behind the mount that take nothing away: whiteouts over valid objects go, bad objects make
//! room for good ones.
//!
//! Like a removal, such a change owes a remount from its first effect on, and says so in the journal before.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags};
use superpose_store_path::StorePath;

use super::Store;
use super::removal::Removal;
use super::trash::Trash;
use crate::crash::CrashPoint;
use crate::journal::{Intent, Journal, Moved, State, Via};
use crate::upper_layer::Entry;
use crate::{Error, Result};

impl Store {
    /// Changes the layer behind the mount, and makes the mount fresh, once. The journal is idle.
    ///
    /// # Errors
    /// What `change` fails with, and a remount that fails: the remount stays owed then.
    pub(super) fn change_behind(
        &self,
        journal: &mut Journal,
        intent: &Intent,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<Removal> {
        self.require_refreshable()?;
        journal.begin(intent)?;
        self.options.crash_points.reached(CrashPoint::IntentWritten);
        change()?;
        let mut removal = Removal::default();
        self.complete(journal, intent, &mut removal, None)?;
        Ok(removal)
    }

    /// Removes whiteouts, so that what lies below shows again, and does `more` under the same intent. Returns those that
    /// were still whiteouts: where somebody has put an object since they were found, that stays.
    pub(super) fn uncover(
        &self,
        journal: &mut Journal,
        hidden: Vec<StorePath>,
        more: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<StorePath>> {
        let below = self.overlay()?;
        let trash = Trash::locate(&self.state, &below.upper)?;
        let hidden = self.whiteouts_of(hidden)?;
        let moves: Vec<Moved> = hidden
            .iter()
            .map(|path| Moved {
                name: path.base_name().as_bytes().to_vec(),
                trash: trash.name_for(path),
                via: Via::UpperLayer,
            })
            .collect();
        // No object is linked; but a remount is owed.
        let intent = match moves.is_empty() {
            true => Intent::Linking(Vec::new()),
            false => Intent::Deduplication(moves),
        };
        self.change_behind(journal, &intent, || {
            more()?;
            self.move_out(intent.moves(), Some(&trash))
        })?;
        for moved in intent.moves() {
            // Nobody uses a whiteout. One that resists is found by whoever empties the trash.
            let name = OsStr::from_bytes(&moved.trash);
            if let Err(error) = superpose_nar::remove_tree(trash.directory(below.upper.fd()), name) {
                tracing::debug!(%error, "a removed whiteout stays in the trash");
            }
        }
        Ok(hidden)
    }

    /// Those of the paths over which there is a whiteout now.
    fn whiteouts_of(&self, mut paths: Vec<StorePath>) -> Result<Vec<StorePath>> {
        let upper = &self.overlay()?.upper;
        let mut failure = None;
        paths.retain(|path| match upper.entry(OsStr::new(path.base_name())) {
            Ok(entry) => entry == Entry::Whiteout,
            Err(error) => {
                failure.get_or_insert(error);
                false
            }
        });
        failure.map_or(Ok(paths), Err)
    }

    /// Removes whiteouts of the upper layer, so that what lies below under these names shows again.
    ///
    /// The locks on the paths may be held, and so the collector's lock must not be waited for: that of the journal is
    /// enough for what touches nothing but these whiteouts.
    pub(super) fn unhide(&self, paths: &[StorePath]) -> Result<()> {
        let Some(below) = &self.below else { return Ok(()) };
        let hidden = self.whiteouts_of(paths.to_vec())?;
        if hidden.is_empty() {
            return Ok(());
        }
        let own = self.state.create_own()?;
        let (mut journal, state) = Journal::open(own.path(), self.options.wait())?;
        if state == State::Idle {
            return self.uncover(&mut journal, hidden, || Ok(())).map(drop);
        }
        // Something was interrupted that could not be finished when the store was opened. What it says must stay, and
        // nearly always it owes a remount as well.
        for path in self.whiteouts_of(hidden)? {
            let name = path.base_name();
            fs::unlinkat(below.upper.fd(), name, AtFlags::empty()).map_err(|source| {
                Error::io("remove a whiteout from", below.upper.path().join(name), source)
            })?;
        }
        self.refresh_mount()
    }
}
