// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deduplication: what the lower store has by now leaves the upper layer, and identical files in it become links.
//!
//! Everything is looked at first, with the collector's lock shared, so that nobody waits for it who adds something; the lock is
//! taken alone only for the changes. What was looked at is compared with what is there then, by identity.

mod duplicates;
mod farm;
mod file;
mod link;
mod memory;
mod plan;
mod report;
mod survey;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::num::NonZero;

use rustix::fs;
use superpose_metadata::MetadataSource;
use superpose_store_path::StorePath;

pub use report::{Kept, Modified, Optimised, Reason, Skipped};

use self::farm::Farm;
use self::link::{Linked, Linker};
use self::plan::{Plan, place};
use super::Store;
use super::open::Durability;
use super::parallel::processors;
use crate::crash::CrashPoint;
use crate::gc_lock::VerifierLock;
use crate::journal::{Intent, Journal};
use crate::listing::EntryKind;
use crate::store::layer::{Entry, Identity};
use crate::temp_roots::Listener;
use crate::watch::{Doing, Progress};
use crate::{Error, Result};

/// What a deduplication is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duplicated {
    /// Objects and files; of a local store, which has no layers, files.
    #[default]
    Everything,
    /// Objects of the upper layer that the lower store has too.
    Objects,
    /// Files in the layer that are the same as others in it.
    Files,
}

/// Whether a deduplication is made or only thought through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effect {
    /// It is made.
    #[default]
    Make,
    /// What it would do is found out, and nothing is changed at all.
    Foresee,
}

/// How to deduplicate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OptimiseOptions {
    /// What it is about.
    pub duplicated: Duplicated,
    /// Whether anything is changed.
    pub effect: Effect,
    /// How many threads compare and hash.
    pub threads: NonZero<usize>,
}

impl Default for OptimiseOptions {
    fn default() -> Self {
        OptimiseOptions {
            duplicated: Duplicated::default(),
            effect: Effect::default(),
            threads: processors(),
        }
    }
}

impl OptimiseOptions {
    /// The same about something else.
    #[must_use]
    pub fn with_duplicated(mut self, duplicated: Duplicated) -> Self {
        self.duplicated = duplicated;
        self
    }

    /// The same with another effect.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

impl Store {
    /// Drops the objects of the upper layer that the lower store has too, when the two copies are the same; and makes identical
    /// files in what is left hard links to each other.
    ///
    /// The paths stay valid, and their rows stay. A copy that differs from that below, whichever of the two is at fault, is
    /// reported and left. Nothing of the lower store is changed.
    ///
    /// # Errors
    /// [`Error::NoLayers`] if only objects are wanted, of a local store; if the store cannot be read, or the mount could not be
    /// made fresh afterwards: nothing is changed then. When the remount itself fails, what was done stays done, and the remount
    /// stays owed. What is wrong with single objects is in the report.
    ///
    /// # Deviation
    /// Nix trusts the lower store's database and drops copies without looking at the other one; takes no lock; and links nothing
    /// in an overlay store. Of files it also links empty ones and symbolic links, which gives back no blocks.
    pub fn optimise(&mut self, options: &OptimiseOptions) -> Result<Optimised> {
        let mut report = Optimised::default();
        if options.duplicated == Duplicated::Objects {
            self.overlay()?;
        }
        let about = match self.below {
            Some(_) => options.duplicated,
            None => Duplicated::Files,
        };
        let mut lock = Some(self.reader_lock()?);
        let mut entries = self.layer().entries()?;
        let mut freed_names = false;
        if about != Duplicated::Files {
            let paths = entries.iter().map(|entry| entry.path.clone()).collect();
            let found = self.find_duplicates(paths, options.threads)?;
            report.kept = found.kept;
            if options.effect == Effect::Foresee {
                report.dropped = found.same.into_iter().map(|duplicate| duplicate.path).collect();
            } else if !found.same.is_empty() || self.has_trash()? {
                lock = None;
                freed_names = self.drop_found(found.same, &mut report, options.threads)?;
            }
            report.kept.sort_by(|one, other| one.path.cmp(&other.path));
            let dropped: HashSet<&StorePath> = report.dropped.iter().collect();
            entries.retain(|entry| !dropped.contains(&entry.path));
        }
        if lock.is_none() {
            lock = Some(self.reader_lock()?);
        }
        let plan = if about == Duplicated::Objects {
            Plan::default()
        } else {
            self.plan_links(&entries, options.threads)?
        };
        let unused = if freed_names {
            self.unused_links(options.threads)?
        } else {
            Vec::new()
        };
        drop(lock);
        (report.searched, report.hashed) = (plan.searched, plan.hashed);
        report.skipped = plan.skipped;
        if options.effect == Effect::Foresee {
            (report.linked, report.bytes_linked) = (plan.linked, plan.bytes);
            return Ok(report);
        }
        self.link_planned(plan, &unused, &entries, options, &mut report)?;
        Ok(report)
    }

    /// Takes the lock that keeps collectors away while something is looked at.
    fn reader_lock(&self) -> Result<VerifierLock> {
        VerifierLock::acquire(&self.state, self.options.wait(), &mut |lock| {
            tracing::info!(lock = %lock.display(), "waiting for a garbage collection to end");
        })
    }

    /// Drops what was found to be the same; tells whether some of it had other names.
    fn drop_found(
        &mut self,
        same: Vec<duplicates::Duplicate>,
        report: &mut Optimised,
        threads: NonZero<usize>,
    ) -> Result<bool> {
        self.options.watch.go_on()?;
        let lock = self.collector_lock()?;
        // What leaves stays valid: who adds something need not wait.
        let listener = Listener::start(lock, &self.state, self.dir())?;
        // On a full disk the ballast is what the journal is written with.
        if let Err(error) = self.database.release_reserved_space() {
            tracing::debug!(%error, "the reserved space is not released");
        }
        let (dropped, removal) = self.drop_duplicates(same, &mut report.kept, threads)?;
        drop(listener);
        report.dropped = dropped;
        let unlinked = removal.unlinked.total();
        report.bytes_dropped = unlinked.bytes_freed;
        report.waiting = removal.waiting;
        report.remounted |= removal.remounted;
        Ok(unlinked.bytes_still_linked > 0)
    }

    /// What is left in the farm of files that were in dropped objects only.
    fn unused_links(&self, threads: NonZero<usize>) -> Result<Vec<String>> {
        match Farm::open(self.layer())? {
            Some(farm) => Ok(farm.unused(&farm.inventory()?, threads)),
            None => Ok(Vec::new()),
        }
    }

    /// Makes the planned links and removes unused ones, all with one intent and one remount.
    fn link_planned(
        &mut self,
        mut plan: Plan,
        unused: &[String],
        entries: &[Entry],
        options: &OptimiseOptions,
        report: &mut Optimised,
    ) -> Result<()> {
        if plan.work.is_empty() && unused.is_empty() {
            if plan.learned {
                let farm = Farm::open(self.layer())?;
                plan.memory.save(&self.state, place(self.layer(), farm.as_ref())?);
            }
            return Ok(());
        }
        let lock = self.collector_lock()?;
        // Nothing becomes invalid: who adds something need not wait.
        let listener = Listener::start(lock, &self.state, self.dir())?;
        let mut journal = self.idle_journal()?;
        if self.below.is_some() {
            self.require_refreshable()?;
        }
        self.forget_invalid(&mut plan)?;
        journal.begin(&Intent::Linking(plan.replaced_in()))?;
        self.options.crash_points.reached(CrashPoint::IntentWritten);
        let farm = match Farm::open_or_create(self.layer()) {
            Ok(farm) => farm,
            Err(error) => {
                // No space for a directory: nothing was done.
                journal.close()?;
                return Err(error);
            }
        };
        let (linked, stopped) = self.make_links(&farm, &mut plan, unused)?;
        self.complete_linking(&mut journal)?;
        drop(listener);
        report.remounted |= self.below.is_some();
        report.linked = linked.files;
        report.bytes_linked = linked.bytes;
        report.bytes_dropped += linked.unused_bytes;
        report.skipped.add(linked.skipped);
        if let Some(stopped) = stopped {
            return Err(stopped);
        }
        self.remember(&mut plan, &linked, entries, options.threads);
        plan.memory.save(&self.state, place(self.layer(), Some(&farm))?);
        Ok(())
    }

    /// Leaves out of the plan what is not valid any more.
    fn forget_invalid(&self, plan: &mut Plan) -> Result<()> {
        let objects: Vec<StorePath> = plan.work.iter().map(|work| work.object.clone()).collect();
        let valid = self.database.are_valid(&objects)?;
        let mut valid = valid.into_iter();
        plan.work.retain(|_| valid.next() == Some(true));
        Ok(())
    }

    /// Makes the links; also says if the caller wanted to stop halfway.
    fn make_links(&self, farm: &Farm, plan: &mut Plan, unused: &[String]) -> Result<(Linked, Option<Error>)> {
        // What becomes the only copy of some content must be as durable as those that it replaces.
        self.sync_layer()?;
        let watch = &self.options.watch;
        let mut progress = Progress::new(Doing::Linking, plan.work.len() as u64);
        let leads = std::mem::take(&mut plan.leads);
        let mut linker = Linker::new(self.layer(), farm, leads, &self.options.crash_points);
        let mut stopped = None;
        for work in &plan.work {
            if let Err(stop) = watch.go_on() {
                stopped = Some(stop);
                break;
            }
            linker.object(work)?;
            progress.done += 1;
            progress.bytes = linker.linked.bytes;
            watch.progress(&progress);
        }
        linker.prune(unused);
        self.sync_layer()?;
        Ok((linker.linked, stopped))
    }

    /// What follows when all links are made, also in a replay.
    pub(super) fn complete_linking(&self, journal: &mut Journal) -> Result<()> {
        if self.below.is_some() {
            self.refresh_mount()?;
            self.options.crash_points.reached(CrashPoint::Remounted);
        }
        journal.close()?;
        self.options.crash_points.reached(CrashPoint::JournalClosed);
        Ok(())
    }

    /// Writes the whole layer to the disk, if this store is to survive a power cut.
    fn sync_layer(&self) -> Result<()> {
        if self.options.durability == Durability::Unsynced {
            return Ok(());
        }
        let layer = self.layer();
        fs::syncfs(layer.fd)
            .map_err(|source| Error::io("write to disk the file system of", layer.path, source))
    }

    /// Brings what is remembered up to date: the links have changed the times of what they were made in and of.
    fn remember(&self, plan: &mut Plan, linked: &Linked, entries: &[Entry], threads: NonZero<usize>) {
        for object in &linked.unfinished {
            plan.memory.0.remove(&object.hash_part());
        }
        let here: HashSet<_> = entries.iter().map(|entry| entry.path.hash_part()).collect();
        plan.memory.0.retain(|hash, _| here.contains(hash));
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let touched: HashSet<&StorePath> = files
            .map(|entry| &entry.path)
            .chain(plan.work.iter().map(|work| &work.object))
            .collect();
        let touched: Vec<&StorePath> = touched.into_iter().collect();
        let layer = self.layer();
        let stats = super::parallel::on_threads(
            threads,
            &touched,
            |path| layer.stat(OsStr::new(path.base_name())).ok().flatten(),
            |_| true,
        );
        let replaced: HashSet<&StorePath> = plan.work.iter().map(|work| &work.object).collect();
        for (path, stat) in touched.into_iter().zip(stats) {
            let (Some(Some(stat)), Some(searched)) = (stat, plan.memory.0.get_mut(&path.hash_part())) else {
                continue;
            };
            let identity = Identity::of(&stat);
            // An object that was replaced by a link has another inode; nothing else may have.
            if replaced.contains(path) || identity.inode == searched.identity.inode {
                searched.identity = identity;
            }
        }
    }
}
