// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source that holds everything in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use superpose_store_path::{HashPart, StoreDir, StorePath};

use crate::graph::Graph;
use crate::{
    Closure, Error, MetadataSource, Outputs, PathInfo, Prune, Realisation, RealisationKey, Result, Visit,
};

/// Metadata in memory, for tests and examples.
///
/// Nothing is checked when it is put in. References to paths that are not valid are left out of closures.
#[derive(Debug, Clone)]
pub struct MemorySource {
    store_dir: StoreDir,
    infos: BTreeMap<StorePath, PathInfo>,
    referrers: BTreeMap<StorePath, BTreeSet<StorePath>>,
    outputs: BTreeMap<StorePath, Outputs>,
    realisations: BTreeMap<RealisationKey, Realisation>,
}

impl MemorySource {
    /// Makes a source that knows no valid path.
    #[must_use]
    pub fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            infos: BTreeMap::new(),
            referrers: BTreeMap::new(),
            outputs: BTreeMap::new(),
            realisations: BTreeMap::new(),
        }
    }

    /// Makes a path valid, or replaces what is known of it. References are sorted.
    pub fn insert(&mut self, mut info: PathInfo) {
        self.remove(&info.path);
        info.references.sort_unstable();
        info.references.dedup();
        for reference in &info.references {
            self.referrers
                .entry(reference.clone())
                .or_default()
                .insert(info.path.clone());
        }
        self.infos.insert(info.path.clone(), info);
    }

    /// Records the outputs of a derivation.
    pub fn insert_outputs(&mut self, derivation: StorePath, mut outputs: Outputs) {
        outputs.sort_unstable();
        self.outputs.insert(derivation, outputs);
    }

    /// Records a realisation, or replaces it.
    pub fn insert_realisation(&mut self, realisation: Realisation) {
        self.realisations.insert(realisation.key.clone(), realisation);
    }

    /// Makes a path no longer valid, and forgets what its outputs were.
    pub fn remove(&mut self, path: &StorePath) {
        self.outputs.remove(path);
        let Some(info) = self.infos.remove(path) else {
            return;
        };
        for reference in &info.references {
            if let Some(referrers) = self.referrers.get_mut(reference) {
                referrers.remove(path);
            }
        }
    }

    fn info(&self, path: &StorePath) -> Result<&PathInfo> {
        self.infos.get(path).ok_or_else(|| Error::NotValid {
            path: self.store_dir.join(path),
        })
    }

    /// Returns the valid paths that a valid path leads to.
    fn next<'a>(
        &'a self,
        path: &StorePath,
        direction: Closure,
    ) -> Box<dyn Iterator<Item = &'a StorePath> + 'a> {
        match direction {
            Closure::References => {
                let references = self.infos.get(path).map(|info| info.references.iter());
                Box::new(
                    references
                        .into_iter()
                        .flatten()
                        .filter(|path| self.infos.contains_key(*path)),
                )
            }
            Closure::Referrers => Box::new(self.referrers.get(path).into_iter().flatten()),
        }
    }
}

impl MetadataSource for MemorySource {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>> {
        Ok(paths.iter().map(|path| self.infos.contains_key(path)).collect())
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        Ok(paths.iter().map(|path| self.infos.get(path).cloned()).collect())
    }

    fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>> {
        let mut graph = Graph::new();
        for root in roots {
            graph.add(&self.info(root)?.path);
        }
        let mut done = 0;
        while let Some(path) = graph.keys().get(done as usize).cloned() {
            let next: Vec<u32> = self.next(&path, direction).map(|path| graph.add(path)).collect();
            graph.set_edges(done, next);
            done += 1;
        }
        Ok(graph
            .order()
            .0
            .into_iter()
            .map(|number| graph.key(number).clone())
            .collect())
    }

    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>> {
        let mut graph = Graph::new();
        let mut seen: BTreeSet<StorePath> = BTreeSet::new();
        let mut level: Vec<StorePath> = roots
            .iter()
            .filter(|root| seen.insert((*root).clone()))
            .cloned()
            .collect();
        while !level.is_empty() {
            let pruned = prune(&level)?;
            let kept: Vec<StorePath> = level
                .drain(..)
                .zip(pruned)
                .filter(|(_, pruned)| !pruned)
                .map(|(path, _)| path)
                .collect();
            for path in kept {
                graph.add(&self.info(&path)?.path);
                let next = self.next(&path, Closure::References);
                level.extend(next.filter(|path| seen.insert((*path).clone())).cloned());
            }
        }
        for (number, path) in (0..).zip(graph.keys().to_vec()) {
            let next = self.next(&path, Closure::References);
            let next: Vec<u32> = next.filter_map(|path| graph.number(path)).collect();
            graph.set_edges(number, next);
        }
        let (order, _) = graph.order();
        order
            .into_iter()
            .map(|number| self.info(graph.key(number)).cloned())
            .collect()
    }

    fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        let valid = |path: &StorePath| self.infos.contains_key(path);
        Ok(paths
            .iter()
            .map(|path| match self.referrers.get(path) {
                Some(referrers) if valid(path) => referrers.iter().cloned().collect(),
                _ => Vec::new(),
            })
            .collect())
    }

    fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        let has = |outputs: &Outputs, path| outputs.iter().any(|(_, output)| output == path);
        Ok(paths
            .iter()
            .map(|path| {
                let derivers = self
                    .outputs
                    .iter()
                    .filter(|(drv, outputs)| self.infos.contains_key(*drv) && has(outputs, path));
                derivers.map(|(drv, _)| drv.clone()).collect()
            })
            .collect())
    }

    fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>> {
        Ok(derivations
            .iter()
            .map(|drv| {
                self.infos
                    .get(drv)
                    .map(|_| self.outputs.get(drv).cloned().unwrap_or_default())
            })
            .collect())
    }

    fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>> {
        Ok(parts
            .iter()
            .map(|part| {
                let prefix = part.to_string();
                let mut from = self
                    .infos
                    .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
                from.next()
                    .map(|(path, _)| path)
                    .filter(|path| path.hash_part_str() == prefix)
                    .cloned()
            })
            .collect())
    }

    fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>> {
        Ok(keys
            .iter()
            .map(|key| self.realisations.get(key).cloned())
            .collect())
    }

    fn realisations_of(&self, outputs: &[StorePath]) -> Result<Vec<Realisation>> {
        let leads_there = |realisation: &&Realisation| outputs.contains(&realisation.output_path);
        Ok(self.realisations.values().filter(leads_there).cloned().collect())
    }

    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.infos.keys().cloned().try_for_each(visit)
    }

    fn count(&self) -> Result<u64> {
        Ok(self.infos.len() as u64)
    }
}
