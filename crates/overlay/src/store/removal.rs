// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking objects out of the upper layer: the one way in which anything leaves it.
//!
//! The order keeps every crash survivable, whoever opens the store next, and every reader from seeing half an object:
//!
//! 1. the rows are deleted in a transaction that is still open: it refuses here if something needs them;
//! 2. the intent is on the disk;
//! 3. the transaction is committed, and on the disk: this is the point of no return;
//! 4. the objects are renamed out of the layer, whole;
//! 5. the mount is made fresh, once;
//! 6. what was renamed within the layer is unlinked;
//! 7. the journal is closed;
//! 8. the trash is emptied of what nobody uses any more.
//!
//! A crash before 3 has done nothing, a crash after it leaves objects without rows, which any collector may remove, and
//! the intent, by which the next opening does the rest. At no moment is a path valid whose object is elsewhere: a
//! collector of stock Nix that runs in between would take such an object for garbage.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fd::BorrowedFd;
use rustix::fs;
use rustix::io::Errno;
use superpose_metadata::MetadataSource;
use superpose_nar::RemoveStats;
use superpose_store_path::{HashPart, StorePath};

use super::open::Durability;
use super::trash::{self, Trash, Waiting};
use super::{Below, Store};
use crate::crash::CrashPoint;
use crate::journal::{Intent, Journal, Moved, Via};
use crate::upper_layer::Entry;
use crate::{Error, Result};

/// What a removal did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removal {
    /// Bytes of disk blocks that were given back.
    pub(super) bytes: u64,
    /// Names that were unlinked.
    pub(super) entries: u64,
    /// Moved trees that some process still uses, or that could not be unlinked; they are unlinked later.
    pub(super) waiting: usize,
    /// Bytes that other names of unlinked files still hold.
    pub(super) still_linked: u64,
    /// Whether the mount was made fresh.
    pub(super) remounted: bool,
}

impl Removal {
    /// Counts what was unlinked, and returns how many trees have to wait: one, if this one resists. That is no failure of
    /// the removal: the tree is out of everybody's way.
    fn count(&mut self, unlinked: Result<RemoveStats>) -> usize {
        match unlinked {
            Ok(unlinked) => {
                self.bytes += unlinked.bytes_freed;
                self.still_linked += unlinked.bytes_still_linked;
                self.entries += unlinked.files + unlinked.directories;
                0
            }
            Err(error) => {
                tracing::warn!(%error, "a removed object cannot be unlinked yet");
                1
            }
        }
    }
}

impl Store {
    /// Removes objects and rows. The caller holds the collector's lock and has decided that nothing needs them.
    ///
    /// `objects` are those to take out of the layer; `rows` those to forget, which may be others.
    ///
    /// # Errors
    /// Before anything is done: when a row is still referred to, when the mount could not be made fresh afterwards,
    /// when the database or the journal cannot be written. After it: when an object cannot be moved or the mount
    /// not be made fresh; then the rows are gone, and the rest stays owed.
    pub(super) fn remove(&mut self, objects: &[StorePath], rows: &[StorePath]) -> Result<Removal> {
        if self.below.is_none() {
            return self.remove_local(objects, rows);
        }
        let mut journal = self.idle_journal()?;
        let (moves, trash) = self.plan(objects)?;
        let mut removal = Removal::default();
        if !moves.is_empty() || !rows.is_empty() {
            let intent = Intent::Removal(moves);
            if intent.owes_remount() {
                self.require_refreshable()?;
            }
            let mut transaction = self.database.begin()?;
            transaction.invalidate(rows)?;
            journal.begin(&intent)?;
            self.options.crash_points.reached(CrashPoint::IntentWritten);
            if let Err(error) = transaction.commit() {
                journal.close()?;
                return Err(error.into());
            }
            self.database.sync()?;
            self.options.crash_points.reached(CrashPoint::RowsDeleted);
            self.move_out(intent.moves(), trash.as_ref())?;
            self.complete(&mut journal, &intent, &mut removal)?;
        }
        self.empty_trash(&mut removal)?;
        Ok(removal)
    }

    /// Removes objects of a store without layers: rows first, so that what a crash leaves is garbage.
    fn remove_local(&mut self, objects: &[StorePath], rows: &[StorePath]) -> Result<Removal> {
        self.database.invalidate(rows)?;
        if self.options.durability == Durability::Synced {
            self.database.sync()?;
        }
        self.options.crash_points.reached(CrashPoint::RowsDeleted);
        let mut removal = Removal::default();
        for object in objects {
            let name = OsStr::new(object.base_name());
            let scratch = crate::random::scratch_path();
            // Renamed first: nobody ever reads a half-deleted object.
            match trash::rename(
                self.real.fd(),
                name,
                self.real.fd(),
                OsStr::new(scratch.base_name()),
            ) {
                Ok(()) => {
                    let resists =
                        removal.count(trash::unlink(self.real.fd(), OsStr::new(scratch.base_name())));
                    removal.waiting += resists;
                }
                Err(Errno::NOENT) => {}
                Err(source) => {
                    return Err(Error::io(
                        "move out of the store",
                        self.real.path().join(name),
                        source,
                    ));
                }
            }
            self.options.crash_points.reached(CrashPoint::TreeUnlinked);
        }
        Ok(removal)
    }

    /// Decides through which directory each object leaves.
    fn plan(&self, objects: &[StorePath]) -> Result<(Vec<Moved>, Option<Trash>)> {
        let below = self.overlay()?;
        let mut moves = Vec::with_capacity(objects.len());
        let mut trash = None;
        for object in objects {
            let name = OsStr::new(object.base_name());
            let entry = below.upper.entry(name)?;
            if entry == Entry::Absent {
                continue;
            }
            let trash = match &mut trash {
                Some(trash) => trash,
                none => none.insert(Trash::locate(&self.state, &below.upper)?),
            };
            // Whatever lies below under this name, valid or not, must show again; through the merged view the kernel
            // would leave a whiteout over it. A whiteout itself cannot be seen through the view.
            let via = if entry == Entry::Whiteout || below.lies_below(name)? {
                Via::UpperLayer
            } else {
                Via::MergedView
            };
            let trash_name = match via {
                // A rename cannot leave the mount.
                Via::MergedView => Trash::InLayer.name_for(object),
                Via::UpperLayer => trash.name_for(object),
            };
            moves.push(Moved {
                name: object.base_name().as_bytes().to_vec(),
                trash: trash_name,
                via,
            });
        }
        Ok((moves, trash))
    }

    pub(super) fn move_out(&self, moves: &[Moved], trash: Option<&Trash>) -> Result<()> {
        let below = self.overlay()?;
        for moved in moves {
            let (from, to) = self.directories(below, moved, trash);
            let (name, trash_name) = (OsStr::from_bytes(&moved.name), OsStr::from_bytes(&moved.trash));
            match trash::rename(from, name, to, trash_name) {
                // Not there: another process was quicker, or an earlier try came that far. There twice: it came that
                // far, and somebody left another one without a row since; that is garbage where it is.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(source) => {
                    return Err(Error::io(
                        "move out of the upper layer",
                        below.upper.path().join(name),
                        source,
                    ));
                }
            }
            self.options.crash_points.reached(CrashPoint::ObjectMoved);
        }
        Ok(())
    }

    /// From where to where an object moves.
    fn directories<'a>(
        &'a self,
        below: &'a Below,
        moved: &Moved,
        trash: Option<&'a Trash>,
    ) -> (BorrowedFd<'a>, BorrowedFd<'a>) {
        match moved.via {
            Via::MergedView => (self.real.fd(), self.real.fd()),
            Via::UpperLayer => (
                below.upper.fd(),
                trash.map_or(below.upper.fd(), |trash| trash.directory(below.upper.fd())),
            ),
        }
    }

    /// What follows when all objects are moved, in a removal and in its replay.
    pub(super) fn complete(
        &self,
        journal: &mut Journal,
        intent: &Intent,
        removal: &mut Removal,
    ) -> Result<()> {
        if intent.owes_remount() {
            self.refresh_mount()?;
            removal.remounted = true;
            self.options.crash_points.reached(CrashPoint::Remounted);
        }
        self.unlink_in_layer(intent, removal)?;
        journal.close()?;
        self.options.crash_points.reached(CrashPoint::JournalClosed);
        Ok(())
    }

    /// Unlinks what was renamed through the merged view. (What was renamed behind it may still be what the kernel
    /// shows under the old name; the trash knows how to ask.)
    fn unlink_in_layer(&self, intent: &Intent, removal: &mut Removal) -> Result<()> {
        let below = self.overlay()?;
        for moved in intent.moves().iter().filter(|moved| moved.via == Via::MergedView) {
            let trash_name = OsStr::from_bytes(&moved.trash);
            if below.upper.entry(trash_name)? != Entry::Absent {
                let resists = removal.count(trash::unlink(self.real.fd(), trash_name));
                removal.waiting += resists;
                self.options.crash_points.reached(CrashPoint::TreeUnlinked);
            }
        }
        Ok(())
    }

    /// Unlinks what waits in the trash and is used by no one.
    ///
    /// An object that is valid in the upper database and whose files are nowhere is never unlinked: something else
    /// than this program lost them, and the trash has the only copy.
    ///
    /// # Errors
    /// If the trash cannot be read. What cannot be unlinked waits.
    pub(super) fn empty_trash(&self, removal: &mut Removal) -> Result<()> {
        let mut waiting = self.empty_trash_once(removal)?;
        // That a user is gone shows only after a refresh: the kernel keeps what he held until then. One that was made
        // just now is enough.
        if waiting > 0 && !removal.remounted && self.refresh_mount().is_ok() {
            waiting = self.empty_trash_once(removal)?;
        }
        removal.waiting += waiting;
        Ok(())
    }

    /// Goes through the trash once, and returns how many trees have to wait.
    fn empty_trash_once(&self, removal: &mut Removal) -> Result<usize> {
        let below = self.overlay()?;
        let mut waiting = 0;
        let apart = Trash::open_existing(&self.state)?;
        if let Some(apart) = &apart {
            waiting += self.empty(apart.fd(), trash::list(apart.fd())?, removal)?;
        }
        if apart.is_some_and(|apart| shares_device(apart.fd(), below.upper.fd())) {
            // Nothing was left in the layer; listing it for that would cost more than a deletion.
            return Ok(waiting);
        }
        let names = below.upper.names()?;
        let parts: Vec<(&Vec<u8>, HashPart)> = names
            .iter()
            .filter_map(|name| Some((name, trash::object_of(name)?)))
            .collect();
        let parts_only: Vec<HashPart> = parts.iter().map(|(_, part)| *part).collect();
        let objects = self.metadata().path_from_hash_part(&parts_only)?;
        let in_layer = parts
            .into_iter()
            .zip(objects)
            .map(|((name, _), object)| Waiting {
                name: OsStr::from_bytes(name).to_owned(),
                object,
            })
            .collect();
        Ok(waiting + self.empty(below.upper.fd(), in_layer, removal)?)
    }

    fn empty(&self, directory: BorrowedFd<'_>, trees: Vec<Waiting>, removal: &mut Removal) -> Result<usize> {
        let mut waiting = 0;
        for Waiting { name, object } in trees {
            let Some(object) = object else {
                waiting += removal.count(trash::unlink(directory, &name));
                continue;
            };
            let object_name = OsStr::new(object.base_name());
            if self.database.are_valid(std::slice::from_ref(&object))?[0] && !self.exists(&object)? {
                tracing::warn!(%object, "an object in the trash is valid and nowhere else: kept");
                waiting += 1;
                continue;
            }
            match trash::is_pinned(directory, &name, self.real.fd(), object_name) {
                Ok(false) => waiting += removal.count(trash::unlink(directory, &name)),
                Ok(true) => waiting += 1,
                Err(error) => {
                    tracing::warn!(%object, %error, "cannot see who uses a removed object: kept");
                    waiting += 1;
                }
            }
            self.options.crash_points.reached(CrashPoint::TreeUnlinked);
        }
        Ok(waiting)
    }
}

/// Whether a rename can lead from one directory to the other, as far as their devices tell.
fn shares_device(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fs::fstat(one), fs::fstat(other)) {
        (Ok(one), Ok(other)) => one.st_dev == other.st_dev,
        _ => false,
    }
}
