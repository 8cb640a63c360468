// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking objects out of the upper layer: the one way in which anything leaves it.
//!
//! The order keeps every crash survivable, and every reader from seeing half an object:
//!
//! 1. the intent is on the disk;
//! 2. the objects are renamed out of the layer: whole, reversible;
//! 3. their rows are deleted in one transaction: this is the point of no return;
//! 4. the mount is made fresh, once;
//! 5. what was renamed within the layer is unlinked: it lies where a collector would see it;
//! 6. the journal is closed;
//! 7. the trash is emptied of what nobody uses any more.
//!
//! A crash before 3 is undone at the next opening, a crash after it is finished.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fd::BorrowedFd;
use rustix::fs;
use rustix::io::Errno;
use superpose_metadata::MetadataSource;
use superpose_nar::RemoveStats;
use superpose_store_path::StorePath;

use super::trash::{self, Trash};
use super::{Below, Store};
use crate::crash::CrashPoint;
use crate::journal::{Intent, Journal, Moved, State, Via};
use crate::state_dir::Directory;
use crate::upper_layer::Entry;
use crate::{Error, Result};

/// What a removal did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removal {
    /// Bytes of disk blocks that were given back.
    pub(super) bytes: u64,
    /// Names that were unlinked.
    pub(super) entries: u64,
    /// Moved trees that some process still uses; they are unlinked later.
    pub(super) waiting: usize,
    /// Whether the mount was made fresh.
    pub(super) remounted: bool,
}

impl Removal {
    fn count(&mut self, unlinked: RemoveStats) {
        self.bytes += unlinked.bytes_freed;
        self.entries += unlinked.files + unlinked.directories;
    }
}

impl Store {
    /// Removes objects and rows. The caller holds the collector's lock and has decided that nothing needs them.
    ///
    /// `objects` are those to take out of the layer; `rows` those to forget, which may be others.
    pub(super) fn remove(&mut self, objects: &[StorePath], rows: &[StorePath]) -> Result<Removal> {
        if self.below.is_none() {
            return self.remove_local(objects, rows);
        }
        let (mut journal, state) = Journal::open(self.state.create_own()?.path())?;
        match state {
            State::Idle => {}
            State::Busy => {
                return Err(Error::JournalBusy {
                    path: self.state.path().to_owned(),
                });
            }
            State::Interrupted(intents) => self.replay(&mut journal, &intents)?,
        }
        let (intent, trash) = self.plan(objects, rows)?;
        let mut removal = Removal::default();
        if intent.moves.is_empty() && intent.rows.is_empty() {
            self.empty_trash(&mut removal)?;
            return Ok(removal);
        }
        journal.begin(&intent)?;
        self.options.crash_points.reached(CrashPoint::IntentWritten);
        self.move_out(&intent, trash.as_ref())?;
        self.database.invalidate(rows)?;
        self.options.crash_points.reached(CrashPoint::RowsDeleted);
        if self.owes_remount(&intent) {
            self.refresh_mount()?;
            removal.remounted = true;
            self.options.crash_points.reached(CrashPoint::Remounted);
        }
        self.unlink_in_layer(&intent, &mut removal)?;
        journal.close()?;
        self.options.crash_points.reached(CrashPoint::JournalClosed);
        self.empty_trash(&mut removal)?;
        Ok(removal)
    }

    /// Removes objects of a store without layers: rows first, as Nix does, so that what a crash leaves is garbage.
    fn remove_local(&mut self, objects: &[StorePath], rows: &[StorePath]) -> Result<Removal> {
        self.database.invalidate(rows)?;
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
                Ok(()) => removal.count(trash::unlink(self.real.fd(), OsStr::new(scratch.base_name()))?),
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
    fn plan(&self, objects: &[StorePath], rows: &[StorePath]) -> Result<(Intent, Option<Trash>)> {
        let below = self.overlay()?;
        let mut intent = Intent {
            moves: Vec::with_capacity(objects.len()),
            rows: rows
                .iter()
                .map(|path| path.base_name().as_bytes().to_vec())
                .collect(),
        };
        let mut trash = None;
        for object in objects {
            let name = OsStr::new(object.base_name());
            if below.upper.entry(name)? == Entry::Absent {
                continue;
            }
            let trash = match &mut trash {
                Some(trash) => trash,
                none => none.insert(Trash::locate(&self.state, below.upper.fd())?),
            };
            // Whatever lies below under this name, valid or not, must show again; through the merged view the kernel
            // would leave a whiteout over it.
            let via = if below.lies_below(name)? {
                Via::UpperLayer
            } else {
                Via::MergedView
            };
            let trash_name = match (via, &trash) {
                // A rename cannot leave the mount.
                (Via::MergedView, _) => Trash::InLayer.name_for(object),
                (Via::UpperLayer, trash) => trash.name_for(object),
            };
            intent.moves.push(Moved {
                name: object.base_name().as_bytes().to_vec(),
                trash: trash_name,
                via,
            });
        }
        Ok((intent, trash))
    }

    fn move_out(&self, intent: &Intent, trash: Option<&Trash>) -> Result<()> {
        let below = self.overlay()?;
        for moved in &intent.moves {
            let (from, to) = self.directories(below, moved, trash);
            let (name, trash_name) = (OsStr::from_bytes(&moved.name), OsStr::from_bytes(&moved.trash));
            match trash::rename(from, name, to, trash_name) {
                Ok(()) => {}
                // Another process was quicker, or the view had already lost it.
                Err(Errno::NOENT) => {}
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

    /// Whether something was moved behind the mount's back.
    pub(super) fn owes_remount(&self, intent: &Intent) -> bool {
        intent.moves.iter().any(|moved| moved.via == Via::UpperLayer)
    }

    /// Unlinks what waits in the trash and is used by no one.
    ///
    /// An object whose row is still there but whose files are nowhere is never unlinked: something else than this
    /// program lost the journal, and the trash has the only copy.
    pub(super) fn empty_trash(&self, removal: &mut Removal) -> Result<()> {
        let Some(directory) = Trash::open_existing(&self.state)? else {
            return Ok(());
        };
        let waiting = trash::list(directory.fd())?;
        if waiting.is_empty() {
            return Ok(());
        }
        let objects: Vec<StorePath> = waiting.iter().map(|waiting| waiting.object.clone()).collect();
        let valid = self.database.are_valid(&objects)?;
        for (waiting, valid) in waiting.into_iter().zip(valid) {
            let object = OsStr::new(waiting.object.base_name());
            let missing = matches!(
                fs::statat(self.real.fd(), object, fs::AtFlags::SYMLINK_NOFOLLOW),
                Err(Errno::NOENT)
            );
            if valid && missing {
                tracing::warn!(object = %waiting.object, "an object in the trash is valid and nowhere else: kept");
                removal.waiting += 1;
                continue;
            }
            let pinned = trash::is_pinned(directory.fd(), &waiting.name, self.real.fd(), object).map_err(
                |source| {
                    Error::io(
                        "see who uses the removed object",
                        self.real.path().join(object),
                        source,
                    )
                },
            )?;
            if pinned {
                removal.waiting += 1;
            } else {
                removal.count(trash::unlink(directory.fd(), &waiting.name)?);
                self.options.crash_points.reached(CrashPoint::TreeUnlinked);
            }
        }
        Ok(())
    }

    /// Unlinks what was renamed within the layer. What lies in the trash directory is not there.
    fn unlink_in_layer(&self, intent: &Intent, removal: &mut Removal) -> Result<()> {
        let below = self.overlay()?;
        for moved in &intent.moves {
            let (name, trash_name) = (OsStr::from_bytes(&moved.name), OsStr::from_bytes(&moved.trash));
            if below.upper.entry(trash_name)? == Entry::Absent {
                continue;
            }
            // A tree that was moved behind the mount may still be what the kernel shows under the old name; such a
            // one is left to the next collection.
            let pinned = moved.via == Via::UpperLayer
                && trash::is_pinned(below.upper.fd(), trash_name, self.real.fd(), name).map_err(
                    |source| {
                        Error::io(
                            "see who uses the removed object",
                            self.real.path().join(name),
                            source,
                        )
                    },
                )?;
            if pinned {
                removal.waiting += 1;
            } else {
                removal.count(trash::unlink(self.real.fd(), trash_name)?);
                self.options.crash_points.reached(CrashPoint::TreeUnlinked);
            }
        }
        Ok(())
    }

    /// Undoes or finishes what a process that is gone had begun.
    ///
    /// Rows are deleted in one transaction: an object whose row is still there was not removed, and goes back to
    /// where it was, unless somebody put one there since; everything else stays in the trash. The remount is made in
    /// either case, since nobody knows what the kernel had cached.
    pub(super) fn replay(&mut self, journal: &mut Journal, intents: &[Intent]) -> Result<()> {
        let mut owed = false;
        for intent in intents {
            owed |= self.owes_remount(intent);
            self.put_back(intent)?;
        }
        if owed {
            self.refresh_mount()?;
            self.options.crash_points.reached(CrashPoint::Remounted);
        }
        for intent in intents {
            self.unlink_in_layer(intent, &mut Removal::default())?;
        }
        journal.close()?;
        self.options.crash_points.reached(CrashPoint::JournalClosed);
        self.empty_trash(&mut Removal::default())?;
        tracing::info!(
            operations = intents.len(),
            "finished or undid what an interrupted process had begun"
        );
        Ok(())
    }

    fn put_back(&self, intent: &Intent) -> Result<()> {
        let below = self.overlay()?;
        let apart = Trash::open_existing(&self.state)?;
        let objects: Vec<Option<StorePath>> = intent
            .moves
            .iter()
            .map(|moved| StorePath::from_base_name(&moved.name).ok())
            .collect();
        for (moved, object) in intent.moves.iter().zip(objects) {
            let Some(object) = object else { continue };
            if !self.database.are_valid(std::slice::from_ref(&object))?[0] {
                continue;
            }
            let (name, trash_name) = (OsStr::from_bytes(&moved.name), OsStr::from_bytes(&moved.trash));
            let layer = match moved.via {
                Via::UpperLayer => below.upper.fd(),
                Via::MergedView => self.real.fd(),
            };
            let places = [apart.as_ref().map(Directory::fd), Some(layer)];
            for place in places.into_iter().flatten() {
                if fs::statat(place, trash_name, fs::AtFlags::SYMLINK_NOFOLLOW).is_err() {
                    continue;
                }
                if below.upper.entry(name)? != Entry::Absent {
                    break;
                }
                trash::rename(place, trash_name, layer, name).map_err(|source| {
                    Error::io(
                        "put back into the upper layer",
                        below.upper.path().join(name),
                        source,
                    )
                })?;
                self.options.crash_points.reached(CrashPoint::ObjectReturned);
                break;
            }
        }
        Ok(())
    }
}
