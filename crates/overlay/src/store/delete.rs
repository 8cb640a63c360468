// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deleting named paths.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::Path;

use superpose_metadata::{Closure, MetadataSource};
use superpose_store_path::{HashPart, StorePath};

use super::Store;
use super::removal::Leaving;
use crate::roots::{self, Root, Stale};
use crate::temp_roots::{self, Listener};
use crate::upper_layer::Entry;
use crate::{Error, Result};

/// Whether roots protect what is to be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Permanent roots, running processes and temporary roots protect.
    #[default]
    Respect,
    /// Only temporary roots and referrers protect, as with Nix's `--ignore-liveness`.
    Ignore,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// Whether roots protect.
    pub liveness: Liveness,
}

impl DeleteOptions {
    /// The same with another rule for roots.
    #[must_use]
    pub fn with_liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }
}

/// What a deletion did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deleted {
    /// The paths whose objects left the store or its upper layer, sorted.
    pub deleted: Vec<StorePath>,
    /// The paths that stay valid because the lower store has them: nothing of the upper layer was there, or the
    /// duplicate was dropped (then they are in `deleted` too).
    pub below: Vec<StorePath>,
    /// Bytes of disk blocks that were given back: measured, not summed from file sizes, and a file that has another
    /// name yet gave back nothing.
    pub bytes: u64,
    /// Names of files, links and directories that were unlinked.
    pub entries: u64,
    /// Deleted trees that some process still uses; they are unlinked by a later deletion.
    pub waiting: usize,
    /// Whether the mount was made fresh.
    pub remounted: bool,
}

impl Store {
    /// Deletes paths from the upper layer, or from a local store. Paths that are nowhere are passed over.
    ///
    /// Only what is physically in the upper layer can go. A path that is valid below stays valid: its upper copy is
    /// dropped. All paths are judged before the first one is touched.
    ///
    /// # Errors
    /// [`Error::StillAlive`] when a referrer outside `paths` or a root needs one of them: nothing is deleted then.
    /// When the remount fails, what was deleted stays deleted, and the remount stays owed.
    ///
    /// # Deviation
    /// Nix judges the paths one after the other, so that those before the first refusal are gone; it reports success
    /// for a path that is only below; `keep-outputs` and `keep-derivations` do not matter here, as from Nix 2.35 on.
    pub fn delete(&mut self, paths: &[StorePath], options: &DeleteOptions) -> Result<Deleted> {
        let lock = self.collector_lock()?;
        // On a full disk the ballast is what the deletion itself is written with.
        if let Err(error) = self.database.release_reserved_space() {
            tracing::debug!(%error, "the reserved space is not released");
        }
        let paths: Vec<StorePath> = paths
            .iter()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let listener = Listener::start(lock, &self.state, self.dir())?;
        self.refuse_alive(&paths, options)?;
        let parts: Vec<HashPart> = paths.iter().map(StorePath::hash_part).collect();
        if !listener.seal(0, parts) {
            self.refuse_protected(&paths, &listener.heard_since(0).into_iter().collect())?;
        }
        let (objects, below) = self.deletable(&paths)?;
        let rows = self.removable_rows(&paths, &below)?;
        let removal = self.remove(&Leaving {
            objects: &objects,
            junk: &[],
            rows: &rows,
            listener: &listener,
            waiting: None,
        })?;
        let unlinked = removal.unlinked.total();
        Ok(Deleted {
            deleted: objects,
            below: below.into_iter().collect(),
            bytes: unlinked.bytes_freed,
            entries: unlinked.files + unlinked.directories,
            waiting: removal.waiting,
            remounted: removal.remounted,
        })
    }

    /// The objects that are physically there to be deleted, and the paths that are valid below.
    fn deletable(&self, paths: &[StorePath]) -> Result<(Vec<StorePath>, BTreeSet<StorePath>)> {
        let Some(below) = &self.below else {
            let mut objects = Vec::new();
            for path in paths {
                if self.exists(path)? {
                    objects.push(path.clone());
                }
            }
            return Ok((objects, BTreeSet::new()));
        };
        let mut objects = Vec::new();
        for path in paths {
            if below.upper.entry(OsStr::new(path.base_name()))? != Entry::Absent {
                objects.push(path.clone());
            }
        }
        let valid = below.lower.are_valid(paths)?;
        let below = paths
            .iter()
            .zip(valid)
            .filter(|(_, valid)| *valid)
            .map(|(path, _)| path.clone())
            .collect();
        Ok((objects, below))
    }

    /// The rows that go with the paths: all that are there, but for copies from below that other rows refer to.
    fn removable_rows(&self, paths: &[StorePath], below: &BTreeSet<StorePath>) -> Result<Vec<StorePath>> {
        let known = self.database.are_valid(paths)?;
        let mut rows: Vec<StorePath> = paths
            .iter()
            .zip(known)
            .filter(|(_, known)| *known)
            .map(|(path, _)| path.clone())
            .collect();
        // A row that stays keeps those that it refers to, so this goes on until nothing changes.
        loop {
            if rows.is_empty() {
                return Ok(rows);
            }
            let going: HashSet<&StorePath> = rows.iter().collect();
            let referrers = self.database.referrers(&rows)?;
            let staying: HashSet<StorePath> = rows
                .iter()
                .zip(&referrers)
                .filter(|(path, referrers)| {
                    below.contains(*path) && referrers.iter().any(|referrer| !going.contains(referrer))
                })
                .map(|(path, _)| path.clone())
                .collect();
            if staying.is_empty() {
                return Ok(rows);
            }
            rows.retain(|path| !staying.contains(path));
        }
    }

    /// Refuses when something that stays needs one of the paths.
    fn refuse_alive(&self, paths: &[StorePath], options: &DeleteOptions) -> Result<()> {
        let set: HashSet<&StorePath> = paths.iter().collect();
        self.refuse_referred(paths, &set)?;
        let temporary = temp_roots::scan(&self.state, self.dir(), Stale::Remove)?;
        let protected: HashSet<HashPart> = temporary.roots.iter().map(|root| root.path.hash_part()).collect();
        self.refuse_protected(paths, &protected)?;
        if options.liveness == Liveness::Ignore {
            return Ok(());
        }
        for root in self.roots()? {
            if set.contains(&root.path) {
                return Err(self.still_alive(&root.path, format!("the root '{}'", root.link.display())));
            }
        }
        Ok(())
    }

    /// Refuses when a process is about to use one of the paths.
    fn refuse_protected(&self, paths: &[StorePath], protected: &HashSet<HashPart>) -> Result<()> {
        match paths.iter().find(|path| protected.contains(&path.hash_part())) {
            Some(path) => Err(self.still_alive(
                path,
                "a process that uses it right now (temporary root)".to_owned(),
            )),
            None => Ok(()),
        }
    }

    /// Referrers protect, but for those that are valid below: the lower store is closed under references, so that they
    /// find what they refer to there.
    fn refuse_referred(&self, paths: &[StorePath], set: &HashSet<&StorePath>) -> Result<()> {
        let referrers = self.database.referrers(paths)?;
        for (path, referrers) in paths.iter().zip(referrers) {
            let outside: Vec<StorePath> = referrers
                .into_iter()
                .filter(|referrer| !set.contains(referrer))
                .collect();
            let below = match &self.below {
                Some(below) => below.lower.are_valid(&outside)?,
                None => vec![false; outside.len()],
            };
            if let Some((referrer, _)) = outside.iter().zip(below).find(|(_, below)| !below) {
                return Err(
                    self.still_alive(path, format!("its referrer '{}'", self.dir().display(referrer)))
                );
            }
        }
        Ok(())
    }

    fn still_alive(&self, path: &StorePath, by: String) -> Error {
        Error::StillAlive {
            path: self.dir().join(path),
            by,
        }
    }

    /// Everything that keeps paths alive, but for temporary roots: permanent roots that lead to valid paths, and what
    /// running processes use.
    ///
    /// # Errors
    /// If the state directory or `/proc` cannot be read.
    pub fn roots(&self) -> Result<Vec<Root>> {
        roots::lasting::find(&self.state, &self.metadata(), &self.physical(), Stale::Report)
    }

    /// Makes `link`, an absolute path outside the store, a symbolic link to an object, and registers it as a root.
    ///
    /// The object is protected from now on, and by the link when the store is closed.
    ///
    /// # Errors
    /// A path that is not valid; a link that is relative, in the store, or would replace something else than a link
    /// into the store. If a collector was quicker than the link, that is removed again, or leads to what it led to before.
    ///
    /// # Deviation
    /// Nix does not look again when the link is there: its own collector may have looked for links before, and for
    /// temporary roots after that process ended.
    pub fn add_root(&self, link: &Path, path: &StorePath) -> Result<()> {
        let paths = std::slice::from_ref(path);
        self.add_temp_roots(paths)?;
        self.require_valid(path)?;
        let before = roots::add::add_root(&self.state, self.dir(), &self.physical(), link, path)?;
        let kept = self
            .temp_roots
            .roots
            .confirm(paths, self.options.wait(), &mut |_| {
                tracing::info!("waiting for a garbage collection to hear of a root");
            })
            .and_then(|()| self.require_valid(path));
        if kept.is_err() {
            roots::add::take_back_root(self.dir(), link, path, before.as_deref());
        }
        kept
    }

    fn require_valid(&self, path: &StorePath) -> Result<()> {
        match self.valid_in(std::slice::from_ref(path))?[0] {
            Some(_) => Ok(()),
            None => Err(superpose_metadata::Error::NotValid {
                path: self.dir().join(path),
            }
            .into()),
        }
    }

    /// The directories in which the objects of this store are seen, beside the logical store directory.
    pub(super) fn physical(&self) -> Vec<&Path> {
        let upper = self.below.as_ref().map(|below| below.upper.path());
        [Some(self.real.path()), upper].into_iter().flatten().collect()
    }

    /// The paths that need one of `paths`, in the upper database: what a deletion would have to take with it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn dependents(&self, paths: &[StorePath]) -> Result<Vec<StorePath>> {
        let known = self.database.are_valid(paths)?;
        let known: Vec<StorePath> = paths
            .iter()
            .zip(known)
            .filter(|(_, known)| *known)
            .map(|(path, _)| path.clone())
            .collect();
        Ok(self.database.closure(&known, Closure::Referrers)?)
    }
}
