// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting good objects in the place of bad ones.
//!
//! 1. The good objects lie under scratch names and are on the disk; the locks are taken, the rows looked at again;
//! 2. the intent is on the disk: whatever lies under the scratch names is to be thrown away;
//! 3. each good object and what is in its place change names, at once;
//! 4. what lies under the scratch names now, the bad objects, is moved to the trash;
//! 5. the mount is made fresh, the journal closed, the trash emptied of what nobody uses.
//!
//! A crash before 3 has thrown good copies away, a crash after it bad ones: at any moment, each path has one whole object,
//! and the next opening does the rest.

use std::ffi::OsStr;

use rustix::fd::BorrowedFd;
use rustix::fs::{self, RenameFlags, renameat_with};
use rustix::io::Errno;
use superpose_store_path::StorePath;

use super::objects::Restored;
use super::{Obstacle, Repaired};
use crate::crash::CrashPoint;
use crate::flock::LockWait;
use crate::journal::{Intent, Moved, Via};
use crate::path_lock::{PathLocks, Release};
use crate::store::Store;
use crate::store::open::Durability;
use crate::store::trash::Trash;
use crate::store::verify::read_rows;
use crate::{Error, Result};

/// The lock on one path, and what becomes of its file.
type Lock = (PathLocks, Release);

impl Store {
    /// Puts the good objects in their places, as far as nobody else is at them.
    pub(super) fn put_in_place(&mut self, restored: &mut [Restored], repaired: &mut Repaired) -> Result<()> {
        if restored.is_empty() {
            return Ok(());
        }
        // The last moment at which nothing has happened.
        self.options.watch.go_on()?;
        let lock = self.collector_lock()?;
        let mut locks = Vec::with_capacity(restored.len());
        let mut ready = Vec::with_capacity(restored.len());
        for object in restored.iter_mut() {
            match self.lock(&object.wanted.path)? {
                Some(lock) => {
                    locks.push(lock);
                    ready.push(object);
                }
                None => repaired.leave_path(&object.wanted.path, Obstacle::Busy),
            }
        }
        let paths: Vec<StorePath> = ready.iter().map(|object| object.wanted.path.clone()).collect();
        let mut rows = read_rows(&self.metadata(), &paths)?.into_iter();
        ready.retain(|object| {
            let row = rows.next();
            let is_same = row.is_some_and(|row| {
                row.archive()
                    .is_some_and(|archive| archive.hash == object.wanted.archive.hash)
            });
            if !is_same {
                repaired.leave_path(&object.wanted.path, Obstacle::Changed);
            }
            is_same
        });
        let exchanged = match self.below {
            _ if ready.is_empty() => Ok(()),
            Some(_) => self.exchange_behind(&mut ready),
            None => self.exchange_here(&mut ready),
        };
        repaired.objects.extend(
            ready
                .iter()
                .filter(|object| object.in_place)
                .map(|object| object.wanted.path.clone()),
        );
        for (lock, release) in locks {
            lock.release(|_| release);
        }
        drop(lock);
        exchanged
    }

    /// Locks a path for a moment. Nobody is waited for: who has it may himself wait for the collector's lock, which is
    /// held here.
    fn lock(&self, path: &StorePath) -> Result<Option<Lock>> {
        let release = self.lock_release(path)?;
        match PathLocks::acquire(
            self.real.fd(),
            self.real.path(),
            [path],
            LockWait::Never,
            &mut |_| {},
        ) {
            Ok(lock) => Ok(Some((lock, release))),
            Err(Error::LockHeld { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// In the upper layer, behind the mount.
    fn exchange_behind(&self, objects: &mut [&mut Restored]) -> Result<()> {
        let below = self.overlay()?;
        let mut journal = self.idle_journal()?;
        let trash = Trash::locate(&self.state, &below.upper)?;
        let moves = objects.iter().map(|object| Moved {
            name: object.scratch.name().as_encoded_bytes().to_vec(),
            trash: trash.name_for(&object.wanted.path),
            via: Via::UpperLayer,
        });
        let intent = Intent::Removal(moves.collect());
        let mut removal = self.change_behind(&mut journal, &intent, || {
            self.exchange_all(below.upper.fd(), below.upper.path(), objects)?;
            self.move_out(intent.moves(), Some(&trash))
        })?;
        self.empty_trash(&mut removal, None)
    }

    /// In a local store. What lies under a scratch name is garbage to every collector, so that no journal is needed.
    fn exchange_here(&self, objects: &mut [&mut Restored]) -> Result<()> {
        self.exchange_all(self.real.fd(), self.real.path(), objects)?;
        for object in objects {
            match superpose_nar::remove_tree(self.real.fd(), object.scratch.name()) {
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
                Err(error) => tracing::warn!(%error, "a bad object stays behind as garbage"),
                Ok(_) => {}
            }
            self.options.crash_points.reached(CrashPoint::TreeUnlinked);
        }
        Ok(())
    }

    fn exchange_all(
        &self,
        layer: BorrowedFd<'_>,
        layer_path: &std::path::Path,
        objects: &mut [&mut Restored],
    ) -> Result<()> {
        for object in objects.iter_mut() {
            let name = OsStr::new(object.wanted.path.base_name());
            exchange(layer, object.scratch.name(), name).map_err(|source| {
                Error::io("put a good object in the place of", layer_path.join(name), source)
            })?;
            object.in_place = true;
            self.options.crash_points.reached(CrashPoint::ObjectExchanged);
        }
        if self.options.durability == Durability::Synced {
            fs::fsync(layer).map_err(|source| Error::io("sync", layer_path, source))?;
        }
        Ok(())
    }
}

/// Lets two names change what they stand for; the second one may stand for nothing.
fn exchange(layer: BorrowedFd<'_>, scratch: &OsStr, name: &OsStr) -> std::result::Result<(), Errno> {
    match renameat_with(layer, scratch, layer, name, RenameFlags::EXCHANGE) {
        Err(Errno::NOENT) => renameat_with(layer, scratch, layer, name, RenameFlags::NOREPLACE),
        exchanged => exchanged,
    }
}
