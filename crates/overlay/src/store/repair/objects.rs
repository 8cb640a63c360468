// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing good objects from another store, batch by batch.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use superpose_metadata::{ArchiveInfo, MetadataSource};
use superpose_nar::{ObjectKind, RestoreOptions, Taps};
use superpose_store_path::StorePath;

use super::{Obstacle, Repaired};
use crate::crash::CrashPoint;
use crate::random;
use crate::store::Store;
use crate::store::layer::Layer;
use crate::store::open::Durability;
use crate::store::place::Scratch;
use crate::store::verify::{Row, is_unknown, read_rows};
use crate::view::StoreView;
use crate::watch::{Doing, Progress, Watch};
use crate::{Error, Result, marks};

/// Objects in one batch: each keeps two files open while it is put in its place, and a process may often have no more
/// than a thousand. A batch costs one sync and one remount.
const BATCH_OBJECTS: usize = 128;

/// Archives in one batch, in bytes, unless one alone is larger: so much room is needed beside the old objects.
const BATCH_BYTES: u64 = 1 << 30;

/// An object that is to be replaced, and what it is to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) path: StorePath,
    pub(super) archive: ArchiveInfo,
}

/// A good object under a scratch name.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) wanted: Wanted,
    pub(super) scratch: Scratch,
    /// Whether it has the name that it is for.
    pub(super) in_place: bool,
}

/// The store that good objects come from.
#[derive(Debug)]
struct Origin<'a> {
    view: &'a StoreView,
    objects: OwnedFd,
    url: String,
}

impl<'a> Origin<'a> {
    fn open(view: &'a StoreView) -> Result<Self> {
        let path = &view.layout().settings().real_dir;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let objects = fs::open(path, flags, Mode::empty())
            .map_err(|source| Error::io("open the store directory", path, source))?;
        Ok(Origin {
            view,
            objects,
            url: view.layout().reference().to_string(),
        })
    }
}

/// Counts what is copied, and ends it when the caller wants it.
struct Counter<'a> {
    watch: &'a Watch,
    progress: Progress,
}

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.bytes += bytes.len() as u64;
        self.watch.progress(&self.progress);
        if self.watch.wants_to_stop() {
            return Err(io::Error::other("stopped"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Replaces objects by good ones.
    pub(super) fn repair_objects(
        &mut self,
        paths: &BTreeSet<StorePath>,
        from: &StoreView,
        repaired: &mut Repaired,
    ) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let origin = Origin::open(from)?;
        if from.store_dir() != self.dir() {
            return Err(Error::ForeignSource {
                url: origin.url,
                expected: self.dir().clone(),
                found: from.store_dir().clone(),
            });
        }
        if self.below.is_some() {
            self.require_refreshable()?;
        }
        let wanted = self.wanted(paths, &origin, repaired)?;
        let watch = self.options.watch.clone();
        let mut counter = Counter {
            watch: &watch,
            progress: Progress {
                all_bytes: Some(wanted.iter().map(|wanted| wanted.archive.size).sum()),
                ..Progress::new(Doing::Repairing, wanted.len() as u64)
            },
        };
        for batch in batches(&wanted) {
            watch.go_on()?;
            let mut restored = Vec::with_capacity(batch.len());
            let result = self
                .restore_batch(batch, &origin, &mut restored, &mut counter, repaired)
                .and_then(|()| self.put_in_place(&mut restored, repaired));
            for left in restored.iter().filter(|restored| !restored.in_place) {
                self.discard(&left.scratch);
            }
            result?;
        }
        repaired.bytes = counter.progress.bytes;
        Ok(())
    }

    /// What a good object is, and whether the other store says that it has one.
    fn wanted(
        &self,
        paths: &BTreeSet<StorePath>,
        origin: &Origin<'_>,
        repaired: &mut Repaired,
    ) -> Result<Vec<Wanted>> {
        let paths: Vec<StorePath> = paths.iter().cloned().collect();
        let here = read_rows(&self.metadata(), &paths)?;
        let there = read_rows(origin.view, &paths)?;
        let mut wanted = Vec::new();
        for ((path, here), there) in paths.into_iter().zip(here).zip(there) {
            let url = origin.url.clone();
            let obstacle = match (here, there) {
                (Row::Absent, _) => Obstacle::Changed,
                (Row::Unreadable(error), _) => Obstacle::UnreadableRow {
                    source: Box::new(error),
                },
                (Row::Known(archive), _) if is_unknown(&archive) => Obstacle::NoHash,
                (_, Row::Absent) => Obstacle::NotInSource { url },
                (_, Row::Unreadable(error)) => Obstacle::UnreadableInSource {
                    url,
                    source: Box::new(error),
                },
                (Row::Known(archive), Row::Known(other)) if archive.hash != other.hash => {
                    Obstacle::OtherInSource {
                        url,
                        expected: archive.hash,
                        found: other.hash,
                    }
                }
                (Row::Known(archive), Row::Known(_)) => {
                    wanted.push(Wanted { path, archive });
                    continue;
                }
            };
            repaired.leave_path(&path, obstacle);
        }
        Ok(wanted)
    }

    /// Brings the objects of a batch under scratch names of the layer, and onto the disk.
    fn restore_batch(
        &mut self,
        batch: &[Wanted],
        origin: &Origin<'_>,
        restored: &mut Vec<Restored>,
        counter: &mut Counter<'_>,
        repaired: &mut Repaired,
    ) -> Result<()> {
        let scratches: Vec<StorePath> = batch.iter().map(|_| random::scratch_path()).collect();
        let paths: Vec<StorePath> = batch.iter().map(|wanted| wanted.path.clone()).collect();
        self.add_temp_roots(&[&scratches[..], &paths[..]].concat())?;
        self.options.crash_points.reached(CrashPoint::ScratchMade);
        // Protected from now on; what was collected before is no matter any more.
        let valid = self.metadata().are_valid(&paths)?;
        let ensured: Vec<StorePath> = paths
            .iter()
            .zip(&valid)
            .filter(|(_, valid)| **valid)
            .map(|(path, _)| path.clone())
            .collect();
        self.ensure(&ensured)?;
        for ((wanted, scratch), valid) in batch.iter().zip(scratches).zip(valid) {
            if !valid {
                repaired.leave_path(&wanted.path, Obstacle::Changed);
                continue;
            }
            restored.push(Restored {
                wanted: wanted.clone(),
                scratch: Scratch::of(scratch),
                in_place: false,
            });
            let scratch = restored.last().expect("pushed just now").scratch.clone();
            if let Some(obstacle) = self.restore_one(wanted, &scratch, origin, counter)? {
                restored.pop();
                self.discard(&scratch);
                repaired.leave_path(&wanted.path, obstacle);
            }
            counter.progress.done += 1;
            self.options.crash_points.reached(CrashPoint::ObjectRestored);
        }
        if self.options.durability == Durability::Synced && !restored.is_empty() {
            let layer = self.layer();
            fs::syncfs(layer.fd)
                .map_err(|source| Error::io("sync the file system of", layer.path, source))?;
        }
        Ok(())
    }

    /// Copies one object and hashes the copy; gives back why it is no good.
    fn restore_one(
        &self,
        wanted: &Wanted,
        scratch: &Scratch,
        origin: &Origin<'_>,
        counter: &mut Counter<'_>,
    ) -> Result<Option<Obstacle>> {
        let Layer {
            fd: layer,
            path: layer_path,
        } = self.layer();
        let copied = superpose_nar::copy_tree(
            (&origin.objects, wanted.path.base_name()),
            (layer, scratch.name()),
            // All of them are synced at once.
            &RestoreOptions::default(),
            Taps::none().archive(&mut *counter),
        );
        let url = || origin.url.clone();
        let copied = match copied {
            Ok(copied) => copied,
            Err(error) => {
                self.options.watch.go_on()?;
                return match error.io_kind() {
                    Some(
                        io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                        | io::ErrorKind::ReadOnlyFilesystem,
                    ) => Err(Error::CannotRepair {
                        object: self.dir().join(&wanted.path),
                        path: layer_path.to_owned(),
                        source: Box::new(error),
                    }),
                    _ => Ok(Some(Obstacle::UnreadableInSource {
                        url: url(),
                        source: Box::new(error.into()),
                    })),
                };
            }
        };
        if copied.nar.hash != wanted.archive.hash {
            return Ok(Some(Obstacle::ModifiedInSource {
                url: url(),
                expected: wanted.archive.hash,
                found: copied.nar.hash,
            }));
        }
        if copied.tree.kind == ObjectKind::Directory
            && let Some(below) = &self.below
            && below.lies_below(OsStr::new(wanted.path.base_name()))?
        {
            // Or the files of the bad object below would show between its own.
            let Some(kind) = self.attribute_kind()? else {
                return Ok(Some(Obstacle::UnknownMount));
            };
            marks::make_opaque(layer, layer_path, scratch.name(), kind)?;
        }
        Ok(None)
    }
}

/// Cuts a list into batches that are bounded in number and in bytes.
fn batches(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    let mut batches = Vec::new();
    let mut begin = 0;
    let mut bytes = 0_u64;
    for (end, next) in wanted.iter().enumerate() {
        let size = next.archive.size;
        if end > begin && (end - begin == BATCH_OBJECTS || bytes.saturating_add(size) > BATCH_BYTES) {
            batches.push(&wanted[begin..end]);
            (begin, bytes) = (end, 0);
        }
        bytes = bytes.saturating_add(size);
    }
    if begin < wanted.len() {
        batches.push(&wanted[begin..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use superpose_store_path::Hash;

    fn lengths(sizes: &[u64]) -> Vec<usize> {
        let wanted: Vec<Wanted> = sizes
            .iter()
            .map(|&size| Wanted {
                path: random::scratch_path(),
                archive: ArchiveInfo {
                    hash: Hash::sha256([1; 32]),
                    size,
                },
            })
            .collect();
        let batches = batches(&wanted);
        let all: usize = batches.iter().map(|batch| batch.len()).sum();
        assert_eq!(all, sizes.len());
        batches.iter().map(|batch| batch.len()).collect()
    }

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        assert_eq!(lengths(&[]), []);
        assert_eq!(lengths(&[1; 300]), [128, 128, 44]);
        let half = BATCH_BYTES / 2;
        assert_eq!(lengths(&[half, half, half]), [2, 1]);
        assert_eq!(lengths(&[u64::MAX, 1, u64::MAX]), [1, 1, 1]);
    }
}
