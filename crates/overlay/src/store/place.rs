// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting an object in its place: from a scratch name, under its lock, by one rename.

use std::ffi::OsStr;

use rustix::fs;
use superpose_metadata::{MetadataSource, PathInfo};
use superpose_nar::{RestoreOptions, SyncPolicy};
use superpose_store_path::StorePath;

use super::Store;
use super::open::Durability;
use crate::crash::CrashPoint;
use crate::path_lock::{PathLocks, Release};
use crate::random;
use crate::upper_layer::Layer;
use crate::{Error, Result};

/// An object that is being made, under a name that no object has.
///
/// The name parses as a store path, and a temporary root protects it: a collector removes it when the process is
/// gone, and not before.
#[derive(Debug, Clone)]
pub(super) struct Scratch(StorePath);

impl Scratch {
    /// A scratch name that is protected already.
    pub(super) fn of(protected: StorePath) -> Self {
        Scratch(protected)
    }

    /// The name in the store directory.
    pub(super) fn name(&self) -> &OsStr {
        OsStr::new(self.0.base_name())
    }
}

/// Whether an object had to be put in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Now,
    /// Somebody else was quicker.
    Before(Layer),
}

impl Store {
    /// Chooses a scratch name and protects it.
    pub(super) fn scratch(&self) -> Result<Scratch> {
        let scratch = random::scratch_path();
        self.add_temp_roots(std::slice::from_ref(&scratch))?;
        self.options.crash_points.reached(CrashPoint::ScratchMade);
        Ok(Scratch(scratch))
    }

    /// How objects are unpacked so that they are as durable as the store was opened for.
    pub(super) fn restore_options(&self) -> RestoreOptions {
        RestoreOptions::default().sync(match self.options.durability {
            Durability::Synced => SyncPolicy::WholeTree,
            Durability::Unsynced => SyncPolicy::None,
        })
    }

    /// In which layer a path is valid already, if it is. An object that is valid below and hidden by a whiteout is made
    /// to show again.
    pub(super) fn valid_in(&self, path: &StorePath) -> Result<Option<Layer>> {
        let path = std::slice::from_ref(path);
        if self.database.are_valid(path)?[0] {
            return Ok(Some(Layer::Upper));
        }
        match &self.below {
            Some(below) if below.lower.are_valid(path)?[0] => {
                self.unhide(&path[0])?;
                Ok(Some(Layer::Lower))
            }
            _ => Ok(None),
        }
    }

    /// What becomes of the lock file of a path: removed, it would leave a whiteout over one that lies below.
    pub(super) fn lock_release(&self, path: &StorePath) -> Result<Release> {
        Ok(match &self.below {
            Some(below) if below.lies_below(OsStr::new(&format!("{}.lock", path.base_name())))? => {
                Release::Keep
            }
            _ => Release::Unlink,
        })
    }

    /// Moves a finished scratch object to its place and registers it. `info.path` and its references are protected by
    /// the caller, who also discards a scratch object that was not moved.
    ///
    /// # Errors
    /// If a lock, the file system or the database refuses. Nothing is registered then, and nothing lies where the
    /// object was to be.
    pub(super) fn place(&mut self, scratch: &Scratch, info: &PathInfo) -> Result<Placed> {
        self.options.crash_points.reached(CrashPoint::ScratchFilled);
        let path = &info.path;
        let release = self.lock_release(path)?;
        let locks = PathLocks::acquire(
            self.real.fd(),
            self.real.path(),
            [path],
            self.options.wait(),
            &mut |lock| tracing::info!(lock = %lock.display(), "waiting for another process that adds the same path"),
        )?;
        if let Some(layer) = self.valid_in(path)? {
            locks.release(|_| release);
            return Ok(Placed::Before(layer));
        }
        self.clear(path)?;
        fs::renameat(self.real.fd(), scratch.name(), self.real.fd(), path.base_name()).map_err(|source| {
            Error::io(
                "move a finished object to",
                self.real.path().join(path.base_name()),
                source,
            )
        })?;
        if self.options.durability == Durability::Synced {
            fs::fsync(self.real.fd()).map_err(|source| Error::io("sync", self.real.path(), source))?;
        }
        self.options.crash_points.reached(CrashPoint::ObjectPlaced);
        if let Err(error) = self.register_protected(std::slice::from_ref(info)) {
            // Not valid, so it must not lie where a valid object would.
            let removed = superpose_nar::remove_tree(self.real.fd(), path.base_name());
            if let Err(cleanup) = removed {
                tracing::warn!(object = %path, %cleanup, "an object that could not be registered stays behind as garbage");
            }
            self.unhide(path)?;
            locks.release(|_| release);
            return Err(error);
        }
        self.options.crash_points.reached(CrashPoint::ObjectRegistered);
        if self.options.durability == Durability::Synced {
            self.database.sync()?;
        }
        locks.release(|_| release);
        Ok(Placed::Now)
    }

    /// Removes a scratch object if it is still there. What resists is garbage under a name that any collector removes.
    pub(super) fn discard(&self, scratch: &Scratch) {
        match superpose_nar::remove_tree(self.real.fd(), scratch.name()) {
            Ok(_) => {}
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
            Err(error) => tracing::warn!(%error, "a scratch object stays behind as garbage"),
        }
    }

    /// Removes what lies unregistered where an object is to be.
    ///
    /// In an overlay store a directory that lies below gets a whiteout by this, and the object that is then moved
    /// over the whiteout becomes opaque: nothing of the unregistered one shines through.
    fn clear(&self, path: &StorePath) -> Result<()> {
        if self.exists(path)? {
            tracing::debug!(object = %path, "removing what lies unregistered in the place of a new object");
            superpose_nar::remove_tree(self.real.fd(), path.base_name())?;
        }
        Ok(())
    }
}
