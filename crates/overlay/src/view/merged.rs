// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two sources of metadata seen as one: the upper database first, then the lower store.
//!
//! Both sides are closed under references by themselves: the upper database by its foreign keys, the lower store by
//! being a store. So a closure never changes sides on its way down, and each side answers its part in one go.

use std::collections::HashSet;

use superpose_metadata::{
    ArchiveInfo, Closure, Edition, Error, MetadataSource, Outputs, PathInfo, Prune, Realisation,
    RealisationKey, Result, Visit,
};
use superpose_store_path::{HashPart, StoreDir, StorePath};

/// The metadata of a store: of an upper and a lower source, or of the one source of a local store. Nothing is copied,
/// and nothing is written.
pub struct Merged<'a> {
    pub(crate) upper: &'a dyn MetadataSource,
    pub(crate) lower: Option<&'a dyn MetadataSource>,
}

impl std::fmt::Debug for Merged<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merged")
            .field("has_lower", &self.lower.is_some())
            .finish_non_exhaustive()
    }
}

impl Merged<'_> {
    /// Answers what the upper source cannot from the lower one, in two batches.
    fn upper_then_lower<Q: Clone, A>(
        &self,
        questions: &[Q],
        ask: impl Fn(&dyn MetadataSource, &[Q]) -> Result<Vec<Option<A>>>,
    ) -> Result<Vec<Option<A>>> {
        let mut answers = ask(self.upper, questions)?;
        let Some(lower) = self.lower else {
            return Ok(answers);
        };
        let open: Vec<usize> = (0..answers.len()).filter(|&i| answers[i].is_none()).collect();
        if open.is_empty() {
            return Ok(answers);
        }
        let below: Vec<Q> = open.iter().map(|&i| questions[i].clone()).collect();
        for (i, answer) in open.into_iter().zip(ask(lower, &below)?) {
            answers[i] = answer;
        }
        Ok(answers)
    }

    /// The sorted union of what both sources answer.
    fn union(
        &self,
        paths: &[StorePath],
        ask: impl Fn(&dyn MetadataSource, &[StorePath]) -> Result<Vec<Vec<StorePath>>>,
    ) -> Result<Vec<Vec<StorePath>>> {
        let mut answers = ask(self.upper, paths)?;
        let Some(lower) = self.lower else {
            return Ok(answers);
        };
        for (answer, below) in answers.iter_mut().zip(ask(lower, paths)?) {
            if answer.is_empty() {
                *answer = below;
            } else if !below.is_empty() {
                answer.extend(below);
                answer.sort_unstable();
                answer.dedup();
            }
        }
        Ok(answers)
    }

    /// Splits roots into those of the upper source and the rest.
    fn split(&self, roots: &[StorePath]) -> Result<(Vec<StorePath>, Vec<StorePath>)> {
        let above = self.upper.are_valid(roots)?;
        let (mut upper, mut lower) = (Vec::new(), Vec::new());
        for (root, above) in roots.iter().zip(above) {
            if above {
                upper.push(root.clone())
            } else {
                lower.push(root.clone())
            }
        }
        Ok((upper, lower))
    }

    /// Follows referrers through both sources, breadth first and by batches, then orders what was found.
    fn referrers_closure(&self, roots: &[StorePath]) -> Result<Vec<StorePath>> {
        if let Some(invalid) = self.are_valid(roots)?.iter().position(|valid| !valid) {
            return Err(Error::NotValid {
                path: self.store_dir().join(&roots[invalid]),
            });
        }
        let mut numbers: std::collections::HashMap<StorePath, usize> = std::collections::HashMap::new();
        let mut nodes: Vec<StorePath> = Vec::new();
        let mut edges: Vec<Vec<usize>> = Vec::new();
        for root in roots {
            if !numbers.contains_key(root) {
                numbers.insert(root.clone(), nodes.len());
                nodes.push(root.clone());
            }
        }
        let mut at = 0;
        while at < nodes.len() {
            let batch = nodes[at..].to_vec();
            at = nodes.len();
            for referrers in self.referrers(&batch)? {
                let found = referrers
                    .into_iter()
                    .map(|referrer| {
                        *numbers.entry(referrer.clone()).or_insert_with(|| {
                            nodes.push(referrer);
                            nodes.len() - 1
                        })
                    })
                    .collect();
                edges.push(found);
            }
        }
        Ok(after_edges(&edges)
            .into_iter()
            .map(|node| nodes[node].clone())
            .collect())
    }
}

/// All nodes, each after those that its edges lead to; an explicit stack, since chains may be long.
pub(super) fn after_edges(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    let mut stack: Vec<(usize, usize)> = Vec::new();
    for root in 0..edges.len() {
        if std::mem::replace(&mut seen[root], true) {
            continue;
        }
        stack.push((root, 0));
        while let Some((node, next)) = stack.last_mut() {
            match edges[*node].get(*next) {
                Some(&to) => {
                    *next += 1;
                    if !std::mem::replace(&mut seen[to], true) {
                        stack.push((to, 0));
                    }
                }
                None => {
                    order.push(*node);
                    stack.pop();
                }
            }
        }
    }
    order
}

impl MetadataSource for Merged<'_> {
    fn store_dir(&self) -> &StoreDir {
        self.upper.store_dir()
    }

    fn edition(&self) -> Result<Option<Edition>> {
        let above = self.upper.edition()?;
        let (Some(edition), Some(lower)) = (&above, self.lower) else {
            return Ok(above);
        };
        Ok(lower.edition()?.map(|below| edition.clone().with(below)))
    }

    fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>> {
        let answers = self.upper_then_lower(paths, |source, paths| {
            Ok(source
                .are_valid(paths)?
                .into_iter()
                .map(|valid| valid.then_some(()))
                .collect())
        })?;
        Ok(answers.into_iter().map(|answer| answer.is_some()).collect())
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        self.upper_then_lower(paths, |source, paths| source.path_infos(paths))
    }

    fn archives(&self, paths: &[StorePath]) -> Result<Vec<Option<ArchiveInfo>>> {
        self.upper_then_lower(paths, |source, paths| source.archives(paths))
    }

    fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>> {
        let Some(lower) = self.lower else {
            return self.upper.closure(roots, direction);
        };
        if direction == Closure::Referrers {
            return self.referrers_closure(roots);
        }
        let (above, below) = self.split(roots)?;
        if below.is_empty() {
            return self.upper.closure(&above, direction);
        }
        // The lower part first: a path of the upper part may depend on one of it, never the other way round.
        let mut closure = lower.closure(&below, direction)?;
        if !above.is_empty() {
            let seen: HashSet<StorePath> = closure.iter().cloned().collect();
            closure.extend(
                self.upper
                    .closure(&above, direction)?
                    .into_iter()
                    .filter(|path| !seen.contains(path)),
            );
        }
        Ok(closure)
    }

    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>> {
        let Some(lower) = self.lower else {
            return self.upper.closure_infos(roots, prune);
        };
        let (above, below) = self.split(roots)?;
        if below.is_empty() {
            return self.upper.closure_infos(&above, prune);
        }
        let mut infos = lower.closure_infos(&below, prune)?;
        if !above.is_empty() {
            let seen: HashSet<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
            let more = self.upper.closure_infos(&above, prune)?;
            infos.extend(more.into_iter().filter(|info| !seen.contains(&info.path)));
        }
        Ok(infos)
    }

    fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.union(paths, |source, paths| source.referrers(paths))
    }

    fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.union(paths, |source, paths| source.valid_derivers(paths))
    }

    /// # Deviation
    /// Nix asks the upper database alone and fails for a derivation that is only below.
    fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>> {
        self.upper_then_lower(derivations, |source, derivations| {
            source.derivation_outputs(derivations)
        })
    }

    fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>> {
        self.upper_then_lower(parts, |source, parts| source.path_from_hash_part(parts))
    }

    fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>> {
        self.upper_then_lower(keys, |source, keys| source.realisations(keys))
    }

    fn realisations_of(&self, outputs: &[StorePath]) -> Result<Vec<Realisation>> {
        let mut found = self.upper.realisations_of(outputs)?;
        if let Some(lower) = self.lower {
            let above: HashSet<RealisationKey> = found.iter().map(|one| one.key.clone()).collect();
            let below = lower.realisations_of(outputs)?;
            found.extend(below.into_iter().filter(|one| !above.contains(&one.key)));
            found.sort_by(|one, other| one.key.cmp(&other.key));
        }
        Ok(found)
    }

    /// # Deviation
    /// Nix lists the upper database alone.
    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<()> {
        let Some(lower) = self.lower else {
            return self.upper.for_each_valid_path(visit);
        };
        let mut above = HashSet::new();
        self.upper.for_each_valid_path(&mut |path| {
            above.insert(path.clone());
            visit(path)
        })?;
        lower.for_each_valid_path(&mut |path| {
            if above.contains(&path) {
                Ok(())
            } else {
                visit(path)
            }
        })
    }

    /// The paths of both sources, each once.
    fn count(&self) -> Result<u64> {
        if self.lower.is_none() {
            return self.upper.count();
        }
        let mut count = 0;
        self.for_each_valid_path(&mut |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }
}
