// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting objects in their places: each from a scratch name, under its lock, by one rename; all of them with one sync
//! and one transaction.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

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

/// A scratch object that is complete, and what it is to become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finished<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) info: &'a PathInfo,
}

/// Whether an object had to be put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Now,
    /// Somebody else was quicker.
    Before(Layer),
}

impl Store {
    /// Chooses scratch names and protects them, many at the price of one.
    pub(super) fn scratches(&self, count: usize) -> Result<Vec<Scratch>> {
        let names: Vec<StorePath> = std::iter::repeat_with(random::scratch_path).take(count).collect();
        self.add_temp_roots(&names)?;
        self.options.crash_points.reached(CrashPoint::ScratchMade);
        Ok(names.into_iter().map(Scratch).collect())
    }

    /// Chooses a scratch name and protects it.
    pub(super) fn scratch(&self) -> Result<Scratch> {
        let scratch = self.scratches(1)?.pop();
        Ok(scratch.expect("as many as were asked for"))
    }

    /// How a lone object is unpacked so that it is as durable as the store was opened for.
    pub(super) fn restore_options(&self) -> RestoreOptions {
        RestoreOptions::default().sync(match self.options.durability {
            Durability::Synced => SyncPolicy::WholeTree,
            Durability::Unsynced => SyncPolicy::None,
        })
    }

    /// In which layer each path is valid already, if it is. Objects that are valid below and hidden by whiteouts are
    /// made to show again.
    pub(super) fn valid_in(&self, paths: &[StorePath]) -> Result<Vec<Option<Layer>>> {
        let above = self.database.are_valid(paths)?;
        let mut layers: Vec<Option<Layer>> =
            above.iter().map(|above| above.then_some(Layer::Upper)).collect();
        if let Some(below) = &self.below {
            let open: Vec<usize> = (0..paths.len()).filter(|&place| !above[place]).collect();
            let asked: Vec<StorePath> = open.iter().map(|&place| paths[place].clone()).collect();
            let valid = below.lower.are_valid(&asked)?;
            for (place, _) in open.into_iter().zip(&valid).filter(|(_, valid)| **valid) {
                layers[place] = Some(Layer::Lower);
            }
            let shown: Vec<StorePath> = asked
                .into_iter()
                .zip(valid)
                .filter_map(|(path, valid)| valid.then_some(path))
                .collect();
            self.unhide(&shown)?;
        }
        Ok(layers)
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

    /// Moves finished scratch objects to their places and registers them, in one transaction. The paths are different
    /// ones; they and what they refer to are protected by the caller, who also discards the scratch objects that were not
    /// moved, and has made durable what is in them.
    ///
    /// # Errors
    /// If a lock, the file system or the database refuses. Nothing is registered then, and nothing lies where the
    /// objects were to be.
    pub(super) fn place(&mut self, objects: &[Finished<'_>]) -> Result<Vec<Placed>> {
        self.options.crash_points.reached(CrashPoint::ScratchFilled);
        let mut kept = HashSet::new();
        for Finished { info, .. } in objects {
            if matches!(self.lock_release(&info.path)?, Release::Keep) {
                kept.insert(OsString::from(format!("{}.lock", info.path.base_name())));
            }
        }
        let release = |name: &OsStr| {
            if kept.contains(name) {
                Release::Keep
            } else {
                Release::Unlink
            }
        };
        let locks = PathLocks::acquire(
            self.real.fd(),
            self.real.path(),
            objects.iter().map(|object| &object.info.path),
            self.options.wait(),
            &mut |lock| tracing::info!(lock = %lock.display(), "waiting for another process that adds the same path"),
        )?;
        let paths: Vec<StorePath> = objects.iter().map(|object| object.info.path.clone()).collect();
        let layers = self.valid_in(&paths)?;
        let new: Vec<Finished<'_>> = objects
            .iter()
            .zip(&layers)
            .filter_map(|(object, layer)| layer.is_none().then_some(*object))
            .collect();
        let mut moved = 0;
        if let Err(error) = self.move_in_and_register(&new, &mut moved) {
            let paths: Vec<StorePath> = new
                .iter()
                .take(moved)
                .map(|object| object.info.path.clone())
                .collect();
            let result = self.take_back(&paths);
            // Whether or not the mount could be made fresh: what went wrong first says more.
            if let Err(second) = result {
                tracing::warn!(%second, "objects of the lower store may be hidden until the next remount");
            }
            locks.release(release);
            return Err(error);
        }
        locks.release(release);
        Ok(layers
            .into_iter()
            .map(|layer| layer.map_or(Placed::Now, Placed::Before))
            .collect())
    }

    /// `moved` counts the objects that lie in their places, or may.
    fn move_in_and_register(&mut self, objects: &[Finished<'_>], moved: &mut usize) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        for Finished { scratch, info } in objects {
            *moved += 1;
            self.clear(&info.path)?;
            let name = info.path.base_name();
            fs::renameat(self.real.fd(), scratch.name(), self.real.fd(), name).map_err(|source| {
                Error::io("move a finished object to", self.real.path().join(name), source)
            })?;
            self.options.crash_points.reached(CrashPoint::ObjectPlaced);
        }
        if self.options.durability == Durability::Synced {
            fs::fsync(self.real.fd()).map_err(|source| Error::io("sync", self.real.path(), source))?;
            self.options.crash_points.reached(CrashPoint::NamesSynced);
        }
        let infos: Vec<PathInfo> = objects.iter().map(|object| object.info.clone()).collect();
        self.register_protected(&infos)?;
        self.options.crash_points.reached(CrashPoint::ObjectRegistered);
        // Registered is registered: from here on nothing is taken back.
        *moved = 0;
        if self.options.durability == Durability::Synced {
            self.database.sync()?;
        }
        Ok(())
    }

    /// Removes objects that are not valid from where valid ones would lie.
    fn take_back(&self, paths: &[StorePath]) -> Result<()> {
        for path in paths {
            self.remove_garbage(OsStr::new(path.base_name()));
        }
        self.unhide(paths)
    }

    /// Removes a scratch object if it is still there. What resists is garbage under a name that any collector removes.
    pub(super) fn discard(&self, scratch: &Scratch) {
        self.remove_garbage(scratch.name());
    }

    fn remove_garbage(&self, name: &OsStr) {
        match superpose_nar::remove_tree(self.real.fd(), name) {
            Ok(_) => {}
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
            Err(error) => {
                tracing::warn!(name = %name.display(), %error, "an object that is not valid stays behind as garbage");
            }
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
