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
//! 6. what was renamed within the layer is unlinked, by several threads;
//! 7. the journal is closed;
//! 8. the trash is emptied of what nobody uses any more.
//!
//! A crash before 3 has done nothing, a crash after it leaves objects without rows, which any collector may remove, and
//! the intent, by which the next opening does the rest. At no moment is a path valid whose object is elsewhere: a
//! collector of stock Nix that runs in between would take such an object for garbage.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fd::BorrowedFd;
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use superpose_metadata::MetadataSource;
use superpose_nar::Removals;
use superpose_store_path::{HashPart, StorePath};

use super::open::Durability;
use super::parallel::on_threads;
use super::trash::{self, Shown, Trash, Waiting};
use super::unlink::{self, Unlinking};
use super::{Below, Store};
use crate::crash::CrashPoint;
use crate::faults::{self, Fault};
use crate::journal::{Intent, Journal, Moved, Via};
use crate::random;
use crate::temp_roots::Listener;
use crate::upper_layer::Entry;
use crate::{Error, Result};

/// What is to leave, as one.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    /// Objects to take out of the layer.
    pub(super) objects: &'a [StorePath],
    /// What else to take out of it: names that are no store paths.
    pub(super) junk: &'a [OsString],
    /// Rows to forget, which may be those of other paths.
    pub(super) rows: &'a [StorePath],
    /// Who hears of temporary roots meanwhile, and has been told what is leaving.
    pub(super) listener: &'a Listener,
    /// In-layer names of the trash, if the layer was listed just now.
    pub(super) waiting: Option<&'a [OsString]>,
}

/// What a removal did.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// What was unlinked, counted over all trees.
    pub(super) unlinked: Removals,
    /// Moved trees that some process still uses, or that could not be unlinked; they are unlinked later.
    pub(super) waiting: usize,
    /// Whether the mount was made fresh.
    pub(super) remounted: bool,
}

impl Store {
    /// Removes objects and rows. The caller holds the collector's lock and has decided that nothing needs them.
    ///
    /// # Errors
    /// Before anything is done: when a row is still referred to, when the mount could not be made fresh afterwards,
    /// when the database or the journal cannot be written. After it: when an object cannot be moved or the mount
    /// not be made fresh; then the rows are gone, and the rest stays owed.
    pub(super) fn remove(&mut self, leaving: &Leaving<'_>) -> Result<Removal> {
        if self.below.is_none() {
            return self.remove_local(leaving);
        }
        let mut journal = self.idle_journal()?;
        let (moves, trash) = self.plan(leaving)?;
        let mut removal = Removal::default();
        let mut in_layer = leaving.waiting.map(<[OsString]>::to_vec);
        if let (Some(names), Some(Trash::InLayer)) = (&mut in_layer, &trash) {
            names.extend(trash_names(&moves, Via::UpperLayer));
        }
        if !moves.is_empty() || !leaving.rows.is_empty() {
            let intent = Intent::Removal(moves);
            if intent.owes_remount() {
                self.require_refreshable()?;
            }
            let mut transaction = self.database.begin()?;
            transaction.invalidate(leaving.rows)?;
            journal.begin(&intent)?;
            self.options.crash_points.reached(CrashPoint::IntentWritten);
            if let Err(error) = transaction.commit() {
                journal.close()?;
                return Err(error.into());
            }
            self.database.sync()?;
            self.options.crash_points.reached(CrashPoint::RowsDeleted);
            self.move_out(intent.moves(), trash.as_ref())?;
            self.complete(&mut journal, &intent, &mut removal, Some(leaving.listener))?;
        }
        self.empty_trash(&mut removal, in_layer.as_deref())?;
        Ok(removal)
    }

    /// Removes objects of a store without layers: rows first, so that what a crash leaves is garbage.
    fn remove_local(&mut self, leaving: &Leaving<'_>) -> Result<Removal> {
        self.database.invalidate(leaving.rows)?;
        if self.options.durability == Durability::Synced {
            self.database.sync()?;
        }
        self.options.crash_points.reached(CrashPoint::RowsDeleted);
        let mut removal = Removal::default();
        let mut moved = Vec::new();
        let objects = leaving
            .objects
            .iter()
            .map(|object| OsStr::new(object.base_name()));
        for name in objects.chain(leaving.junk.iter().map(OsString::as_os_str)) {
            let scratch = OsString::from(random::scratch_path().base_name());
            // Renamed first: nobody ever reads a half-deleted object.
            match trash::rename(self.real.fd(), name, self.real.fd(), &scratch) {
                Ok(()) => moved.push(scratch),
                Err(Errno::NOENT) => {}
                Err(source) => {
                    return Err(Error::io(
                        "move out of the store",
                        self.real.path().join(name),
                        source,
                    ));
                }
            }
            self.options.crash_points.reached(CrashPoint::ObjectMoved);
        }
        leaving.listener.let_go();
        removal.waiting += self.unlinking(&removal.unlinked).all(self.real.fd(), &moved);
        Ok(removal)
    }

    pub(super) fn unlinking<'a>(&'a self, removals: &'a Removals) -> Unlinking<'a> {
        Unlinking {
            removals,
            watch: &self.options.watch,
            crash_points: &self.options.crash_points,
        }
    }

    /// Decides through which directory each object leaves.
    fn plan(&self, leaving: &Leaving<'_>) -> Result<(Vec<Moved>, Option<Trash>)> {
        let below = self.overlay()?;
        let mut moves = Vec::with_capacity(leaving.objects.len() + leaving.junk.len());
        let mut trash = None;
        // In the trash junk needs a name that leads back to a store path, too: to one that nobody has.
        let junk = leaving
            .junk
            .iter()
            .map(|name| (name.as_os_str(), random::scratch_path()));
        let objects = leaving.objects.iter();
        let objects = objects.map(|object| (OsStr::new(object.base_name()), object.clone()));
        for (name, object) in objects.chain(junk) {
            let entry = below.upper.entry(name)?;
            if entry == Entry::Absent {
                continue;
            }
            let trash = match &mut trash {
                Some(trash) => trash,
                none => none.insert(Trash::locate(&self.state, &below.upper)?),
            };
            // Whatever lies below under this name, valid or not, must show again; through the merged view the kernel
            // would leave a whiteout over it. A whiteout itself cannot be seen through the view, nor what somebody put
            // there behind the mount.
            let via = if entry == Entry::Whiteout || below.lies_below(name)? || !self.shows(name)? {
                Via::UpperLayer
            } else {
                Via::MergedView
            };
            let trash_name = match via {
                // A rename cannot leave the mount.
                Via::MergedView => Trash::InLayer.name_for(&object),
                Via::UpperLayer => trash.name_for(&object),
            };
            moves.push(Moved {
                name: name.as_bytes().to_vec(),
                trash: trash_name,
                via,
            });
        }
        Ok((moves, trash))
    }

    /// Whether the merged view leads to a name of the upper layer.
    fn shows(&self, name: &OsStr) -> Result<bool> {
        match fs::statat(self.real.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::STALE) => Ok(false),
            Err(source) => Err(Error::io("examine", self.real.path().join(name), source)),
        }
    }

    pub(super) fn move_out(&self, moves: &[Moved], trash: Option<&Trash>) -> Result<()> {
        let below = self.overlay()?;
        for moved in moves {
            let (from, to) = self.directories(below, moved, trash);
            let (name, trash_name) = (OsStr::from_bytes(&moved.name), OsStr::from_bytes(&moved.trash));
            if moved.via == Via::UpperLayer && faults::is_on(Fault::DeleteThroughMount) {
                superpose_nar::remove_tree(self.real.fd(), name)?;
                continue;
            }
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
        listener: Option<&Listener>,
    ) -> Result<()> {
        if intent.owes_remount() {
            self.refresh_mount()?;
            removal.remounted = true;
            self.options.crash_points.reached(CrashPoint::Remounted);
        }
        // Nobody sees anything of the objects any more: who wants to add one again need not wait for the rest.
        if let Some(listener) = listener {
            listener.let_go();
        }
        self.unlink_in_layer(intent, removal);
        journal.close()?;
        self.options.crash_points.reached(CrashPoint::JournalClosed);
        Ok(())
    }

    /// Unlinks what was renamed through the merged view. (What was renamed behind it may still be what the kernel
    /// shows under the old name; the trash knows how to ask.)
    fn unlink_in_layer(&self, intent: &Intent, removal: &mut Removal) {
        let names = trash_names(intent.moves(), Via::MergedView);
        removal.waiting += self.unlinking(&removal.unlinked).all(self.real.fd(), &names);
    }

    /// Unlinks what waits in the trash and is used by no one. `in_layer` are the names in the layer that belong to the
    /// trash, where they are known.
    ///
    /// An object that is valid in the upper database and whose files are nowhere is never unlinked: something else
    /// than this program lost them, and the trash has the only copy.
    ///
    /// # Errors
    /// If the trash cannot be read. What cannot be unlinked waits.
    pub(super) fn empty_trash(&self, removal: &mut Removal, in_layer: Option<&[OsString]>) -> Result<()> {
        let mut waiting = self.empty_trash_once(removal, in_layer)?;
        // That a user is gone shows only after a refresh: the kernel keeps what he held until then. One that was made
        // just now is enough.
        if waiting > 0 && !removal.remounted && self.refresh_mount().is_ok() {
            waiting = self.empty_trash_once(removal, in_layer)?;
        }
        removal.waiting += waiting;
        Ok(())
    }

    /// Goes through the trash once, and returns how many trees have to wait.
    fn empty_trash_once(&self, removal: &Removal, in_layer: Option<&[OsString]>) -> Result<usize> {
        let below = self.overlay()?;
        let mut waiting = 0;
        let apart = Trash::open_existing(&self.state)?;
        if let Some(apart) = &apart {
            waiting += self.empty(apart.fd(), trash::list(apart.fd())?, removal)?;
        }
        let listed;
        let names = match in_layer {
            Some(names) => names,
            // Nothing was left in the layer; listing it for that would cost more than a deletion.
            None if apart.is_some_and(|apart| shares_device(apart.fd(), below.upper.fd())) => &[],
            None => {
                let names = below.upper.names()?.into_iter();
                listed = names.map(OsString::from_vec).collect::<Vec<_>>();
                &listed[..]
            }
        };
        let parts: Vec<(&OsString, HashPart)> = names
            .iter()
            .filter_map(|name| Some((name, trash::object_of(name.as_bytes())?)))
            .collect();
        let parts_only: Vec<HashPart> = parts.iter().map(|(_, part)| *part).collect();
        let objects = self.metadata().path_from_hash_part(&parts_only)?;
        let in_layer = parts
            .into_iter()
            .zip(objects)
            .map(|((name, _), object)| Waiting {
                name: name.clone(),
                object,
            })
            .collect();
        Ok(waiting + self.empty(below.upper.fd(), in_layer, removal)?)
    }

    fn empty(&self, directory: BorrowedFd<'_>, trees: Vec<Waiting>, removal: &Removal) -> Result<usize> {
        let objects: Vec<StorePath> = trees.iter().filter_map(|tree| tree.object.clone()).collect();
        let mut valid = self.database.are_valid(&objects)?.into_iter();
        let trees: Vec<(Waiting, bool)> = trees
            .into_iter()
            .map(|tree| {
                let is_valid = tree.object.is_some() && valid.next() == Some(true);
                (tree, is_valid)
            })
            .collect();
        let merged = self.real.fd();
        // The view has to look up every name anew.
        let fates = on_threads(
            unlink::THREADS,
            &trees,
            |(tree, is_valid)| fate(directory, merged, tree, *is_valid),
            |_| true,
        );
        let mut free = Vec::new();
        let mut waiting = 0;
        for ((tree, _), fate) in trees.into_iter().zip(fates) {
            match fate {
                Some(Fate::Goes) => free.push(tree.name),
                Some(Fate::Gone) => {}
                Some(Fate::Waits) | None => waiting += 1,
            }
        }
        Ok(waiting + self.unlinking(&removal.unlinked).all(directory, &free))
    }
}

/// What becomes of a tree in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is unlinked.
    Goes,
    /// It stays for now.
    Waits,
    /// It was unlinked before.
    Gone,
}

fn fate(directory: BorrowedFd<'_>, merged: BorrowedFd<'_>, tree: &Waiting, is_valid: bool) -> Fate {
    let Some(object) = &tree.object else {
        return Fate::Goes;
    };
    match trash::shown(directory, &tree.name, merged, OsStr::new(object.base_name())) {
        Ok(Shown::Itself) => Fate::Waits,
        Ok(Shown::Nothing) if is_valid => {
            tracing::warn!(%object, "an object in the trash is valid and nowhere else: kept");
            Fate::Waits
        }
        Ok(Shown::Another | Shown::Nothing) => Fate::Goes,
        Err(Errno::NOENT) => Fate::Gone,
        Err(error) => {
            tracing::warn!(%object, %error, "cannot see who uses a removed object: kept");
            Fate::Waits
        }
    }
}

/// What moved objects are called in the trash, of those that left one way.
fn trash_names(moves: &[Moved], via: Via) -> Vec<OsString> {
    let moves = moves.iter().filter(|moved| moved.via == via);
    moves
        .map(|moved| OsString::from_vec(moved.trash.clone()))
        .collect()
}

/// Whether a rename can lead from one directory to the other, as far as their devices tell.
fn shares_device(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fs::fstat(one), fs::fstat(other)) {
        (Ok(one), Ok(other)) => one.st_dev == other.st_dev,
        _ => false,
    }
}
