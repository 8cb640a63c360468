// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closures: breadth first, one burst for each level.

use superpose_store_path::StorePath;

use super::DaemonSource;
use crate::graph::Graph;
use crate::{Error, MetadataSource, PathInfo, Prune, Result};

impl DaemonSource {
    /// What is known of the roots and all that they refer to, each asked about once.
    pub(super) fn walk_references(
        &self,
        roots: &[StorePath],
        prune: &mut Prune<'_>,
    ) -> Result<Vec<PathInfo>> {
        let mut graph = Graph::new();
        for root in roots {
            graph.add(root);
        }
        let number_of_roots = graph.len();
        // By number; nothing for those that are left out.
        let mut infos: Vec<Option<PathInfo>> = Vec::new();
        let mut level = 0..graph.len();
        while !level.is_empty() {
            let paths = &graph.keys()[level.clone()];
            let kept: Vec<(usize, StorePath)> = level
                .clone()
                .zip(paths)
                .zip(prune(paths)?)
                .filter(|(_, pruned)| !pruned)
                .map(|((number, path), _)| (number, path.clone()))
                .collect();
            let (numbers, paths): (Vec<usize>, Vec<StorePath>) = kept.into_iter().unzip();
            infos.resize(level.end, None);
            for (number, info) in numbers.into_iter().zip(self.path_infos(&paths)?) {
                let Some(info) = info else {
                    return Err(self.absent(&graph, number, number_of_roots));
                };
                let edges: Vec<u32> = info.references.iter().map(|path| graph.add(path)).collect();
                graph.set_edges(node(number), edges);
                infos[number] = Some(info);
            }
            level = level.end..graph.len();
        }
        let (order, _) = graph.order();
        Ok(order
            .into_iter()
            .filter_map(|number| infos[number as usize].take())
            .collect())
    }

    /// The roots and all that refers to them.
    pub(super) fn walk_referrers(&self, roots: &[StorePath]) -> Result<Vec<StorePath>> {
        let valid = self.are_valid(roots)?;
        if let Some(number) = valid.iter().position(|valid| !valid) {
            return Err(self.not_valid(&roots[number]));
        }
        let mut graph = Graph::new();
        for root in roots {
            graph.add(root);
        }
        let mut level = 0..graph.len();
        while !level.is_empty() {
            let paths = graph.keys()[level.clone()].to_vec();
            for (number, referrers) in level.clone().zip(self.referrers(&paths)?) {
                let edges: Vec<u32> = referrers.iter().map(|path| graph.add(path)).collect();
                graph.set_edges(node(number), edges);
            }
            level = level.end..graph.len();
        }
        let (order, _) = graph.order();
        Ok(order
            .into_iter()
            .map(|number| graph.key(number).clone())
            .collect())
    }

    /// Makes the error of a path that should be valid: a root, or a reference that went away while we walked.
    fn absent(&self, graph: &Graph<StorePath>, number: usize, number_of_roots: usize) -> Error {
        let path = graph.key(node(number));
        match graph.predecessor(node(number)) {
            Some(referrer) if number >= number_of_roots => Error::ReferenceNotValid {
                path: self.store_dir().join(referrer),
                reference: self.store_dir().join(path),
            },
            _ => self.not_valid(path),
        }
    }

    fn not_valid(&self, path: &StorePath) -> Error {
        Error::NotValid {
            path: self.store_dir().join(path),
        }
    }
}

fn node(number: usize) -> u32 {
    u32::try_from(number).expect("nodes have numbers of 32 bits")
}
