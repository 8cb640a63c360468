// SPDX-License-Identifier: MIT OR Apache-2.0
//! Garbage collection: everything that no root needs leaves the upper layer, or a local store.
//!
//! Only what is physically in the layer is judged, and only from the upper database, which is read once, as a graph of
//! numbers; what is below costs nothing and stays. All that is dead leaves as one ([`super::removal`]): one transaction,
//! one entry of the journal, one remount.
//!
//! The order decides that nothing is lost which somebody is about to use: the collector's lock, then the ear for
//! temporary roots, then the roots, then the database, then the layer. Whoever adds an object has made it a temporary
//! root before. So it is in the file that is read, or was heard, or its row was there when the database was read.

mod differing;
mod judge;
mod layer;
mod links;
mod measure;
mod select;

#[cfg(test)]
mod judge_tests;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;

use superpose_metadata::{LivenessGraph, MetadataSource};
use superpose_store_path::{HashPart, StorePath};

use self::judge::{Judge, Keeping};
use self::layer::{Contents, IdleJunk};
use self::select::{Dead, Selected};
use super::Store;
use super::layer::Layer;
use super::removal::{Leaving, Removal};
use crate::gc_lock::VerifierLock;
use crate::roots::{self, Root, Stale};
use crate::temp_roots::{self, Listener};
use crate::{Error, Result};

/// How often a collection decides anew because somebody gave a dead path a referrer meanwhile. Nobody who protects what
/// he uses does that; stock Nix does when it copies rows up.
const ATTEMPTS: u32 = 5;

/// What a collection does with the dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CollectAction {
    /// Removes them.
    #[default]
    Delete,
    /// Says what would be removed, and what that would free. Nothing at all is changed.
    Rehearse,
    /// Says what lives. Nothing at all is changed.
    ListAlive,
}

/// How to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectOptions {
    /// What to do.
    pub action: CollectAction,
    /// Whether derivations that live keep their valid outputs; Nix's `keep-outputs`, off as there.
    pub keep_outputs: bool,
    /// Whether paths that live keep the derivations that they were built by; Nix's `keep-derivations`, on as there.
    pub keep_derivations: bool,
    /// Stop as soon as more than this many bytes are freed; nothing but unused links goes if it is 0.
    pub max_freed: Option<u64>,
}

impl Default for CollectOptions {
    fn default() -> Self {
        CollectOptions {
            action: CollectAction::Delete,
            keep_outputs: false,
            keep_derivations: true,
            max_freed: None,
        }
    }
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// The paths whose objects left the layer, sorted: valid ones, and what lay there without a row.
    pub deleted: Vec<StorePath>,
    /// The paths whose rows went and whose objects were not in the layer, sorted: most often copies of rows of the lower
    /// store, where they stay valid.
    pub forgotten: Vec<StorePath>,
    /// Names in the layer that are no store paths, and went.
    pub junk: Vec<OsString>,
    /// With [`CollectAction::ListAlive`], what lives of the rows and objects of the layer, sorted.
    pub alive: Vec<StorePath>,
    /// How many links that no object shared any more were removed.
    pub links: u64,
    /// Bytes of disk blocks that were given back: measured, hard links counted once.
    pub bytes: u64,
    /// Inodes that were given back.
    pub inodes: u64,
    /// Names of files, links and directories that were unlinked.
    pub entries: u64,
    /// Removed trees that some process still uses; they are unlinked by a later collection or deletion.
    pub waiting: usize,
    /// Whether the mount was made fresh.
    pub remounted: bool,
}

/// What keeps paths alive.
#[derive(Debug)]
struct Kept {
    /// The paths of permanent roots and of what processes use, as far as they are valid.
    lasting: HashSet<StorePath>,
    /// The hash parts of temporary roots.
    temporary: HashSet<HashPart>,
    /// The paths of temporary roots, those of which nothing but the hash part is heard only as far as they lead below.
    in_use: HashSet<StorePath>,
}

impl Kept {
    /// Whether an object without a row lives: as a temporary root, or as a root that is valid, which is then a duplicate
    /// of what the lower store has.
    fn keeps(&self, path: &StorePath) -> bool {
        self.temporary.contains(&path.hash_part()) || self.lasting.contains(path)
    }
}

impl Store {
    /// Collects garbage: removes, from the upper layer or from a local store, all that no root needs.
    ///
    /// # Errors
    /// If a root, the database or the layer cannot be read: to go on could remove what is in use. When the remount
    /// fails, what was deleted stays deleted, and the remount stays owed. [`Error::Stopped`] if the watcher wanted it
    /// before anything was removed.
    ///
    /// # Deviation
    /// Nix walks the merged directory, copies the metadata of what it meets up, and counts what is only below as
    /// deleted. It changes the store also when it is only asked what is dead. It measures file sizes, and stops at the
    /// first path that exceeds the limit in the order of the directory.
    pub fn collect(&mut self, options: &CollectOptions) -> Result<Collected> {
        if options.action != CollectAction::Delete {
            return self.look(options);
        }
        let lock = self.collector_lock()?;
        // On a full disk the ballast is what the collection itself is written with.
        if let Err(error) = self.database.release_reserved_space() {
            tracing::debug!(%error, "the reserved space is not released");
        }
        let listener = Listener::start(lock, &self.state, self.dir())?;
        let mut kept = self.kept(Stale::Remove)?;
        let mut attempt = 1;
        loop {
            match self.collect_once(options, &mut kept, &listener) {
                Err(Error::Metadata(superpose_metadata::Error::StillReferenced {
                    path, referrer, ..
                })) if attempt < ATTEMPTS => {
                    tracing::debug!(path, referrer, "a dead path was given a referrer: deciding anew");
                    listener.let_go();
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    fn collect_once(
        &mut self,
        options: &CollectOptions,
        kept: &mut Kept,
        listener: &Listener,
    ) -> Result<Collected> {
        let graph = self.database.liveness_graph()?;
        let mut judge = judge(&graph, options, kept);
        let Layer { fd: layer, path } = self.layer();
        let contents = Contents::of(layer, path, &graph)?;
        self.keep_differing(&graph, &mut judge, &contents, kept)?;
        let idle = IdleJunk::of(self.real.fd(), &contents.junk);
        let mut known = 0;
        let selected = loop {
            let heard = listener.heard_since(known);
            known += heard.len();
            for &part in &heard {
                judge.keep_all_with(part);
                kept.temporary.insert(part);
            }
            if self.leads_below(&graph, &heard, kept)? {
                self.keep_differing(&graph, &mut judge, &contents, kept)?;
            }
            self.options.watch.go_on()?;
            let dead = Dead::of(&judge, &contents, kept, &idle);
            let selected = self.select(&graph, &contents, dead, options)?;
            if listener.seal(known, selected.hash_parts()) {
                break selected;
            }
        };
        // It may be large, and is not needed any more.
        drop(graph);
        let removal = self.remove(&Leaving {
            objects: &selected.objects,
            junk: &selected.junk,
            rows: &selected.rows,
            listener,
            waiting: Some(&contents.waiting),
        })?;
        let links = self.remove_unused_links()?;
        let mut collected = finished(selected, &removal);
        collected.links = links.links;
        collected.bytes += links.bytes;
        collected.inodes += links.links;
        collected.entries += links.links;
        collected.remounted |= links.remounted;
        Ok(collected)
    }

    /// Judges, and changes nothing. Additions need not wait for it.
    fn look(&self, options: &CollectOptions) -> Result<Collected> {
        let _lock = VerifierLock::acquire(&self.state, self.options.wait(), &mut |lock| {
            tracing::info!(lock = %lock.display(), "waiting for a garbage collection to end");
        })?;
        let graph = self.database.liveness_graph()?;
        let Layer { fd: layer, path } = self.layer();
        let contents = Contents::of(layer, path, &graph)?;
        // The roots come last: who has added something since the database was read protects it still, or has ended.
        let mut kept = self.kept(Stale::Report)?;
        let mut judge = judge(&graph, options, &kept);
        self.keep_differing(&graph, &mut judge, &contents, &mut kept)?;
        if options.action == CollectAction::ListAlive {
            let nodes: Vec<u32> = graph.nodes().filter(|&node| judge.is_alive(node)).collect();
            let mut alive: Vec<StorePath> = self.paths_of(&graph, &nodes)?.into_iter().flatten().collect();
            let unregistered = contents.unregistered.iter().filter(|path| kept.keeps(path));
            alive.extend(unregistered.cloned());
            alive.sort_unstable();
            return Ok(Collected {
                alive,
                ..Collected::default()
            });
        }
        let idle = IdleJunk::of(self.real.fd(), &contents.junk);
        let dead = Dead::of(&judge, &contents, &kept, &idle);
        let selected = self.select(&graph, &contents, dead, options)?;
        Ok(selected.into_collected())
    }

    /// All roots: permanent ones that lead to valid paths, what running processes use, and temporary roots, whose link is
    /// `{temp:OWNER}` as with Nix; sorted. Nothing is changed.
    ///
    /// # Errors
    /// If the state directory or `/proc` cannot be read.
    pub fn all_roots(&self) -> Result<Vec<Root>> {
        let mut roots = self.roots()?;
        let temporary = temp_roots::scan(&self.state, self.dir(), Stale::Report)?;
        roots.extend(temporary.roots.into_iter().map(|root| Root {
            link: PathBuf::from(format!("{{temp:{}}}", root.owner)),
            path: root.path,
        }));
        roots.sort_unstable();
        Ok(roots)
    }

    fn kept(&self, stale: Stale) -> Result<Kept> {
        // In this order: whoever makes a link protects the path until it is there, and may end right then. If links were
        // looked for first, both could miss him.
        let temporary = temp_roots::scan(&self.state, self.dir(), stale)?;
        let lasting = roots::lasting::find(&self.state, &self.metadata(), &self.physical(), stale)?;
        let in_use: HashSet<StorePath> = temporary.roots.into_iter().map(|root| root.path).collect();
        Ok(Kept {
            lasting: lasting.into_iter().map(|root| root.path).collect(),
            temporary: in_use.iter().map(StorePath::hash_part).collect(),
            in_use,
        })
    }

    /// Looks for the temporary roots that were heard among what is only known below, and says whether any of them is.
    fn leads_below(&self, graph: &LivenessGraph, heard: &[HashPart], kept: &mut Kept) -> Result<bool> {
        let Some(below) = &self.below else {
            return Ok(false);
        };
        let unknown: Vec<HashPart> = heard
            .iter()
            .copied()
            .filter(|&part| graph.nodes_with(part).next().is_none())
            .collect();
        if unknown.is_empty() {
            return Ok(false);
        }
        let before = kept.in_use.len();
        let found = below.lower.path_from_hash_part(&unknown)?;
        kept.in_use.extend(found.into_iter().flatten());
        Ok(kept.in_use.len() > before)
    }

    /// The paths of nodes; `None` for those whose rows are gone meanwhile.
    fn paths_of(&self, graph: &LivenessGraph, nodes: &[u32]) -> Result<Vec<Option<StorePath>>> {
        let rows: Vec<i64> = nodes.iter().map(|&node| graph.row(node)).collect();
        Ok(self.database.paths_of_rows(&rows)?)
    }
}

/// Keeps what the roots lead to.
fn judge<'a>(graph: &'a LivenessGraph, options: &CollectOptions, kept: &Kept) -> Judge<'a> {
    let keeping = Keeping {
        outputs: options.keep_outputs,
        derivations: options.keep_derivations,
    };
    let mut judge = Judge::new(graph, keeping);
    // A root without a row leads below: what is there is not ours to collect.
    let lasting = kept.lasting.iter().filter_map(|path| graph.node(path));
    let temporary = kept.temporary.iter().flat_map(|&part| graph.nodes_with(part));
    judge.keep_all(lasting.chain(temporary));
    judge
}

fn finished(selected: Selected, removal: &Removal) -> Collected {
    let unlinked = removal.unlinked.total();
    let mut collected = selected.into_collected();
    collected.bytes = unlinked.bytes_freed;
    collected.inodes = unlinked.inodes_freed;
    collected.entries = unlinked.files + unlinked.directories;
    collected.waiting = removal.waiting;
    collected.remounted = removal.remounted;
    collected
}
