// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies of what another source knows.

use superpose_store_path::StorePath;

use super::register::{in_order, unix_time};
use super::room::Room;
use super::write::{Ids, PathWriter, Writer};
use crate::{MetadataSource, PathInfo, Result};

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CopyStats {
    /// Paths that were not valid before.
    pub added: u64,
    /// References of those.
    pub references: u64,
}

impl Writer<'_> {
    pub(super) fn copy_in(&self, infos: &[PathInfo], from: &dyn MetadataSource) -> Result<CopyStats> {
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
            for (id, outputs) in ids.into_iter().zip(from.derivation_outputs(&paths)?) {
                self.insert_outputs(id, &outputs.unwrap_or_default())?;
            }
        }
        Ok(stats)
    }
}
