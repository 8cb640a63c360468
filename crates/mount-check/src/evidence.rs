// SPDX-License-Identifier: MIT OR Apache-2.0
//! Are the expected directories the layers of this overlay? Told from objects, not from text.
//!
//! What an overlay lets through of its layers' identity (Linux 6.1 to 7.2, observed):
//!
//! | seen through the mount | file handle (6.6 and newer, not in user namespaces) | inode number, if all layers are on one file system | times |
//! | --- | --- | --- | --- |
//! | the root of the overlay | the upper layer's | the upper layer's | the upper layer's |
//! | a directory in both layers | the lower one's | the lower one's | the upper layer's |
//! | what is only in one layer | that layer's | that layer's | that layer's |
//!
//! So the root tells the upper layer, and objects that only one lower directory has tell that lower
//! directory. The cost does not depend on how much the layers hold: only the beginning of a directory is
//! listed, and only a few objects are compared.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::handle::HandleReader;
use crate::object::{self, Comparable, Likeness, Mismatch, Object};
use crate::quote;
use crate::report::Certainty;

/// How many names of a layer are considered.
const NAMES: usize = 256;

/// How many objects of a layer are compared, until one proves it.
const COMPARISONS: usize = 16;

/// How many names of the merged directory are read when a name is missing there. Only reached when something
/// is wrong.
const MERGED_NAMES: usize = 1 << 20;

/// A directory that is expected to be a layer.
#[derive(Debug)]
pub(crate) struct LayerDirectory {
    pub(crate) directory: OwnedFd,
    pub(crate) object: Object,
}

/// How much a comparison may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// By inode numbers and times: some tens of microseconds.
    Quick,
    /// By file handles as well: the kernel takes some milliseconds to put an inotify instance away.
    Thorough,
}

/// What there is to compare.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// Made when it is first needed.
    pub(crate) handles: OnceCell<HandleReader>,
    pub(crate) merged: BorrowedFd<'a>,
    /// Is the merged directory the root of the overlay, not a directory below it?
    pub(crate) is_overlay_root: bool,
    /// Does the overlay pass inode numbers on, if it is the expected one?
    pub(crate) same_file_system: bool,
    pub(crate) upper: &'a LayerDirectory,
    pub(crate) lower: &'a [LayerDirectory],
}

/// What the objects say of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) certainty: Certainty,
    pub(crate) how: String,
    /// A name the layer lists and the mount lists too, but says is not there.
    pub(crate) stale: Option<Vec<u8>>,
}

impl Judgement {
    pub(crate) fn new(certainty: Certainty, how: impl Into<String>) -> Self {
        Self {
            certainty,
            how: how.into(),
            stale: None,
        }
    }
}

impl Scene<'_> {
    /// The reader of file handles, if they are to be looked at.
    pub(crate) fn handles(&self, care: Care) -> Option<&HandleReader> {
        (care == Care::Thorough).then(|| self.handles.get_or_init(HandleReader::new))
    }

    /// Judges the upper layer.
    pub(crate) fn judge_upper(&self, care: Care) -> Judgement {
        let comparable = Comparable {
            // Below the root a directory can be in both layers, and then its inode number is the lower one's.
            inodes: self.same_file_system && self.is_overlay_root,
            attributes: true,
            from_upper: self.is_overlay_root.then_some(true),
        };
        if self.is_overlay_root {
            return match object::compare(
                self.handles(care),
                self.merged,
                self.upper.directory.as_fd(),
                comparable,
            ) {
                Ok(likeness) => judge_likeness(likeness, "the mount's root"),
                Err(errno) => Judgement::new(Certainty::Unknown, format!("it cannot be looked at: {errno}")),
            };
        }
        self.judge_upper_below_root(care)
    }

    /// The merged directory is a part of the overlay: its times are the upper layer's, its handle may be the
    /// lower's.
    fn judge_upper_below_root(&self, care: Care) -> Judgement {
        let entries = self.judge_entries(self.upper, None, care);
        if matches!(entries.certainty, Certainty::Proven | Certainty::Refuted) {
            return entries;
        }
        let times = Comparable {
            inodes: false,
            attributes: true,
            from_upper: None,
        };
        match object::compare(
            self.handles(care),
            self.merged,
            self.upper.directory.as_fd(),
            times,
        ) {
            Ok(Likeness::SameHandle) => judge_likeness(Likeness::SameHandle, "the merged directory"),
            // A directory in both layers has the lower one's handle; only its times speak.
            Ok(Likeness::Other(Mismatch::Handle)) => {
                Judgement::new(Certainty::Consistent, "the times of the merged directory agree")
            }
            Ok(likeness) => judge_likeness(likeness, "the merged directory"),
            Err(errno) => Judgement::new(Certainty::Unknown, format!("it cannot be looked at: {errno}")),
        }
    }

    /// Judges the lower directory with this index.
    pub(crate) fn judge_lower(&self, index: usize, care: Care) -> Judgement {
        match self.lower.get(index) {
            Some(layer) => self.judge_entries(layer, Some(index), care),
            None => Judgement::new(Certainty::Unknown, "there is no such lower directory"),
        }
    }

    /// Compares entries that only this layer can show. `lower_index` is `None` for the upper layer.
    fn judge_entries(&self, layer: &LayerDirectory, lower_index: Option<usize>, care: Care) -> Judgement {
        let mut names = match list(layer.directory.as_fd(), NAMES) {
            Ok(names) => names,
            Err(errno) => return Judgement::new(Certainty::Unknown, format!("it cannot be listed: {errno}")),
        };
        // Directories cannot be hard-linked into another layer, so they prove most.
        names.sort_by_key(|(_, kind)| *kind != FileType::Directory);
        let mut best: Option<Judgement> = None;
        let mut refuted: Option<Judgement> = None;
        let mut missing: Option<&CStr> = None;
        let mut compared = 0;
        for (name, _) in &names {
            if compared == COMPARISONS {
                break;
            }
            let judgement = match self.judge_entry(layer, lower_index, name, care) {
                Entry::Silent => continue,
                Entry::Missing => {
                    missing = missing.or(Some(name));
                    continue;
                }
                Entry::Judged(judgement) => judgement,
            };
            compared += 1;
            match judgement.certainty {
                Certainty::Proven => return judgement,
                Certainty::Refuted => refuted = refuted.or(Some(judgement)),
                _ => best = best.or(Some(judgement)),
            }
        }
        if let Some(judgement) = refuted.or(best) {
            return judgement;
        }
        if let Some(name) = missing {
            return self.judge_missing(name);
        }
        if names.is_empty() {
            return Judgement::new(Certainty::Unknown, "it is empty");
        }
        Judgement::new(
            Certainty::Unknown,
            "none of its objects is visible through the mount",
        )
    }

    fn judge_entry(
        &self,
        layer: &LayerDirectory,
        lower_index: Option<usize>,
        name: &CStr,
        care: Care,
    ) -> Entry {
        let Ok(in_layer) = object::open(layer.directory.as_fd(), name) else {
            return Entry::Silent;
        };
        let Ok(entry) = Object::of(&in_layer) else {
            return Entry::Silent;
        };
        // A whiteout is not shown; what is mounted inside a layer is not part of it.
        if entry.is_whiteout() || entry.mount_id != layer.object.mount_id {
            return Entry::Silent;
        }
        let Some(shadow) = self.shadow(&entry, lower_index, name) else {
            return Entry::Silent;
        };
        let merged = match object::open(self.merged, name) {
            Ok(merged) => merged,
            Err(rustix::io::Errno::NOENT) if shadow == Shadow::None => return Entry::Missing,
            Err(_) => return Entry::Silent,
        };
        match (Object::of(&merged), Object::of(self.merged)) {
            (Ok(seen), Ok(directory)) if seen.mount_id == directory.mount_id => {}
            _ => return Entry::Silent,
        }
        let comparable = Comparable {
            inodes: self.same_file_system,
            attributes: shadow == Shadow::None,
            from_upper: (shadow == Shadow::None).then_some(lower_index.is_none()),
        };
        let Ok(likeness) = object::compare(self.handles(care), merged.as_fd(), in_layer.as_fd(), comparable)
        else {
            return Entry::Silent;
        };
        let what = quote::bytes(name.to_bytes());
        match (likeness, shadow) {
            // An opaque directory of the upper layer hides the lower one.
            (Likeness::Other(_), Shadow::Merged) | (Likeness::Incomparable, _) => Entry::Silent,
            (Likeness::SameHandle | Likeness::SameInode, _)
                if entry.kind != FileType::Directory && entry.links > 1 =>
            {
                Entry::Judged(Judgement::new(
                    Certainty::Consistent,
                    format!("{what} is the same hard-linked file"),
                ))
            }
            _ => Entry::Judged(judge_likeness(likeness, &what)),
        }
    }

    /// Does another layer show itself under this name instead? `None` if so.
    fn shadow(&self, entry: &Object, lower_index: Option<usize>, name: &CStr) -> Option<Shadow> {
        let exists = |layer: &LayerDirectory| match Object::below(&layer.directory, name) {
            Ok(object) => Ok(Some(object)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
        let Some(index) = lower_index else {
            // A name of the upper layer shows the upper layer's identity only if no lower directory has it.
            let alone = self.lower.iter().all(|lower| matches!(exists(lower), Ok(None)));
            return alone.then_some(Shadow::None);
        };
        let above = self.lower.get(..index).unwrap_or_default();
        if !above.iter().all(|lower| matches!(exists(lower), Ok(None))) {
            return None;
        }
        match exists(self.upper).ok()? {
            None => Some(Shadow::None),
            Some(over) if over.kind == FileType::Directory && entry.kind == FileType::Directory => {
                Some(Shadow::Merged)
            }
            Some(_) => None,
        }
    }

    /// The layer has a name that the mount says is not there: either it is not a layer, or the kernel
    /// remembers an earlier absence. In the second case a listing of the mount has the name all the same.
    fn judge_missing(&self, name: &CStr) -> Judgement {
        let what = quote::bytes(name.to_bytes());
        match list(self.merged, MERGED_NAMES) {
            Ok(names) if names.iter().any(|(listed, _)| listed.as_c_str() == name) => Judgement {
                certainty: Certainty::Consistent,
                how: format!("the mount lists {what} as it does"),
                stale: Some(name.to_bytes().to_vec()),
            },
            Ok(_) => Judgement::new(Certainty::Refuted, format!("the mount does not show its {what}")),
            Err(errno) => Judgement::new(Certainty::Unknown, format!("the mount cannot be listed: {errno}")),
        }
    }

    /// Finds an object of the mount that no expected layer has. Only looks if the layers are small enough to
    /// be listed whole, so that the answer costs little when all is as expected.
    pub(crate) fn unexplained_name(&self) -> Option<Vec<u8>> {
        let layers = || std::iter::once(self.upper).chain(self.lower);
        for layer in layers() {
            if list(layer.directory.as_fd(), NAMES).ok()?.len() >= NAMES {
                return None;
            }
        }
        let limit = NAMES * (self.lower.len() + 1);
        let names = list(self.merged, limit).ok()?;
        let unexplained = names.iter().find(|(name, _)| {
            layers().all(|layer| {
                matches!(
                    Object::below(&layer.directory, name),
                    Err(rustix::io::Errno::NOENT)
                )
            })
        });
        // Something removed meanwhile explains itself.
        let (name, _) = unexplained?;
        object::open(self.merged, name).ok()?;
        Some(name.to_bytes().to_vec())
    }
}

enum Entry {
    /// Says nothing about the layer.
    Silent,
    /// Should be visible and is not.
    Missing,
    Judged(Judgement),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shadow {
    /// Only this layer has the name.
    None,
    /// The upper layer and this one have a directory of this name.
    Merged,
}

fn judge_likeness(likeness: Likeness, what: &str) -> Judgement {
    match likeness {
        Likeness::Incomparable => Judgement::new(Certainty::Unknown, "it never holds still"),
        Likeness::SameHandle => Judgement::new(Certainty::Proven, format!("{what} has its file handle")),
        Likeness::SameInode => Judgement::new(Certainty::Proven, format!("{what} has its inode number")),
        Likeness::SameTimes => Judgement::new(Certainty::Consistent, format!("{what} has its times")),
        Likeness::Other(why) => {
            Judgement::new(Certainty::Refuted, format!("{what} is another object: {why}"))
        }
    }
}

/// The first names of a directory, without `.` and `..`.
fn list(directory: BorrowedFd<'_>, limit: usize) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        names.push((name.to_owned(), entry.file_type()));
        if names.len() == limit {
            break;
        }
    }
    Ok(names)
}
