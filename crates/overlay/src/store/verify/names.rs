// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows against names: what the upper database knows, what the upper layer has, and what the lower store says of both.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Mode, OFlags, openat};
use superpose_metadata::{ArchiveInfo, MetadataSource};
use superpose_store_path::{Hash, HashPart, StorePath};

use super::contents::{Part, Subject};
use super::{BATCH, Fault, Note, Row, VerifyReport, is_unknown, read_rows};
use crate::flock::{self, LockMode};
use crate::listing::EntryKind;
use crate::marks::{self, Marks};
use crate::mounting::OverlayAttributes;
use crate::roots::Stale;
use crate::store::layer::stat_in;
use crate::store::{Below, Store, trash};
use crate::survey::Entries;
use crate::upper_layer::Layer;
use crate::{Result, temp_roots};

/// What was found so far.
struct Findings<'a> {
    report: &'a mut VerifyReport,
    subjects: Vec<Subject>,
    /// Rows whose objects are not seen.
    gone: Vec<StorePath>,
}

impl Store {
    /// Judges every row and every name of the layer; gives back the objects whose contents can be looked at.
    pub(super) fn verify_names(
        &mut self,
        rows: &[StorePath],
        entries: &Entries,
        report: &mut VerifyReport,
    ) -> Result<Vec<Subject>> {
        let mut findings = Findings {
            report,
            subjects: Vec::with_capacity(rows.len()),
            gone: Vec::new(),
        };
        let kind = self.attribute_kind()?;
        for batch in rows.chunks(BATCH) {
            self.options.watch.go_on()?;
            self.judge_rows(batch, entries, kind, &mut findings)?;
        }
        if self.view_is_stale(&findings.gone, entries)? {
            self.refresh_mount()?;
            for batch in std::mem::take(&mut findings.gone).chunks(BATCH) {
                self.judge_rows(batch, entries, kind, &mut findings)?;
            }
        }
        self.judge_unknown(rows, entries, kind, &mut findings)?;
        let Findings {
            report,
            subjects,
            gone,
        } = findings;
        self.judge_gone(gone, &subjects, report)?;
        Ok(subjects)
    }

    fn judge_rows(
        &self,
        batch: &[StorePath],
        entries: &Entries,
        kind: Option<OverlayAttributes>,
        findings: &mut Findings<'_>,
    ) -> Result<()> {
        let above = read_rows(&self.database, batch)?;
        let below = match &self.below {
            Some(below) => read_rows(&below.lower, batch)?,
            None => batch.iter().map(|_| Row::Absent).collect(),
        };
        for ((path, above), below) in batch.iter().zip(above).zip(below) {
            self.judge_row(path, entries.of(path), [above, below], kind, findings)?;
        }
        Ok(())
    }

    fn judge_row(
        &self,
        path: &StorePath,
        entry: Option<EntryKind>,
        [above, below]: [Row; 2],
        kind: Option<OverlayAttributes>,
        findings: &mut Findings<'_>,
    ) -> Result<()> {
        let mut unreadable = None;
        match self.is_seen(path, entry) {
            Ok(true) => {}
            Ok(false) if entry == Some(EntryKind::Whiteout) && below.is_valid() => {
                findings.report.faults.push(Fault::Hidden { path: path.clone() });
                return Ok(());
            }
            Ok(false) => {
                findings.gone.push(path.clone());
                return Ok(());
            }
            Err(error) => unreadable = Some(error),
        }
        let recorded = match above {
            // Forgotten since it was listed.
            Row::Absent => return Ok(()),
            Row::Known(recorded) => recorded,
            Row::Unreadable(error) => {
                unreadable = Some(error);
                ArchiveInfo {
                    hash: Hash::sha256([0; 32]),
                    size: 0,
                }
            }
        };
        let mut subject = Subject::new(path, &recorded);
        let entry = entry.filter(|entry| *entry != EntryKind::Whiteout);
        match (&self.below, entry) {
            (None, _) => {}
            (Some(_), None) => {
                subject.layer = Layer::Lower;
                if !below.is_valid() {
                    findings.report.faults.push(Fault::Lost { path: path.clone() });
                }
            }
            (Some(layer), Some(entry)) => {
                judge_marks(layer, entry, kind, below.is_valid(), &mut subject, findings)?;
            }
        }
        if let Some(error) = unreadable {
            let path = path.clone();
            findings.report.faults.push(Fault::Unreadable { path, error });
            return Ok(());
        }
        if !is_unknown(&recorded)
            && let Some(other) = below.archive().filter(|other| other.hash != recorded.hash)
        {
            findings.note_difference(path, entry, &recorded.hash, &other.hash);
        }
        findings.subjects.push(subject);
        Ok(())
    }

    /// Whether the object is in the store directory. That of a local store is what was listed.
    fn is_seen(&self, path: &StorePath, entry: Option<EntryKind>) -> Result<bool> {
        match self.below {
            None => Ok(entry.is_some()),
            Some(_) => self.exists(path),
        }
    }

    /// Judges names of the layer that no row has.
    fn judge_unknown(
        &self,
        rows: &[StorePath],
        entries: &Entries,
        kind: Option<OverlayAttributes>,
        findings: &mut Findings<'_>,
    ) -> Result<()> {
        let mut unknown = Vec::new();
        for (name, entry) in entries.iter() {
            match StorePath::from_base_name(name.as_bytes()) {
                Ok(path) => {
                    if rows.binary_search(&path).is_err() || entry == EntryKind::Whiteout {
                        unknown.push((path, entry));
                    }
                }
                Err(_) if entry == EntryKind::Whiteout => findings.report.notes.push(Note::Whiteout {
                    name: name.to_owned(),
                }),
                Err(_) if self.below.is_none() => findings.report.notes.push(Note::ForeignName {
                    name: name.to_owned(),
                }),
                Err(_) if self.is_scratch_in_use(name) => {}
                Err(_) => findings.report.faults.push(Fault::ForeignName {
                    name: name.to_owned(),
                }),
            }
        }
        unknown.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        // Being added at this moment: no garbage.
        let protected: HashSet<HashPart> = temp_roots::scan(&self.state, self.dir(), Stale::Report)?
            .roots
            .iter()
            .map(|root| root.path.hash_part())
            .collect();
        let directory = self.layer().fd;
        for batch in unknown.chunks(BATCH) {
            let paths: Vec<StorePath> = batch.iter().map(|(path, _)| path.clone()).collect();
            // Whoever does not protect what he added any more has registered it.
            let registered = self.database.are_valid(&paths)?;
            let below = match &self.below {
                Some(below) => read_rows(&below.lower, &paths)?,
                None => paths.iter().map(|_| Row::Absent).collect(),
            };
            for (((path, entry), row), registered) in batch.iter().zip(below).zip(registered) {
                let has_row = rows.binary_search(path).is_ok();
                if registered && !has_row {
                    continue;
                }
                match (entry, &self.below) {
                    // Hidden, and its row above has said so.
                    (EntryKind::Whiteout, _) if has_row => {
                        if !row.is_valid() {
                            findings.report.notes.push(Note::whiteout(path));
                        }
                    }
                    (EntryKind::Whiteout, _) if row.is_valid() => {
                        findings.report.faults.push(Fault::Hidden { path: path.clone() })
                    }
                    (EntryKind::Whiteout, _) => findings.report.notes.push(Note::whiteout(path)),
                    (_, Some(layer)) if row.is_valid() => {
                        // Valid by the row below, and what is seen is this one.
                        if let Some(recorded) = row.archive().filter(|recorded| !is_unknown(recorded)) {
                            let mut subject = Subject::new(path, recorded);
                            subject.has_row = false;
                            judge_marks(layer, *entry, kind, true, &mut subject, findings)?;
                            findings.subjects.push(subject);
                        }
                        findings
                            .report
                            .notes
                            .push(Note::Unregistered { path: path.clone() });
                    }
                    _ if protected.contains(&path.hash_part())
                        || trash::object_of(path.base_name().as_bytes()).is_some() => {}
                    // Scratch, or a lock: whoever used it is done.
                    _ if is_gone(directory, path) => {}
                    _ => findings
                        .report
                        .notes
                        .push(Note::Unregistered { path: path.clone() }),
                }
            }
        }
        Ok(())
    }

    /// Whether it is scratch of a running Nix: a directory `tmp-…` that somebody has locked.
    fn is_scratch_in_use(&self, name: &OsStr) -> bool {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        name.as_bytes().starts_with(b"tmp-")
            && openat(self.real.fd(), name, flags, Mode::empty()).is_ok_and(|directory| {
                // Taken for a moment, and given back when it is closed.
                matches!(flock::try_acquire(directory.as_fd(), LockMode::Shared), Ok(false))
            })
    }

    /// The attributes in which the mount of an overlay store keeps its notes, as far as its options can be seen.
    pub(in crate::store) fn attribute_kind(&self) -> Result<Option<OverlayAttributes>> {
        match &self.below {
            None => Ok(None),
            Some(below) if below.attributes.is_some() => Ok(below.attributes),
            Some(_) => Ok(marks::kind_of(&superpose_mount_check::describe(
                self.real.path(),
            )?)),
        }
    }
}

/// Whether a name that was listed is not there any more.
fn is_gone(directory: BorrowedFd<'_>, path: &StorePath) -> bool {
    matches!(stat_in(directory, OsStr::new(path.base_name())), Ok(None))
}

impl Findings<'_> {
    /// The rows of both stores differ. If the object is below, the upper row is wrong about it.
    fn note_difference(&mut self, path: &StorePath, entry: Option<EntryKind>, above: &Hash, below: &Hash) {
        let (path, above, below) = (path.clone(), *above, *below);
        match entry {
            None => self.report.faults.push(Fault::Drifted {
                path,
                expected: above,
                found: below,
            }),
            Some(_) => self.report.notes.push(Note::DiffersBelow { path, above, below }),
        }
    }
}

impl Note {
    fn whiteout(path: &StorePath) -> Self {
        Note::Whiteout {
            name: path.base_name().into(),
        }
    }
}

/// Finds out whether an entry of the upper layer is the whole object.
fn judge_marks(
    below: &Below,
    entry: EntryKind,
    kind: Option<OverlayAttributes>,
    valid_below: bool,
    subject: &mut Subject,
    findings: &mut Findings<'_>,
) -> Result<()> {
    let name = OsStr::new(subject.path.base_name());
    let (Some(kind), Some(kind_below)) = (kind, below.kind_below(name)?) else {
        return Ok(());
    };
    let Marks {
        opaque,
        has_origin,
        metadata_only,
    } = marks::read(below.upper.fd(), below.upper.path(), name, kind)?;
    // The kernel gives this mark to every directory that it merges, whoever made it.
    subject.copied_up = has_origin && entry != EntryKind::Directory;
    if metadata_only {
        findings.report.faults.push(Fault::MetadataOnly {
            path: subject.path.clone(),
        });
    }
    let merged = entry == EntryKind::Directory && kind_below == FileType::Directory && !opaque;
    if merged {
        subject.part = if valid_below {
            Part::OverValid
        } else {
            Part::OverUnknown
        };
    }
    Ok(())
}
