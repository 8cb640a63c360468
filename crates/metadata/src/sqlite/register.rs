// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registration: objects that are in the store become valid.

use std::time::{SystemTime, UNIX_EPOCH};

use superpose_store_path::{Derivation, ModuloMemo, ReadDerivation, StorePath};

use super::room::Room;
use super::write::{Ids, PathWriter, Writer};
use crate::graph::Graph;
use crate::{Error, Outputs, PathInfo, Result};

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RegisterStats {
    /// Paths that were not valid before.
    pub added: u64,
    /// Paths that were valid already.
    pub updated: u64,
    /// References of all of them.
    pub references: u64,
}

impl Writer<'_> {
    pub(super) fn register(
        &self,
        infos: &[PathInfo],
        read: &mut ReadDerivation<'_>,
    ) -> Result<RegisterStats> {
        let mut stats = RegisterStats::default();
        let infos = in_order(infos);
        let now = unix_time();
        let mut memo = ModuloMemo::new();
        let _room = Room::for_paths(self.connection, infos.len());
        let mut rows = PathWriter::new(self)?;
        let mut ids = Ids::new(self)?;
        for info in &infos {
            let id = match rows.insert(info, now)? {
                Some(id) => {
                    stats.added += 1;
                    self.check_content_address(info)?;
                    if info.path.is_derivation() {
                        self.insert_outputs(id, &self.checked_outputs(&info.path, &mut memo, read)?)?;
                    }
                    id
                }
                None => {
                    stats.updated += 1;
                    let id = ids
                        .get(&info.path)?
                        .ok_or_else(|| self.reader().not_valid(&info.path))?;
                    rows.update(id, info)?;
                    id
                }
            };
            ids.insert(&info.path, id);
        }
        let mut references = Vec::new();
        for info in &infos {
            let id = ids
                .get(&info.path)?
                .ok_or_else(|| self.reader().not_valid(&info.path))?;
            ids.resolve(id, info, &mut references)?;
        }
        stats.references = self.insert_references(references)?;
        self.check_cycles(&infos)?;
        Ok(stats)
    }

    fn check_content_address(&self, info: &PathInfo) -> Result<()> {
        match &info.content_address {
            Some(address)
                if !self
                    .store_dir
                    .is_content_addressed(&info.path, address, &info.references) =>
            {
                Err(Error::NotContentAddressed {
                    path: self.store_dir.join(&info.path),
                    content_address: address.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Reads and checks a derivation that becomes valid, and returns the outputs that are known of it.
    fn checked_outputs(
        &self,
        path: &StorePath,
        memo: &mut ModuloMemo,
        read: &mut ReadDerivation<'_>,
    ) -> Result<Outputs> {
        let text = read(path).map_err(|source| Error::ReadDerivation {
            path: self.store_dir.join(path),
            source,
        })?;
        let derivation = Derivation::parse_object(&text, self.store_dir, path).and_then(|derivation| {
            derivation.check(path, self.store_dir, memo, read)?;
            Ok(derivation)
        });
        let derivation = derivation.map_err(|source| Error::Derivation {
            path: self.store_dir.join(path),
            source: Box::new(source),
        })?;
        Ok(derivation.static_outputs())
    }

    /// Fails if the references among the given paths form a ring. References to others cannot: those were
    /// valid before.
    fn check_cycles(&self, infos: &[&PathInfo]) -> Result<()> {
        let mut graph = Graph::new();
        for info in infos {
            graph.add(&&info.path);
        }
        for info in infos {
            let from = graph.number(&&info.path).expect("it was just added");
            let to: Vec<u32> = info
                .references
                .iter()
                .filter_map(|path| graph.number(&path))
                .collect();
            graph.set_edges(from, to);
        }
        match graph.order() {
            (_, Some(ring)) => Err(Error::Cycle {
                path: self.store_dir.join(graph.key(ring)),
            }),
            _ => Ok(()),
        }
    }
}

/// Returns the infos in the order of their paths, in which Nix registers them and in which the index grows at one end.
/// Of several for one path the last one counts.
pub(super) fn in_order(infos: &[PathInfo]) -> Vec<&PathInfo> {
    let mut sorted: Vec<&PathInfo> = infos.iter().rev().collect();
    sorted.sort_by_key(|info| &info.path);
    sorted.dedup_by_key(|info| &info.path);
    sorted
}

/// Returns the time in Unix seconds.
pub(super) fn unix_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
