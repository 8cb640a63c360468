// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing what the databases say with what is on the disk.
//!
//! Names come first: every row of the upper database, every name in the upper layer, and what the lower store says of
//! them; one reading of the layer and a few questions for many paths at once. Contents follow if they are wanted, those
//! of the whole store in one go. Of an overlay store, objects that are only below and have no row above are the lower
//! store's own affair, and cost nothing.

mod contents;
mod existence;
mod fault;
mod links;
mod names;

use std::ffi::OsStr;
use std::num::NonZero;

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use superpose_metadata::{ArchiveInfo, MetadataSource};
use superpose_store_path::{HashAlgorithm, StorePath};

use self::contents::Subject;
pub use self::fault::{Fault, Note};
use super::Store;
use super::parallel::processors;
use crate::gc_lock::VerifierLock;
use crate::survey::Entries;
use crate::{Error, Result};

/// Paths that are looked up in the databases at once while verifying: bounds the memory, not the work.
const BATCH: usize = 1024;

/// Whether contents are hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contents {
    /// Only names, rows and the existence of every object are looked at.
    #[default]
    Skip,
    /// Every object is hashed and compared with its row, and every entry of the hard-link farm with its name.
    Check,
}

/// How to verify.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Whether contents are hashed.
    pub contents: Contents,
    /// How many threads hash.
    pub threads: NonZero<usize>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions {
            contents: Contents::Skip,
            threads: processors(),
        }
    }
}

/// What a verification found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many rows were looked at.
    pub rows: usize,
    /// How many objects were hashed.
    pub hashed: usize,
    /// How many entries of the hard-link farm were hashed.
    pub links: usize,
    /// Bytes of archives that were hashed.
    pub bytes: u64,
    /// What is wrong, in the order of names.
    pub faults: Vec<Fault>,
    /// What is good to know, in the order of names.
    pub notes: Vec<Note>,
    /// Objects that had disappeared and that nothing refers to: their rows were deleted, which is no fault.
    pub forgotten: Vec<StorePath>,
}

impl Store {
    /// Verifies every path that the upper database knows (of a local store: every path) and every name in the layer, and
    /// reports every fault.
    ///
    /// # Errors
    /// If the store cannot be read at all, or the caller wants it to stop. What is wrong with single objects is in the
    /// report.
    ///
    /// # Deviation
    /// Nix looks neither at the names in the layer nor at what the lower store says; it mends hashes and sizes that are
    /// missing without being asked to.
    pub fn verify(&mut self, options: &VerifyOptions) -> Result<VerifyReport> {
        let lock = VerifierLock::acquire(&self.state, self.options.wait(), &mut |lock| {
            tracing::info!(lock = %lock.display(), "waiting for a garbage collection to end");
        })?;
        let mut report = VerifyReport::default();
        let mut rows = Vec::new();
        self.database.for_each_valid_path(&mut |path| {
            rows.push(path);
            Ok(())
        })?;
        rows.sort_unstable();
        report.rows = rows.len();
        // After the rows: what is being added gets its row last, so that every row of before has its object in here.
        let entries = self.entries()?;
        let subjects = self.verify_names(&rows, &entries, &mut report)?;
        drop((rows, entries));
        if options.contents == Contents::Check {
            self.verify_contents(&subjects, options.threads, &mut report)?;
            self.verify_links(options.threads, &mut report)?;
        } else {
            report.notes.extend(subjects.iter().filter_map(Subject::note));
            report.faults.extend(subjects.iter().filter_map(Subject::fault));
        }
        report.faults.sort_by(|one, other| one.name().cmp(other.name()));
        report.notes.sort_by(|one, other| one.name().cmp(other.name()));
        drop(lock);
        Ok(report)
    }

    /// The names in the upper layer, or in a local store.
    fn entries(&self) -> Result<Entries> {
        match &self.below {
            Some(below) => Entries::read(below.upper.fd(), below.upper.path()),
            None => Entries::read(self.real.fd(), self.real.path()),
        }
    }

    /// Whether the object is in the store directory.
    pub(super) fn exists(&self, path: &StorePath) -> Result<bool> {
        match fs::statat(
            self.real.fd(),
            OsStr::new(path.base_name()),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(source) => Err(Error::io(
                "examine",
                self.real.path().join(path.base_name()),
                source,
            )),
        }
    }
}

/// What a database says of the archive of a path.
#[derive(Debug)]
pub(super) enum Row {
    /// The path is not valid.
    Absent,
    Known(ArchiveInfo),
    /// The path is valid, and its row holds something impossible.
    Unreadable(Error),
}

impl Row {
    pub(super) fn is_valid(&self) -> bool {
        !matches!(self, Row::Absent)
    }

    /// What is known, if it is.
    pub(super) fn archive(&self) -> Option<&ArchiveInfo> {
        match self {
            Row::Known(archive) => Some(archive),
            Row::Absent | Row::Unreadable(_) => None,
        }
    }
}

/// Reads rows; one that cannot be understood is a fault of its own path, not of the batch.
///
/// # Errors
/// If the source as such cannot be read.
pub(super) fn read_rows(source: &dyn MetadataSource, paths: &[StorePath]) -> Result<Vec<Row>> {
    use superpose_metadata::Error as E;
    let rows = |archives: Vec<Option<ArchiveInfo>>| {
        let row = |archive: Option<ArchiveInfo>| archive.map_or(Row::Absent, Row::Known);
        archives.into_iter().map(row).collect()
    };
    match source.archives(paths) {
        Ok(archives) => Ok(rows(archives)),
        Err(error @ (E::Column { .. } | E::ColumnValue { .. })) if paths.len() == 1 => {
            Ok(vec![Row::Unreadable(error.into())])
        }
        Err(E::Column { .. } | E::ColumnValue { .. }) => {
            let one = |path| Ok(read_rows(source, std::slice::from_ref(path))?.remove(0));
            paths.iter().map(one).collect()
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a row says nothing of the contents. Nix writes such hashes where it does not know one.
pub(super) fn is_unknown(archive: &ArchiveInfo) -> bool {
    archive.hash.algorithm() == HashAlgorithm::Sha256 && archive.hash.digest().iter().all(|&byte| byte == 0)
}
