// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashes and sizes that rows lack, filled in.

use superpose_metadata::{ArchiveInfo, MetadataSource};
use superpose_store_path::StorePath;

use super::Repaired;
use crate::Result;
use crate::store::Store;
use crate::store::verify::{Fault, Note, VerifyReport, is_unknown};

impl Store {
    /// Fills in what was found, in one transaction, unless somebody else has done so meanwhile.
    pub(super) fn fill_in_rows(&mut self, report: &VerifyReport, repaired: &mut Repaired) -> Result<()> {
        let hashes = report.faults.iter().filter_map(|fault| match fault {
            Fault::NoHash {
                path,
                found: Some(found),
            } => Some((path, *found)),
            _ => None,
        });
        let hashes: Vec<(&StorePath, ArchiveInfo)> = hashes.collect();
        let sizes = report.notes.iter().filter_map(|note| match note {
            Note::Size {
                path,
                recorded,
                found: Some(found),
            } => Some((path, *recorded, *found)),
            _ => None,
        });
        let sizes: Vec<(&StorePath, u64, u64)> = sizes.collect();
        if hashes.is_empty() && sizes.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin()?;
        for (path, found) in hashes {
            let recorded = recorded(transaction.database(), path)?;
            if recorded.is_some_and(|recorded| is_unknown(&recorded)) {
                transaction.set_archive(path, &found)?;
                repaired.rows.push(path.clone());
            }
        }
        for (path, known, found) in sizes {
            match recorded(transaction.database(), path)? {
                Some(recorded) if recorded.size == known => {
                    let hash = recorded.hash;
                    transaction.set_archive(path, &ArchiveInfo { hash, size: found })?;
                    repaired.rows.push(path.clone());
                }
                _ => {}
            }
        }
        transaction.commit()?;
        repaired.rows.sort_unstable();
        Ok(())
    }
}

fn recorded(source: &dyn MetadataSource, path: &StorePath) -> Result<Option<ArchiveInfo>> {
    let archives = source.archives(std::slice::from_ref(path))?;
    Ok(archives.into_iter().next().flatten())
}
