// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of the upper layer that the lower store has by now.
//!
//! A copy above is dropped only when the copy below, as it physically is in the lower directory, is the same. So whoever
//! uses the path finds the same files afterwards; those who hold some of it keep the tree that they hold, which leaves
//! the layer whole and waits in the trash for them.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Stat};
use superpose_metadata::{ArchiveInfo, MetadataSource};
use superpose_nar::{Compared, Comparison, Side, Unreadable, compare_trees, hash_object};
use superpose_store_path::{Hash, HashPart, StorePath};

use super::super::Store;
use super::super::parallel::on_threads;
use super::super::removal::Removal;
use super::super::trash::{self, Trash};
use super::super::unlink;
use super::report::{Kept, Modified, Reason};
use crate::crash::CrashPoint;
use crate::journal::{Intent, Moved, Via};
use crate::roots::Stale;
use crate::store::layer::{Identity, stat_in};
use crate::upper_layer::Layer;
use crate::watch::{Doing, Progress};
use crate::{Error, Result, temp_roots};

/// Rows that are read at once: bounds the memory. They are all over the table, so that each batch may read all of it.
const BATCH: usize = 16 * 1024;

/// What a comparison of the two layers found.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    /// The same above and below.
    pub(super) same: Vec<Duplicate>,
    /// Not the same, or not to be dropped for another reason.
    pub(super) kept: Vec<Kept>,
}

/// A copy in the upper layer that may be dropped.
#[derive(Debug)]
pub(super) struct Duplicate {
    pub(super) path: StorePath,
    /// Whether the upper database knows it.
    has_row: bool,
    is_directory: bool,
    upper: Identity,
    /// In which of the lower directories the other one is.
    lower_dir: usize,
    lower: Identity,
}

/// The directories that are compared; for each lower one, in their order, its name in messages.
struct Sides<'a> {
    upper: (BorrowedFd<'a>, &'a Path),
    lower: Vec<(BorrowedFd<'a>, PathBuf)>,
}

/// An object that both have, and what their rows say.
struct Candidate {
    path: StorePath,
    upper: Option<Hash>,
    lower: Hash,
}

impl Store {
    /// Those of the paths that the lower store has too, and not surely with the same contents.
    pub(in crate::store) fn differing(
        &self,
        paths: Vec<StorePath>,
        threads: NonZero<usize>,
    ) -> Result<Vec<StorePath>> {
        let found = self.find_duplicates(paths, threads)?;
        Ok(found.kept.into_iter().map(|kept| kept.path).collect())
    }

    /// Finds those of the paths, all of them in the layer, that the lower store has too, and compares the objects. Nothing
    /// is changed.
    pub(super) fn find_duplicates(
        &self,
        paths: Vec<StorePath>,
        threads: NonZero<usize>,
    ) -> Result<Duplicates> {
        let below = self.overlay()?;
        let mut found = Duplicates::default();
        let candidates = self.candidates(paths, &mut found.kept);
        let watch = &self.options.watch;
        let mut progress = Progress::new(Doing::Comparing, candidates.len() as u64);
        watch.progress(&progress);
        let bytes = AtomicU64::new(0);
        let sides = Sides {
            upper: (below.upper.fd(), below.upper.path()),
            lower: below
                .lower_dirs
                .iter()
                .map(AsFd::as_fd)
                .zip(below.lower.layers())
                .collect(),
        };
        // Small files, which are compared sooner than they come from a disk.
        let threads = threads.max(unlink::THREADS);
        let answers = on_threads(
            threads,
            &candidates,
            |candidate| compare(&sides, candidate, &bytes),
            |done| {
                watch.progress(&Progress {
                    done,
                    bytes: bytes.load(Ordering::Relaxed),
                    ..progress
                });
                !watch.wants_to_stop()
            },
        );
        watch.go_on()?;
        progress.done = progress.all;
        watch.progress(&progress);
        for (candidate, answer) in candidates.into_iter().zip(answers) {
            match answer {
                Some(Ok(duplicate)) => found.same.push(duplicate),
                Some(Err(reason)) => found.kept.push(Kept {
                    path: candidate.path,
                    reason: *reason,
                }),
                None => {}
            }
        }
        Ok(found)
    }

    /// Puts what both databases say of the paths side by side, of those that the lower store has.
    fn candidates(&self, mut paths: Vec<StorePath>, kept: &mut Vec<Kept>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let Some(below) = &self.below else {
            return candidates;
        };
        // As their index has them: what is read together lies together, in all batches.
        paths.sort_unstable();
        for batch in paths.chunks(BATCH) {
            let both = batch.iter().cloned().zip(archives(&below.lower, batch));
            let (shared, lower): (Vec<StorePath>, Vec<_>) =
                both.filter(|(_, row)| !matches!(row, Ok(None))).unzip();
            let rows = archives(&self.database, &shared).into_iter().zip(lower);
            for (path, rows) in shared.into_iter().zip(rows) {
                let reason = match rows {
                    (Err(error), _) => Reason::Unreadable {
                        layer: Layer::Upper,
                        error,
                    },
                    (_, Err(error)) => Reason::Unreadable {
                        layer: Layer::Lower,
                        error,
                    },
                    (_, Ok(None)) => continue,
                    (Ok(upper), Ok(Some(lower))) => {
                        let (upper, lower) = (upper.map(|archive| archive.hash), lower.hash);
                        if let Some(upper) = upper.filter(|upper| *upper != lower) {
                            Reason::RowsDiffer { upper, lower }
                        } else {
                            candidates.push(Candidate { path, upper, lower });
                            continue;
                        }
                    }
                };
                kept.push(Kept { path, reason });
            }
        }
        candidates
    }

    /// Whether something waits in the trash, of a removal that was killed or of objects that were in use.
    pub(super) fn has_trash(&self) -> Result<bool> {
        let trash = Trash::open_existing(&self.state)?;
        Ok(trash.is_some_and(|trash| trash::list(trash.fd()).is_ok_and(|waiting| !waiting.is_empty())))
    }

    /// Drops the copies above, all with one intent and one remount, and empties the trash. Returns which ones went. The
    /// caller holds the collector's lock.
    ///
    /// # Errors
    /// Before anything is done: when the mount could not be made fresh afterwards, or the journal cannot be written.
    /// After it: when an object cannot be moved or the mount not be made fresh; then the rest stays owed.
    pub(super) fn drop_duplicates(
        &mut self,
        duplicates: Vec<Duplicate>,
        kept: &mut Vec<Kept>,
        threads: NonZero<usize>,
    ) -> Result<(Vec<StorePath>, Removal)> {
        let mut removal = Removal::default();
        let mut journal = self.idle_journal()?;
        let same = self.still_the_same(duplicates, kept, threads)?;
        if same.is_empty() {
            self.empty_trash(&mut removal, None)?;
            return Ok((Vec::new(), removal));
        }
        self.require_refreshable()?;
        let trash = Trash::locate(&self.state, &self.overlay()?.upper)?;
        let moves = same.iter().map(|duplicate| Moved {
            name: duplicate.path.base_name().as_bytes().to_vec(),
            trash: trash.name_for(&duplicate.path),
            // What lies below must show: through the merged view the kernel would leave a whiteout over it.
            via: Via::UpperLayer,
        });
        let intent = Intent::Deduplication(moves.collect());
        journal.begin(&intent)?;
        self.options.crash_points.reached(CrashPoint::IntentWritten);
        let resisting = self.unlink_files(&same, &mut removal)?;
        // Trees have to wait: their users must go on finding what is in them.
        let left = intent.moves().iter().zip(&same);
        let left = left.filter(|(_, duplicate)| duplicate.is_directory || resisting > 0);
        let left: Vec<Moved> = left.map(|(moved, _)| moved.clone()).collect();
        self.move_out(&left, Some(&trash))?;
        self.complete(&mut journal, &intent, &mut removal, None)?;
        self.empty_trash(&mut removal, None)?;
        Ok((
            same.into_iter().map(|duplicate| duplicate.path).collect(),
            removal,
        ))
    }

    /// Unlinks those duplicates that are a file or a link, and returns how many resist. They need not wait in the trash: whoever uses one holds all of it,
    /// and whoever opens it next finds the same below, or what the kernel remembers of this one.
    fn unlink_files(&self, same: &[Duplicate], removal: &mut Removal) -> Result<usize> {
        let files = same.iter().filter(|duplicate| !duplicate.is_directory);
        let names: Vec<OsString> = files.map(|file| file.path.base_name().into()).collect();
        let upper = self.overlay()?.upper.fd();
        Ok(self.unlinking(&removal.unlinked).all(upper, &names))
    }

    /// Sorts out what changed since it was compared, and what a process is adding right now: it has found the path not to be
    /// valid, moved its copy into place, and will write the row next.
    fn still_the_same(
        &self,
        duplicates: Vec<Duplicate>,
        kept: &mut Vec<Kept>,
        threads: NonZero<usize>,
    ) -> Result<Vec<Duplicate>> {
        let below = self.overlay()?;
        let protected: HashSet<HashPart> = if duplicates.iter().all(|duplicate| duplicate.has_row) {
            HashSet::new()
        } else {
            let found = temp_roots::scan(&self.state, self.dir(), Stale::Report)?;
            found.roots.iter().map(|root| root.path.hash_part()).collect()
        };
        let (upper, lower) = (below.upper.fd(), &below.lower_dirs);
        let is_unchanged = |duplicate: &Duplicate| {
            let name = OsStr::new(duplicate.path.base_name());
            let is = |directory: BorrowedFd<'_>, identity: Identity| matches!(stat_in(directory, name), Ok(Some(stat)) if Identity::of(&stat) == identity);
            let lower = lower.get(duplicate.lower_dir);
            is(upper, duplicate.upper) && lower.is_some_and(|lower| is(lower.as_fd(), duplicate.lower))
        };
        let unchanged = on_threads(threads, &duplicates, is_unchanged, |_| true);
        let mut same = Vec::with_capacity(duplicates.len());
        for (duplicate, unchanged) in duplicates.into_iter().zip(unchanged) {
            let reason = if unchanged != Some(true) {
                Reason::Changed
            } else if !duplicate.has_row && protected.contains(&duplicate.path.hash_part()) {
                Reason::InUse
            } else {
                same.push(duplicate);
                continue;
            };
            kept.push(Kept {
                path: duplicate.path,
                reason,
            });
        }
        Ok(same)
    }
}

/// The rows of a batch; a row that cannot be read is an error of its own path, not of the batch.
fn archives(source: &dyn MetadataSource, batch: &[StorePath]) -> Vec<Result<Option<ArchiveInfo>>> {
    if let Ok(archives) = source.archives(batch) {
        return archives.into_iter().map(Ok).collect();
    }
    let one = |path: &StorePath| match source.archives(std::slice::from_ref(path)) {
        Ok(archives) => Ok(archives.into_iter().next().flatten()),
        Err(error) => Err(error.into()),
    };
    batch.iter().map(one).collect()
}

/// Whether the copies above and below are the same.
fn compare(sides: &Sides<'_>, candidate: &Candidate, bytes: &AtomicU64) -> Result<Duplicate, Box<Reason>> {
    let name = OsStr::new(candidate.path.base_name());
    let look = |layer, directory, path: &Path| {
        stat_in(directory, name).map_err(|source| {
            Box::new(Reason::Unreadable {
                layer,
                error: Error::io("examine", path.join(name), source),
            })
        })
    };
    let upper = look(Layer::Upper, sides.upper.0, sides.upper.1)?.ok_or_else(|| Box::new(Reason::Changed))?;
    let mut copies = Vec::new();
    for (place, (directory, path)) in sides.lower.iter().enumerate() {
        let found = look(Layer::Lower, *directory, path)?;
        copies.extend(found.map(|stat| (place, *directory, stat)));
    }
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    // A whiteout of an overlay store below hides what is below that.
    let Some((place, directory, lower)) = copies
        .first()
        .filter(|(_, _, stat)| kind(stat) != FileType::CharacterDevice)
    else {
        let expected = sides.lower.first().map(|(_, path)| path.join(name));
        return Err(Box::new(Reason::Missing {
            expected: expected.unwrap_or_default(),
        }));
    };
    let is_directory = |stat: &Stat| kind(stat) == FileType::Directory;
    if is_directory(lower) && copies[1..].iter().any(|(_, _, stat)| is_directory(stat)) {
        return Err(Box::new(Reason::SeveralBelow));
    }
    let ours = Compared::new(sides.upper.0, name).with_mode(upper.st_mode);
    let theirs = Compared::new(*directory, name).with_mode(lower.st_mode);
    match compare_trees(ours, theirs) {
        Ok(Comparison::Same { content_bytes }) => {
            bytes.fetch_add(content_bytes, Ordering::Relaxed);
            Ok(Duplicate {
                path: candidate.path.clone(),
                has_row: candidate.upper.is_some(),
                is_directory: is_directory(&upper),
                upper: Identity::of(&upper),
                lower_dir: *place,
                lower: Identity::of(lower),
            })
        }
        Ok(Comparison::Different(difference)) => Err(Box::new(Reason::Different {
            difference,
            modified: modified(sides.upper.0, *directory, candidate),
        })),
        Err(Unreadable { side, error }) => Err(Box::new(Reason::Unreadable {
            layer: match side {
                Side::One => Layer::Upper,
                Side::Other => Layer::Lower,
            },
            error: error.into(),
        })),
    }
}

/// Which of two different copies is not what its row says. Of one that cannot be hashed there is nothing to tell beyond
/// the difference.
fn modified(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, candidate: &Candidate) -> Vec<Modified> {
    let copies = [
        (Layer::Upper, upper, candidate.upper.unwrap_or(candidate.lower)),
        (Layer::Lower, lower, candidate.lower),
    ];
    let modified = copies.into_iter().filter_map(|(layer, directory, expected)| {
        match hash_object(directory, candidate.path.base_name()) {
            Ok(found) => (found.hash != expected).then_some(Modified {
                layer,
                expected,
                found: found.hash,
            }),
            Err(error) => {
                tracing::debug!(object = %candidate.path, %layer, %error, "a copy that differs cannot be hashed");
                None
            }
        }
    });
    modified.collect()
}
