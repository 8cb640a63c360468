// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies of what another source knows.

use std::collections::HashMap;

use superpose_store_path::StorePath;

use super::register::{in_order, unix_time};
use super::room::Room;
use super::write::{Ids, PathWriter, Writer};
use crate::{MetadataSource, Outputs, PathInfo, Result};

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CopyStats {
    /// Paths that were not valid before.
    pub added: u64,
    /// References of those.
    pub references: u64,
}

/// What tells the outputs of derivations.
pub(super) type AskOutputs<'a> = dyn FnMut(&[StorePath]) -> Result<Vec<Option<Outputs>>> + 'a;

/// The outputs of derivations, asked for in advance.
pub(super) struct KnownOutputs(HashMap<StorePath, Outputs>);

impl KnownOutputs {
    /// Asks for the outputs of all derivations among the paths.
    pub(super) fn of(infos: &[PathInfo], from: &dyn MetadataSource) -> Result<Self> {
        let derivations: Vec<StorePath> = infos
            .iter()
            .map(|info| &info.path)
            .filter(|path| path.is_derivation())
            .cloned()
            .collect();
        if derivations.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let outputs = from.derivation_outputs(&derivations)?;
        let known = derivations.into_iter().zip(outputs);
        Ok(Self(
            known
                .filter_map(|(path, outputs)| Some((path, outputs?)))
                .collect(),
        ))
    }

    /// Answers with what was asked for.
    pub(super) fn take(&mut self, paths: &[StorePath]) -> Vec<Option<Outputs>> {
        paths.iter().map(|path| self.0.remove(path)).collect()
    }
}

impl Writer<'_> {
    pub(super) fn copy_in(&self, infos: &[PathInfo], ask_outputs: &mut AskOutputs<'_>) -> Result<CopyStats> {
        let now = unix_time();
        let _room = Room::for_paths(self.connection, infos.len());
        let mut rows = PathWriter::new(self)?;
        let mut ids = Ids::new(self)?;
        let mut added = Vec::new();
        for info in in_order(infos) {
            if let Some(id) = rows.insert(info, now)? {
                ids.insert(&info.path, id);
                added.push((info, id));
            }
        }
        let mut references = Vec::new();
        for &(info, id) in &added {
            ids.resolve(id, info, &mut references)?;
        }
        let stats = CopyStats {
            added: added.len() as u64,
            references: self.insert_references(references)?,
        };
        let derivations = added.iter().filter(|(info, _)| info.path.is_derivation());
        let (paths, ids): (Vec<StorePath>, Vec<i64>) =
            derivations.map(|(info, id)| (info.path.clone(), *id)).unzip();
        if !paths.is_empty() {
            for ((id, path), outputs) in ids.into_iter().zip(&paths).zip(ask_outputs(&paths)?) {
                // It may have become invalid in the source; without its outputs it would look like one that has none.
                let outputs = outputs.ok_or_else(|| self.reader().not_valid(path))?;
                self.insert_outputs(id, &outputs)?;
            }
        }
        Ok(stats)
    }
}
