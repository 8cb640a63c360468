// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contents against rows.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::num::NonZero;

use superpose_metadata::{ArchiveInfo, MetadataSource};
use superpose_nar::NarHash;
use superpose_store_path::StorePath;

use super::{BATCH, Fault, Note, VerifyReport, is_unknown};
use crate::Result;
use crate::hash_pool::{Job, hash_all};
use crate::store::Store;
use crate::upper_layer::Layer;

/// An object whose contents can be looked at. There is one for each row, so it holds no more than it must.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) path: StorePath,
    /// What its row says; 0 if nothing.
    pub(super) size: u64,
    /// Which layer holds it.
    pub(super) layer: Layer,
    /// How much of it the upper layer has.
    pub(super) part: Part,
    /// Whether it is a file that the kernel copied up.
    pub(super) copied_up: bool,
    /// Whether its row says what it should be.
    pub(super) has_hash: bool,
    /// Whether the row is one of the upper database.
    pub(super) has_row: bool,
}

/// How much of an object its layer has, as far as names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All that is seen.
    Whole,
    /// A directory that is merged with that of an object which is valid below.
    OverValid,
    /// A directory that is merged with one that the lower store does not know.
    OverUnknown,
}

impl Subject {
    pub(super) fn new(path: &StorePath, size: u64) -> Self {
        Subject {
            path: path.clone(),
            size,
            layer: Layer::Upper,
            part: Part::Whole,
            copied_up: false,
            has_hash: true,
            has_row: true,
        }
    }

    /// What there is to say of it when contents are not looked at.
    pub(super) fn note(&self) -> Option<Note> {
        let path = self.path.clone();
        match self.part {
            _ if self.copied_up => Some(Note::CopiedUp { path }),
            Part::OverValid | Part::OverUnknown => Some(Note::Merged { path }),
            Part::Whole if self.size == 0 => Some(Note::Size {
                path,
                recorded: 0,
                found: None,
            }),
            Part::Whole => None,
        }
    }

    /// What is wrong with it when contents are not looked at.
    pub(super) fn fault(&self) -> Option<Fault> {
        let path = self.path.clone();
        (!self.has_hash).then_some(Fault::NoHash { path, found: None })
    }
}

/// An archive of a merged directory: as it is seen, and of the upper part alone.
#[derive(Debug, Default)]
struct Both {
    seen_is_right: bool,
    alone: Option<NarHash>,
    expected: Option<ArchiveInfo>,
}

impl Store {
    /// Hashes the objects on all threads, and compares them with their rows.
    pub(super) fn verify_contents(
        &self,
        subjects: &[Subject],
        threads: NonZero<usize>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let mut jobs: Vec<Job<'_>> = subjects
            .iter()
            .map(|subject| self.job(self.real.fd(), subject))
            .collect();
        // What is merged is hashed once more without what is below: is it all there?
        let merged: Vec<usize> = (0..subjects.len())
            .filter(|&number| subjects[number].part != Part::Whole)
            .collect();
        if let Some(below) = &self.below {
            jobs.extend(
                merged
                    .iter()
                    .map(|&number| self.job(below.upper.fd(), &subjects[number])),
            );
        }
        let mut both: HashMap<usize, Both> = merged.iter().map(|&number| (number, Both::default())).collect();
        let mut batch = Vec::with_capacity(BATCH);
        hash_all(&jobs, threads, &self.options.watch, &mut |number, result| {
            if let Some(index) = number.checked_sub(subjects.len()) {
                // That it cannot be read is said of what is seen.
                if let Some(both) = both.get_mut(&merged[index]) {
                    both.alone = result.ok();
                }
                return Ok(());
            }
            batch.push((number, result));
            if batch.len() == BATCH {
                self.compare(subjects, &mut batch, &mut both, report)?;
            }
            Ok(())
        })?;
        self.compare(subjects, &mut batch, &mut both, report)?;
        for (number, both) in both {
            judge_merged(&subjects[number], &both, report);
        }
        Ok(())
    }

    fn job<'a>(&self, directory: rustix::fd::BorrowedFd<'a>, subject: &'a Subject) -> Job<'a> {
        Job {
            directory,
            name: OsStr::new(subject.path.base_name()),
            size: subject.size,
        }
    }

    /// Compares a batch of results with what the rows say.
    fn compare(
        &self,
        subjects: &[Subject],
        batch: &mut Vec<(usize, superpose_nar::Result<NarHash>)>,
        both: &mut HashMap<usize, Both>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let paths: Vec<StorePath> = batch
            .iter()
            .map(|(number, _)| subjects[*number].path.clone())
            .collect();
        let expected = self.metadata().archives(&paths)?;
        for ((number, result), expected) in batch.drain(..).zip(expected) {
            let subject = &subjects[number];
            let path = subject.path.clone();
            let found = match result {
                Ok(found) => found,
                Err(error) => {
                    let error = error.into();
                    report.faults.push(Fault::Unreadable { path, error });
                    continue;
                }
            };
            report.hashed += 1;
            report.bytes += found.size;
            // Forgotten meanwhile.
            let Some(expected) = expected else { continue };
            let right = expected.hash == found.hash;
            if let Some(both) = both.get_mut(&number) {
                both.seen_is_right = right;
                both.expected = Some(expected);
            }
            if is_unknown(&expected) {
                let found = Some(ArchiveInfo {
                    hash: found.hash,
                    size: found.size,
                });
                report.faults.push(Fault::NoHash { path, found });
            } else if !right {
                report.faults.push(Fault::Modified {
                    path,
                    layer: subject.layer,
                    expected: expected.hash,
                    found: found.hash,
                });
            } else if expected.size != found.size && subject.has_row {
                report.notes.push(Note::Size {
                    path,
                    recorded: expected.size,
                    found: Some(found.size),
                });
            }
            if subject.copied_up {
                let path = subject.path.clone();
                report.notes.push(Note::CopiedUp { path });
            }
        }
        Ok(())
    }
}

/// Says of a merged directory whether the upper layer has all of it.
fn judge_merged(subject: &Subject, both: &Both, report: &mut VerifyReport) {
    let path = subject.path.clone();
    let is_whole = match (&both.alone, &both.expected) {
        (Some(alone), Some(expected)) => alone.hash == expected.hash,
        _ => false,
    };
    if !is_whole && both.seen_is_right && subject.part == Part::OverUnknown {
        report.faults.push(Fault::Incomplete { path });
    } else if !is_whole {
        report.notes.push(Note::CopiedUp { path });
    }
}
