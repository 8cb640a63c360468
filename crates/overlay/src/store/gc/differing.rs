// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of the upper layer that the lower store has too, with other contents: those that a root leads to through the
//! lower store alone.
//!
//! The upper database does not know all that refers to such a path, and the path stays valid whatever is done above. But
//! what shows then is the copy below, and where the two differ, as after the repair of an object that is bad below, the
//! copy above is the good one.

use std::collections::HashSet;
use std::ffi::OsStr;

use superpose_metadata::{Closure, LivenessGraph, MetadataSource};
use superpose_store_path::StorePath;

use super::Kept;
use super::judge::Judge;
use super::layer::Contents;
use crate::Result;
use crate::store::Store;
use crate::store::parallel::processors;

impl Store {
    /// Keeps the copies above that are not the same as those below, as far as a root that is valid below needs them.
    ///
    /// The references below are followed only when there is such a copy; else nothing here depends on the size of the
    /// lower store.
    ///
    /// # Errors
    /// If a database or a layer cannot be read.
    pub(super) fn keep_differing(
        &self,
        graph: &LivenessGraph,
        judge: &mut Judge<'_>,
        contents: &Contents,
        kept: &mut Kept,
    ) -> Result<()> {
        let Some(below) = &self.below else { return Ok(()) };
        let roots = kept.lasting.union(&kept.in_use);
        let outside: Vec<StorePath> = roots.filter(|path| graph.node(path).is_none()).cloned().collect();
        if outside.is_empty() {
            return Ok(());
        }
        let nodes: Vec<u32> = judge
            .dead()
            .filter(|&node| contents.present.contains(node))
            .collect();
        let registered = self.paths_of(graph, &nodes)?.into_iter().flatten();
        let unregistered = contents.unregistered.iter().filter(|path| !kept.keeps(path));
        let mut in_both = Vec::new();
        for path in registered.chain(unregistered.cloned()) {
            if below.lies_below(OsStr::new(path.base_name()))? {
                in_both.push(path);
            }
        }
        let differing = self.differing(in_both, processors())?;
        if differing.is_empty() {
            return Ok(());
        }
        let valid = below.lower.are_valid(&outside)?;
        let roots: Vec<StorePath> = outside
            .into_iter()
            .zip(valid)
            .filter_map(|(path, valid)| valid.then_some(path))
            .collect();
        let needed: HashSet<StorePath> = below
            .lower
            .closure(&roots, Closure::References)?
            .into_iter()
            .collect();
        for path in differing.into_iter().filter(|path| needed.contains(path)) {
            match graph.node(&path) {
                Some(node) => judge.keep(node),
                None => {
                    kept.lasting.insert(path);
                }
            }
        }
        Ok(())
    }
}
