// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows whose objects are not seen: forgotten if nothing needs them, as Nix does it, else missed.

use std::collections::HashSet;
use std::ffi::OsStr;

use superpose_metadata::{Closure, MetadataSource};
use superpose_store_path::StorePath;

use super::contents::Subject;
use super::{Fault, VerifyReport};
use crate::Result;
use crate::listing::EntryKind;
use crate::store::Store;
use crate::survey::Entries;

impl Store {
    /// Splits off what disappeared; rows that nothing present needs are deleted, as Nix does it.
    pub(super) fn judge_gone(
        &mut self,
        gone: Vec<StorePath>,
        subjects: &[Subject],
        report: &mut VerifyReport,
    ) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        // What a present object needs is missed, and so is what that needs; the rest is not. A lower object that is
        // there counts too, though its row is not above. What is valid below is missed in any case: without its row
        // above it would be as valid as before.
        let referrers = self.metadata().referrers(&gone)?;
        let valid_below = match &self.below {
            Some(below) => below.lower.are_valid(&gone)?,
            None => vec![false; gone.len()],
        };
        let present = subjects.iter().filter(|subject| subject.has_row);
        let mut needing: Vec<StorePath> = present.map(|subject| subject.path.clone()).collect();
        needing.extend(self.hidden_with_rows(report)?);
        for ((path, referrers), valid_below) in gone.iter().zip(&referrers).zip(&valid_below) {
            if *valid_below {
                needing.push(path.clone());
                continue;
            }
            for referrer in referrers.iter().filter(|referrer| *referrer != path) {
                // What cannot be looked at is there.
                if self.exists(referrer).unwrap_or(true) {
                    needing.push(path.clone());
                    break;
                }
            }
        }
        let needed: HashSet<StorePath> = self
            .database
            .closure(&needing, Closure::References)?
            .into_iter()
            .collect();
        let mut forgotten = Vec::new();
        for ((path, mut referrers), valid_below) in gone.into_iter().zip(referrers).zip(valid_below) {
            if needed.contains(&path) {
                referrers.retain(|referrer| *referrer != path);
                report.faults.push(Fault::Missing {
                    path,
                    referrers,
                    valid_below,
                });
            } else {
                forgotten.push(path);
            }
        }
        self.database.invalidate(&forgotten)?;
        report.forgotten = forgotten;
        Ok(())
    }

    /// What whiteouts hide is there, and its rows stay.
    fn hidden_with_rows(&self, report: &VerifyReport) -> Result<Vec<StorePath>> {
        let hidden = report.faults.iter().filter_map(|fault| match fault {
            Fault::Hidden { path } => Some(path.clone()),
            _ => None,
        });
        let hidden: Vec<StorePath> = hidden.collect();
        let known = self.database.are_valid(&hidden)?;
        let with_rows = hidden.into_iter().zip(known).filter(|(_, known)| *known);
        Ok(with_rows.map(|(path, _)| path).collect())
    }

    /// Whether something that is not seen lies in a layer all the same: the kernel remembers that there was nothing. A row
    /// that is forgotten for that would cost an object that is there.
    pub(super) fn view_is_stale(&self, gone: &[StorePath], entries: &Entries) -> Result<bool> {
        let Some(below) = &self.below else {
            return Ok(false);
        };
        for path in gone {
            let lies_there = match entries.of(path) {
                Some(EntryKind::Whiteout) => false,
                Some(_) => true,
                None => below.lies_below(OsStr::new(path.base_name()))?,
            };
            if lies_there {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
