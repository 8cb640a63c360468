// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mending what a verification has found.
//!
//! Whiteouts over valid objects go, bad entries leave the hard-link farm, hashes and sizes that are missing are filled
//! in. A bad object makes room for a good one of another store; in an overlay store the good one comes into the upper
//! layer, wherever the fault is: the lower store stays as it is.

mod exchange;
mod objects;
mod rows;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use superpose_store_path::{Hash, StorePath};

use super::Store;
use super::verify::{Fault, VerifyReport};
use crate::view::StoreView;
use crate::{Error, Result};

/// Why a fault stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// A good object is needed, and no store was named to take it from.
    #[error("no store was named to take a good one from")]
    NoSource,
    /// The other store does not have it.
    #[error("it is not valid in '{url}'")]
    NotInSource {
        /// The other store.
        url: String,
    },
    /// The other store has something else under this path.
    #[error("'{url}' has another one: expected {expected}, found {found}")]
    OtherInSource {
        /// The other store.
        url: String,
        /// The hash in the row of this store.
        expected: Hash,
        /// That in the row of the other one.
        found: Hash,
    },
    /// The object of the other store is not what was registered there.
    #[error("the one in '{url}' is modified itself: expected {expected}, found {found}")]
    ModifiedInSource {
        /// The other store.
        url: String,
        /// The hash in both rows.
        expected: Hash,
        /// What was read.
        found: Hash,
    },
    /// The object of the other store, or its row, cannot be read.
    #[error("the one in '{url}' cannot be read")]
    UnreadableInSource {
        /// The other store.
        url: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The row of this store cannot be read, so nobody knows what a good object would be.
    #[error("its row cannot be read")]
    UnreadableRow {
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The row of this store has no hash, so nobody knows what a good object would be.
    #[error("its row has no hash")]
    NoHash,
    /// What is missing in the row can only be filled in when contents are looked at.
    #[error("contents were not looked at")]
    ContentsUnknown,
    /// Another process adds or repairs the path at this moment.
    #[error("another process has locked it")]
    Busy,
    /// It is not valid any more, or not the same.
    #[error("it changed meanwhile")]
    Changed,
    /// A directory over a lower one needs a mark, and the mount does not tell in which attribute.
    #[error("the mount does not tell how a directory is marked opaque")]
    UnknownMount,
    /// It is no object, and nothing is known of what it is good for.
    #[error("only a collection of garbage, or a person, may remove it")]
    Foreign,
}

/// What a repair did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Repaired {
    /// Paths whose objects were replaced, sorted.
    pub objects: Vec<StorePath>,
    /// Paths that a whiteout had hidden.
    pub uncovered: Vec<StorePath>,
    /// Paths whose rows have a hash and a size now.
    pub rows: Vec<StorePath>,
    /// Names that left the hard-link farm.
    pub links: Vec<OsString>,
    /// Bytes of archives that were brought from the other store.
    pub bytes: u64,
    /// Names whose faults stay, and why.
    pub left: Vec<(OsString, Obstacle)>,
}

impl Repaired {
    fn leave(&mut self, name: impl AsRef<OsStr>, obstacle: Obstacle) {
        self.left.push((name.as_ref().to_owned(), obstacle));
    }

    fn leave_path(&mut self, path: &StorePath, obstacle: Obstacle) {
        self.leave(path.base_name(), obstacle);
    }
}

impl Store {
    /// Mends what a verification has found: what needs nothing from elsewhere, and with a store to take good objects from
    /// everything that has one there.
    ///
    /// An object is only taken if its row there has the hash of the row here, and if it is what the row says: it is hashed
    /// while it is written, and comes to its place by one exchange, so that at any moment the old one is there or the new
    /// one. Rows stay as they are; a path that has none in the upper database gets a copy of that below.
    ///
    /// # Errors
    /// If a lock, a database or the layer refuses, the disk is full, or the caller wants it to stop: what was mended
    /// until then stays mended, and all else is as it was.
    ///
    /// # Deviation
    /// Nix builds or substitutes; here the good object comes from a store that is named.
    pub fn repair(&mut self, report: &VerifyReport, from: Option<&StoreView>) -> Result<Repaired> {
        let mut repaired = Repaired::default();
        self.fill_in_rows(report, &mut repaired)?;
        let (mut hidden, mut links, mut objects) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for fault in &report.faults {
            match fault {
                Fault::Hidden { path } => hidden.extend([path.clone()]),
                Fault::Link { name, .. } | Fault::UnreadableLink { name, .. } => links.extend([name.clone()]),
                Fault::NoHash { path, found: None } => repaired.leave_path(path, Obstacle::ContentsUnknown),
                Fault::NoHash { .. } => {}
                Fault::ForeignName { name } => repaired.leave(name, Obstacle::Foreign),
                Fault::Missing { path, .. }
                | Fault::Modified { path, .. }
                | Fault::Unreadable { path, .. }
                | Fault::Lost { path }
                | Fault::Drifted { path, .. }
                | Fault::Incomplete { path }
                | Fault::MetadataOnly { path } => objects.extend([path.clone()]),
            }
        }
        self.uncover_and_unlink(hidden, links, &mut repaired)?;
        match from {
            Some(from) => self.repair_objects(&objects, from, &mut repaired)?,
            None => objects
                .iter()
                .for_each(|path| repaired.leave_path(path, Obstacle::NoSource)),
        }
        repaired.objects.sort_unstable();
        Ok(repaired)
    }

    /// Removes whiteouts and bad entries of the hard-link farm; of an overlay store both behind the mount, with one
    /// remount.
    fn uncover_and_unlink(
        &self,
        hidden: BTreeSet<StorePath>,
        links: BTreeSet<OsString>,
        repaired: &mut Repaired,
    ) -> Result<()> {
        if hidden.is_empty() && links.is_empty() {
            return Ok(());
        }
        self.options.watch.go_on()?;
        let _lock = self.collector_lock()?;
        if self.below.is_some() {
            let mut journal = self.idle_journal()?;
            let hidden = hidden.into_iter().collect();
            repaired.uncovered = self.uncover(&mut journal, hidden, || self.unlink_links(&links))?;
        } else {
            self.unlink_links(&links)?;
        }
        repaired.links = links.into_iter().collect();
        Ok(())
    }

    fn unlink_links(&self, names: &BTreeSet<OsString>) -> Result<()> {
        let Some((links, path)) = self.open_links()? else {
            return Ok(());
        };
        for name in names {
            match fs::unlinkat(&links, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => return Err(Error::io("remove", path.join(name), source)),
            }
        }
        Ok(())
    }
}
