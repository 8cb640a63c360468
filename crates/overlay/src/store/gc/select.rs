// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of the dead go: all, or as many as free what was asked for.

use std::ffi::{OsStr, OsString};

use superpose_metadata::LivenessGraph;
use superpose_store_path::{HashPart, StorePath};

use super::judge::{Judge, referrers_first};
use super::layer::{Contents, IdleJunk};
use super::measure::Ruler;
use super::{CollectAction, CollectOptions, Collected, Kept};
use crate::Result;
use crate::store::Store;
use crate::store::layer::Layer;

/// All that is dead.
#[derive(Debug, Default)]
pub(super) struct Dead {
    junk: Vec<OsString>,
    unregistered: Vec<StorePath>,
    nodes: Vec<u32>,
}

impl Dead {
    /// Everything in the layer, and every row, that nothing keeps.
    pub(super) fn of(judge: &Judge<'_>, contents: &Contents, kept: &Kept, idle: &IdleJunk) -> Self {
        let unregistered = contents.unregistered.iter().filter(|path| !kept.keeps(path));
        let mut dead = Dead {
            junk: idle.names.clone(),
            unregistered: unregistered.cloned().collect(),
            nodes: judge.dead().collect(),
        };
        // The same every time, whatever the order of the directory is.
        dead.junk.sort_unstable();
        dead.unregistered.sort_unstable();
        dead
    }
}

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// The objects that are in the layer.
    pub(super) objects: Vec<StorePath>,
    /// All rows.
    pub(super) rows: Vec<StorePath>,
    pub(super) junk: Vec<OsString>,
    /// The rows whose objects are not in the layer.
    forgotten: Vec<StorePath>,
    /// What all of it frees, if it was measured.
    bytes: u64,
    inodes: u64,
    entries: u64,
}

impl Selected {
    /// What a temporary root would have to name to be concerned.
    pub(super) fn hash_parts(&self) -> Vec<HashPart> {
        let paths = self.objects.iter().chain(&self.rows);
        let mut parts: Vec<HashPart> = paths.map(StorePath::hash_part).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The same as an answer.
    pub(super) fn into_collected(mut self) -> Collected {
        self.objects.sort_unstable();
        self.forgotten.sort_unstable();
        Collected {
            deleted: self.objects,
            forgotten: self.forgotten,
            junk: self.junk,
            bytes: self.bytes,
            inodes: self.inodes,
            entries: self.entries,
            ..Collected::default()
        }
    }
}

impl Store {
    /// Takes the dead one after the other, those that refer to others first, until more is freed than is wanted.
    ///
    /// # Errors
    /// If the database or the layer cannot be read, or the work is to stop.
    pub(super) fn select(
        &self,
        graph: &LivenessGraph,
        contents: &Contents,
        dead: Dead,
        options: &CollectOptions,
    ) -> Result<Selected> {
        let mut selected = Selected::default();
        if options.max_freed == Some(0) {
            return Ok(selected);
        }
        let Layer { fd: layer, path } = self.layer();
        let is_measured = options.max_freed.is_some() || options.action == CollectAction::Rehearse;
        let mut ruler = Ruler::new(layer, path.to_owned());
        let measure = |ruler: &mut Ruler<'_>, name: &OsStr| {
            self.options.watch.go_on()?;
            if is_measured { ruler.add(name) } else { Ok(()) }
        };
        let is_enough = |ruler: &Ruler<'_>| options.max_freed.is_some_and(|limit| ruler.bytes > limit);
        for name in dead.junk {
            if is_enough(&ruler) {
                break;
            }
            measure(&mut ruler, &name)?;
            selected.junk.push(name);
        }
        for path in dead.unregistered {
            if is_enough(&ruler) {
                break;
            }
            measure(&mut ruler, OsStr::new(path.base_name()))?;
            selected.objects.push(path);
        }
        let (nodes, free) = match options.max_freed {
            Some(_) => referrers_first(graph, &dead.nodes),
            None => (dead.nodes, usize::MAX),
        };
        for (place, (&node, path)) in nodes.iter().zip(self.paths_of(graph, &nodes)?).enumerate() {
            // The rest, if there is one, goes whole or not at all.
            if place <= free && is_enough(&ruler) {
                break;
            }
            let Some(path) = path else { continue };
            if contents.present.contains(node) {
                measure(&mut ruler, OsStr::new(path.base_name()))?;
                selected.objects.push(path.clone());
            } else {
                selected.forgotten.push(path.clone());
            }
            selected.rows.push(path);
        }
        (selected.bytes, selected.inodes, selected.entries) = (ruler.bytes, ruler.inodes, ruler.entries);
        Ok(selected)
    }
}
