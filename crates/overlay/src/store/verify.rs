// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing what the database says with what is on the disk.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use superpose_metadata::{Closure, MetadataSource, PathInfo};
use superpose_nar::{HashingWriter, NarHash};
use superpose_store_path::{Hash, StorePath};

use super::Store;
use crate::gc_lock::VerifierLock;
use crate::upper_layer::Layer;
use crate::watch::{Doing, Progress};
use crate::{Error, Result};

/// Paths that are looked up in the database at once while verifying: bounds the memory, not the work.
const BATCH: usize = 1024;

/// Whether contents are hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contents {
    /// Only the existence of every object is looked at.
    #[default]
    Skip,
    /// Every object is hashed and compared with its row.
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
        let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        VerifyOptions {
            contents: Contents::Skip,
            threads,
        }
    }
}

/// One fault that was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The object is gone, and valid paths refer to it, or it is valid in the lower store.
    ///
    /// # Deviation
    /// Nix forgets a row of the latter kind, and copies it up again when it is next asked about it.
    Missing {
        /// The path.
        path: StorePath,
        /// Valid paths that refer to it.
        referrers: Vec<StorePath>,
    },
    /// The object is not what was registered.
    Modified {
        /// The path.
        path: StorePath,
        /// Which layer holds the object.
        layer: Layer,
        /// What the row says.
        expected: Hash,
        /// What the object is.
        found: Hash,
    },
    /// The object cannot be hashed, or its row cannot be read.
    Unreadable {
        /// The path.
        path: StorePath,
        /// Why.
        error: Error,
    },
}

/// What a verification found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many rows were looked at.
    pub rows: usize,
    /// How many objects were hashed.
    pub hashed: usize,
    /// Bytes of archives that were hashed.
    pub bytes: u64,
    /// What is wrong, in path order.
    pub faults: Vec<Fault>,
    /// Objects that had disappeared and that nothing refers to: their rows were deleted, which is no fault.
    pub forgotten: Vec<StorePath>,
}

impl Store {
    /// Verifies every path that the upper database knows (of a local store: every path), and reports every fault.
    ///
    /// Of an overlay store the objects that are only in the lower store and have no row above are its own affair.
    ///
    /// # Errors
    /// If the store cannot be read at all. What is wrong with single objects is in the report.
    pub fn verify(&mut self, options: &VerifyOptions) -> Result<VerifyReport> {
        let lock = VerifierLock::acquire(&self.state, self.options.wait(), &mut |lock| {
            tracing::info!(lock = %lock.display(), "waiting for a garbage collection to end");
        })?;
        let mut paths = Vec::new();
        self.database.for_each_valid_path(&mut |path| {
            paths.push(path);
            Ok(())
        })?;
        paths.sort_unstable();
        let mut report = VerifyReport {
            rows: paths.len(),
            ..VerifyReport::default()
        };
        let present = self.check_existence(paths, &mut report)?;
        if options.contents == Contents::Check {
            self.check_contents(&present, options.threads, &mut report)?;
        }
        report.faults.sort_by(|one, other| one.path().cmp(other.path()));
        drop(lock);
        Ok(report)
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

    /// Splits off what disappeared; rows that nothing present needs are deleted, as Nix does it.
    fn check_existence(
        &mut self,
        paths: Vec<StorePath>,
        report: &mut VerifyReport,
    ) -> Result<Vec<StorePath>> {
        let mut present = Vec::with_capacity(paths.len());
        let mut gone = Vec::new();
        for path in paths {
            if self.exists(&path)? {
                present.push(path)
            } else {
                gone.push(path)
            }
        }
        if gone.is_empty() {
            return Ok(present);
        }
        // What a present object needs is missed, and so is what that needs; the rest is not. A lower object that is
        // there counts too, though its row is not above. What is valid below is missed in any case: without its row
        // above it would be as valid as before.
        let referrers = self.metadata().referrers(&gone)?;
        let valid_below = match &self.below {
            Some(below) => below.lower.are_valid(&gone)?,
            None => vec![false; gone.len()],
        };
        let mut needing = present.clone();
        for ((path, referrers), valid_below) in gone.iter().zip(&referrers).zip(valid_below) {
            if valid_below {
                needing.push(path.clone());
                continue;
            }
            for referrer in referrers.iter().filter(|referrer| *referrer != path) {
                if self.exists(referrer)? {
                    needing.push(path.clone());
                    break;
                }
            }
        }
        let needed: HashSet<StorePath> = self
            .database
            .closure(&needing, Closure::References)?
            .into_iter()
            .collect();
        let mut forgotten = Vec::new();
        for (path, mut referrers) in gone.into_iter().zip(referrers) {
            if needed.contains(&path) {
                referrers.retain(|referrer| *referrer != path);
                report.faults.push(Fault::Missing { path, referrers });
            } else {
                forgotten.push(path);
            }
        }
        self.database.invalidate(&forgotten)?;
        report.forgotten = forgotten;
        Ok(present)
    }

    /// Hashes the objects on all threads.
    fn check_contents(
        &self,
        paths: &[StorePath],
        threads: NonZero<usize>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let watch = &self.options.watch;
        let mut progress = Progress::new(Doing::Hashing, paths.len() as u64);
        let layers: HashMap<&StorePath, Layer> = paths.iter().zip(self.locate(paths)?).collect();
        for batch in paths.chunks(BATCH) {
            let infos = self.readable_infos(batch, report)?;
            let results = hash_all(self.real.fd(), &infos, threads, &|hashed, bytes| {
                watch.progress(&Progress {
                    done: progress.done + hashed,
                    bytes: progress.bytes + bytes,
                    ..progress
                });
                !watch.wants_to_stop()
            });
            watch.go_on()?;
            for (info, result) in infos.into_iter().zip(results) {
                let layer = layers.get(&info.path).copied().unwrap_or(Layer::Lower);
                match result {
                    Ok(found) => {
                        report.hashed += 1;
                        report.bytes += found.size;
                        if found.hash != info.nar_hash {
                            report.faults.push(Fault::Modified {
                                path: info.path,
                                layer,
                                expected: info.nar_hash,
                                found: found.hash,
                            });
                        }
                    }
                    Err(error) => report.faults.push(Fault::Unreadable {
                        path: info.path,
                        error: error.into(),
                    }),
                }
            }
            progress.done += batch.len() as u64;
            progress.bytes = report.bytes;
        }
        Ok(())
    }

    /// The rows of a batch; a row that cannot be read is a fault of its own path, not of the batch.
    fn readable_infos(&self, batch: &[StorePath], report: &mut VerifyReport) -> Result<Vec<PathInfo>> {
        if let Ok(infos) = self.database.path_infos(batch) {
            return Ok(infos.into_iter().flatten().collect());
        }
        let mut infos = Vec::with_capacity(batch.len());
        for path in batch {
            match self.database.path_infos(std::slice::from_ref(path)) {
                Ok(found) => infos.extend(found.into_iter().flatten()),
                Err(error) => report.faults.push(Fault::Unreadable {
                    path: path.clone(),
                    error: error.into(),
                }),
            }
        }
        Ok(infos)
    }
}

impl Fault {
    /// The path that is at fault.
    #[must_use]
    pub fn path(&self) -> &StorePath {
        match self {
            Fault::Missing { path, .. } | Fault::Modified { path, .. } | Fault::Unreadable { path, .. } => {
                path
            }
        }
    }
}

/// Hashes objects; the answers are in the order of the question. `go_on` is told how many objects and bytes are
/// hashed, and may end it: then there is no answer for the rest.
fn hash_all(
    dir: rustix::fd::BorrowedFd<'_>,
    infos: &[PathInfo],
    threads: NonZero<usize>,
    go_on: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Vec<superpose_nar::Result<NarHash>> {
    // The largest first, so that no thread is left alone with a giant at the end.
    let mut order: Vec<usize> = (0..infos.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(infos[i].nar_size));
    let next = AtomicUsize::new(0);
    let bytes = AtomicU64::new(0);
    let results: Mutex<Vec<Option<superpose_nar::Result<NarHash>>>> =
        Mutex::new((0..infos.len()).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(infos.len()) {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&i) = order.get(turn) else { break };
                    let mut writer = HashingWriter::new(std::io::sink());
                    let result = superpose_nar::dump(dir, infos[i].path.base_name(), &mut writer);
                    let result = result.map(|_| writer.finish().1);
                    let size = result.as_ref().map_or(0, |found| found.size);
                    results.lock().expect("no thread panics while it holds the lock")[i] = Some(result);
                    let bytes = bytes.fetch_add(size, Ordering::Relaxed) + size;
                    if !go_on(turn as u64 + 1, bytes) {
                        break;
                    }
                }
            });
        }
    });
    let results = results
        .into_inner()
        .expect("no thread panics while it holds the lock");
    results.into_iter().flatten().collect()
}
