// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contents against rows.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::num::NonZero;

use superpose_metadata::ArchiveInfo;
use superpose_nar::NarHash;
use superpose_store_path::{Hash, HashAlgorithm, StorePath};

use super::{Fault, Note, VerifyReport, is_unknown};
use crate::Result;
use crate::hash_pool::{Job, hash_all};
use crate::store::Store;
use crate::upper_layer::Layer;

/// An object whose contents can be looked at. There is one for each row, so it holds no more than it must.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) path: StorePath,
    /// What its row says of the size of the archive; 0 if nothing.
    pub(super) size: u64,
    pub(super) expected: Expected,
    /// Which layer holds it.
    pub(super) layer: Layer,
    /// How much of it the upper layer has.
    pub(super) part: Part,
    /// Whether it is a file that the kernel copied up.
    pub(super) copied_up: bool,
    /// Whether the row is one of the upper database.
    pub(super) has_row: bool,
}

/// What a row says of the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// What nearly every row has.
    Sha256([u8; 32]),
    /// A hash that no archive has here.
    Other(Box<Hash>),
    Unknown,
}

impl Expected {
    fn of(recorded: &ArchiveInfo) -> Self {
        match <[u8; 32]>::try_from(recorded.hash.digest()) {
            _ if is_unknown(recorded) => Expected::Unknown,
            Ok(digest) if recorded.hash.algorithm() == HashAlgorithm::Sha256 => Expected::Sha256(digest),
            _ => Expected::Other(Box::new(recorded.hash)),
        }
    }

    fn hash(&self) -> Option<Hash> {
        match self {
            Expected::Sha256(digest) => Some(Hash::sha256(*digest)),
            Expected::Other(hash) => Some(**hash),
            Expected::Unknown => None,
        }
    }
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
    pub(super) fn new(path: &StorePath, recorded: &ArchiveInfo) -> Self {
        Subject {
            path: path.clone(),
            size: recorded.size,
            expected: Expected::of(recorded),
            layer: Layer::Upper,
            part: Part::Whole,
            copied_up: false,
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
        (self.expected == Expected::Unknown).then_some(Fault::NoHash { path, found: None })
    }
}

/// A merged directory: whether it is right as it is seen, and whether its upper part alone is.
#[derive(Debug, Default)]
struct Both {
    seen_is_right: bool,
    alone_is_right: bool,
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
        hash_all(&jobs, threads, &self.options.watch, &mut |number, result| {
            // That the part alone cannot be read is said of what is seen.
            if let Some(index) = number.checked_sub(subjects.len())
                && let Some(both) = both.get_mut(&merged[index])
            {
                let expected = subjects[merged[index]].expected.hash();
                both.alone_is_right = result.is_ok_and(|found| Some(found.hash) == expected);
                return Ok(());
            }
            let is_right = compare(&subjects[number], result, report);
            if let Some(both) = both.get_mut(&number) {
                both.seen_is_right = is_right;
            }
            Ok(())
        })?;
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
}

/// Compares what an object is with what its row says; whether it is right.
fn compare(subject: &Subject, result: superpose_nar::Result<NarHash>, report: &mut VerifyReport) -> bool {
    let path = subject.path.clone();
    let found = match result {
        Ok(found) => found,
        Err(error) => {
            let error = error.into();
            report.faults.push(Fault::Unreadable { path, error });
            return false;
        }
    };
    report.hashed += 1;
    report.bytes += found.size;
    if subject.copied_up {
        report.notes.push(Note::CopiedUp { path: path.clone() });
    }
    let Some(expected) = subject.expected.hash() else {
        let found = Some(ArchiveInfo {
            hash: found.hash,
            size: found.size,
        });
        report.faults.push(Fault::NoHash { path, found });
        return false;
    };
    let is_right = expected == found.hash;
    if !is_right {
        report.faults.push(Fault::Modified {
            path,
            layer: subject.layer,
            expected,
            found: found.hash,
        });
    } else if subject.size != found.size && subject.has_row {
        report.notes.push(Note::Size {
            path,
            recorded: subject.size,
            found: Some(found.size),
        });
    }
    is_right
}

/// Says of a merged directory whether the upper layer has all of it.
fn judge_merged(subject: &Subject, both: &Both, report: &mut VerifyReport) {
    let path = subject.path.clone();
    if both.alone_is_right {
        return;
    }
    if both.seen_is_right && subject.part == Part::OverUnknown {
        report.faults.push(Fault::Incomplete { path });
    } else {
        report.notes.push(Note::CopiedUp { path });
    }
}
