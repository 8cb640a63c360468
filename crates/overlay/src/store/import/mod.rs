// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding objects of which it is known what they are, from archives or from other stores, in batches: each batch with
//! one sync and one transaction.

mod check;
mod stream;
mod unpack;
mod upload;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::sync::Mutex;

use rustix::fd::BorrowedFd;
use rustix::fs;
use rustix::process::{Resource, getrlimit};
use superpose_metadata::PathInfo;
use superpose_nar::RestoreOptions;
use superpose_store_path::StorePath;

use self::unpack::{Site, unpack};
pub use self::upload::ObjectStream;
use super::add::Outcome;
use super::open::Durability;
use super::place::{Finished, Scratch};
use super::{SignatureCheck, Store};
use crate::upper_layer::Layer;
use crate::watch::{Doing, Progress, Watch};
use crate::{Error, Result};

/// How many objects a batch holds at most. While a batch is registered each of its objects has a lock file open, and a
/// process may usually have 1,024 files; where it may have fewer, a batch takes half of them.
const MAX_OBJECTS: u64 = 512;

/// How many bytes of archives a batch holds at most, unless a single object has more: so that work that is stopped or
/// fails has little to do again, and the disk is kept busy from early on.
const MAX_BYTES: u64 = 256 << 20;

/// How many objects a batch may hold in this process.
fn max_objects() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Bounded by a small number.
    (files / 2).clamp(1, MAX_OBJECTS) as usize
}

/// The sizes of archives together, whatever impossible sizes rows claim.
pub(crate) fn total_size<'info>(infos: impl Iterator<Item = &'info PathInfo>) -> u64 {
    infos.fold(0, |total, info| total.saturating_add(info.nar_size))
}

/// An object that is to be added, and what is known of it.
///
/// Whether the object was built here ([`PathInfo::ultimate`]) is not taken over: elsewhere is not here. A registration
/// time of 0 becomes the present.
#[derive(Debug)]
pub struct NewObject<'a> {
    /// What is known of it. Hash and size of the archive, and the content address if there is one, are compared with
    /// what arrives.
    pub info: PathInfo,
    /// Where it comes from.
    pub source: ObjectSource<'a>,
}

/// Where an object comes from.
pub enum ObjectSource<'a> {
    /// An archive. It is not read beyond its end, and not at all if the object is valid already.
    Nar(Box<dyn Read + Send + 'a>),
    /// An object in an open directory.
    Tree {
        /// The directory.
        directory: BorrowedFd<'a>,
        /// The name of the object in it.
        name: OsString,
    },
}

impl fmt::Debug for ObjectSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectSource::Nar(_) => f.write_str("Nar"),
            ObjectSource::Tree { name, .. } => f.debug_tuple("Tree").field(name).finish(),
        }
    }
}

/// What became of an object that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The object.
    pub path: StorePath,
    /// Whether it had to be written.
    pub outcome: Outcome,
}

/// An object on its way through a batch.
struct Arriving<'a> {
    /// Without [`Arriving::nar_is_known`], hash and size of the archive are filled in when it has been read.
    info: PathInfo,
    nar_is_known: bool,
    /// Where it comes from, until it is unpacked.
    source: Option<ObjectSource<'a>>,
    /// Under what name it is unpacked.
    scratch: Option<Scratch>,
    outcome: Option<Outcome>,
}

impl<'a> Arriving<'a> {
    /// An object of which everything is known.
    fn known(info: PathInfo, source: Option<ObjectSource<'a>>) -> Self {
        Arriving {
            info,
            nar_is_known: true,
            source,
            scratch: None,
            outcome: None,
        }
    }
}

/// How far everything has come, for several threads.
struct Meter<'a> {
    watch: &'a Watch,
    progress: Mutex<Progress>,
}

impl<'a> Meter<'a> {
    fn new(watch: &'a Watch, objects: u64, bytes: Option<u64>) -> Self {
        let mut progress = Progress::new(Doing::Copying, objects);
        progress.all_bytes = bytes;
        Meter {
            watch,
            progress: Mutex::new(progress),
        }
    }

    /// One more object is done.
    fn count(&self, bytes: u64) {
        let mut progress = self
            .progress
            .lock()
            .expect("no thread panics while it holds the lock");
        progress.done += 1;
        progress.all = progress.all.max(progress.done);
        progress.bytes = progress.bytes.saturating_add(bytes);
        self.watch.progress(&progress);
    }
}

impl Store {
    /// Adds objects of which it is known what they are, and protects them until the store is closed. The answers are in
    /// the order of the objects.
    ///
    /// Each must come after what it refers to, or be in the same batch. What is valid already, in whichever layer, is
    /// neither read nor written.
    ///
    /// # Durability
    /// A batch has one sync of its objects, one of their names and one of their rows, however many they are.
    ///
    /// # Errors
    /// [`Error::Untrusted`] for an object that needs a signature and has none; [`Error::HashMismatch`] and
    /// [`Error::SizeMismatch`] for one that is not what is known of it; a reference that is valid nowhere; a full disk;
    /// [`Error::Stopped`]. Nothing of the batch is registered then, and what had been written of it is removed; the
    /// batches before it stay.
    ///
    /// # Deviation
    /// Nix adds one object after the other, each with a transaction of its own.
    pub fn add_objects<'a>(
        &mut self,
        objects: impl IntoIterator<Item = NewObject<'a>>,
        signatures: SignatureCheck,
    ) -> Result<Vec<Imported>> {
        let objects = objects.into_iter();
        let watch = self.options.watch.clone();
        let meter = Meter::new(&watch, objects.size_hint().0 as u64, None);
        self.add_in_batches(objects, signatures, &meter)
    }

    /// As [`Store::add_objects`], with the number of bytes there will be, so that it can be told how long it will take.
    pub(super) fn add_known(
        &mut self,
        objects: Vec<NewObject<'_>>,
        signatures: SignatureCheck,
    ) -> Result<Vec<Imported>> {
        let bytes = total_size(objects.iter().map(|object| &object.info));
        let watch = self.options.watch.clone();
        let meter = Meter::new(&watch, objects.len() as u64, Some(bytes));
        self.add_in_batches(objects.into_iter(), signatures, &meter)
    }

    fn add_in_batches<'a>(
        &mut self,
        mut objects: impl Iterator<Item = NewObject<'a>>,
        signatures: SignatureCheck,
        meter: &Meter<'_>,
    ) -> Result<Vec<Imported>> {
        self.add_filled(meter, |store, batch| {
            let mut bytes = 0_u64;
            while batch.len() < max_objects() && bytes < MAX_BYTES {
                let Some(NewObject { mut info, source }) = objects.next() else {
                    return Ok(false);
                };
                store.require_signature(&info, signatures)?;
                info.ultimate = false;
                bytes = bytes.saturating_add(info.nar_size);
                batch.push(Arriving::known(info, Some(source)));
            }
            Ok(true)
        })
    }

    /// Adds objects in batches that `fill` fills, which says whether more will come. What is left under scratch names of a
    /// batch that is not filled to its end is removed.
    fn add_filled<'a>(
        &mut self,
        meter: &Meter<'_>,
        mut fill: impl FnMut(&Self, &mut Vec<Arriving<'a>>) -> Result<bool>,
    ) -> Result<Vec<Imported>> {
        let mut imported = Vec::new();
        let mut goes_on = true;
        while goes_on {
            let mut batch = Vec::new();
            match fill(self, &mut batch) {
                Ok(more) => goes_on = more,
                Err(error) => {
                    self.discard_unused(&batch);
                    return Err(error);
                }
            }
            if !batch.is_empty() {
                imported.extend(self.add_batch(batch, meter)?);
            }
        }
        Ok(imported)
    }

    /// Adds a batch: all of it, or nothing.
    fn add_batch(&mut self, mut batch: Vec<Arriving<'_>>, meter: &Meter<'_>) -> Result<Vec<Imported>> {
        let result = self.try_add_batch(&mut batch, meter);
        self.discard_unused(&batch);
        result?;
        Ok(batch
            .into_iter()
            .filter_map(|arriving| {
                Some(Imported {
                    path: arriving.info.path,
                    outcome: arriving.outcome?,
                })
            })
            .collect())
    }

    /// Removes the scratch objects of a batch that were not moved to their places.
    fn discard_unused(&self, batch: &[Arriving<'_>]) {
        for arriving in batch {
            if let Some(scratch) = &arriving.scratch
                && arriving.outcome != Some(Outcome::Stored)
            {
                self.discard(scratch);
            }
        }
    }

    fn try_add_batch(&mut self, batch: &mut [Arriving<'_>], meter: &Meter<'_>) -> Result<()> {
        meter.watch.go_on()?;
        self.find_valid(batch)?;
        for arriving in batch.iter().filter(|arriving| arriving.outcome.is_some()) {
            meter.count(arriving.info.nar_size);
        }
        let mut new: Vec<&mut Arriving<'_>> = batch
            .iter_mut()
            .filter(|arriving| arriving.outcome.is_none())
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let packed = new.iter().filter(|arriving| arriving.scratch.is_none()).count();
        let mut scratches = self.scratches(packed)?.into_iter();
        for arriving in new.iter_mut().filter(|arriving| arriving.scratch.is_none()) {
            arriving.scratch = scratches.next();
        }
        let is_lone = new.len() == 1 && packed == 1;
        // A lone object is made durable by itself, many with their whole file system.
        let site = self.site(if is_lone {
            self.restore_options()
        } else {
            RestoreOptions::default()
        });
        unpack(&site, &mut new, meter)?;
        if !is_lone && self.options.durability == Durability::Synced {
            fs::syncfs(self.real.fd())
                .map_err(|source| Error::io("sync the file system of", self.real.path(), source))?;
        }
        let finished: Vec<Finished<'_>> = new
            .iter()
            .filter_map(|arriving| {
                Some(Finished {
                    scratch: arriving.scratch.as_ref()?,
                    info: &arriving.info,
                })
            })
            .collect();
        let placed = self.place(&finished)?;
        for (arriving, placed) in new.into_iter().zip(placed) {
            arriving.outcome = Some(placed.into());
        }
        Ok(())
    }

    /// Where objects are unpacked.
    fn site(&self, restore: RestoreOptions) -> Site<'_> {
        Site {
            real: self.real.fd(),
            real_path: self.real.path(),
            store_dir: self.dir(),
            restore,
            crash_points: &self.options.crash_points,
        }
    }

    /// Protects what arrives and what it refers to, and finds out what of it is valid already.
    fn find_valid(&self, batch: &mut [Arriving<'_>]) -> Result<()> {
        let paths: Vec<StorePath> = batch.iter().map(|arriving| arriving.info.path.clone()).collect();
        let references = batch.iter().flat_map(|arriving| &arriving.info.references);
        let roots: Vec<StorePath> = paths.iter().chain(references).cloned().collect();
        self.add_temp_roots(&roots)?;
        let layers = self.valid_in(&paths)?;
        let mut seen = HashSet::new();
        for ((arriving, layer), path) in batch.iter_mut().zip(layers).zip(&paths) {
            arriving.outcome = match layer {
                Some(layer) => Some(Outcome::AlreadyValid(layer)),
                // What comes twice in a batch is valid by the first of them.
                None if !seen.insert(path) => Some(Outcome::AlreadyValid(Layer::Upper)),
                None => None,
            };
        }
        Ok(())
    }
}
