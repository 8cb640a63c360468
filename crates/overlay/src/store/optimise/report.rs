// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a deduplication did, what it left alone, and why.

use std::path::PathBuf;

use superpose_nar::Difference;
use superpose_store_path::{Hash, StorePath};

use crate::Error;
use crate::upper_layer::Layer;

/// What a deduplication did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Optimised {
    /// The paths whose copies in the upper layer were dropped, sorted: they stay valid by the lower store.
    pub dropped: Vec<StorePath>,
    /// The objects that the lower store has too, and that were left in the upper layer all the same, in path order.
    pub kept: Vec<Kept>,
    /// Bytes of disk blocks that the dropped copies gave back.
    pub bytes_dropped: u64,
    /// Dropped copies that some process still uses; they are unlinked by a later deletion.
    pub waiting: usize,
    /// How many files became links to another file of the same content.
    pub linked: u64,
    /// Bytes of disk blocks that the replaced files gave back: of a file with several names, when the last of them was
    /// replaced.
    pub bytes_linked: u64,
    /// How many objects were searched for files that could become links; the others were searched before.
    pub searched: u64,
    /// How many files were hashed.
    pub hashed: u64,
    /// Files that could have become links but for something about them.
    pub skipped: Skipped,
    /// Whether the mount was made fresh.
    pub remounted: bool,
}

impl Optimised {
    /// Bytes of disk blocks that were given back in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_dropped + self.bytes_linked
    }
}

/// An object that the lower store has too, and that was left in the upper layer.
#[derive(Debug)]
pub struct Kept {
    /// The path.
    pub path: StorePath,
    /// Why.
    pub reason: Reason,
}

/// Why an object was left in the upper layer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The object of the lower store is another one.
    ///
    /// # Deviation
    /// Nix drops the copy above without looking, and with it the only good one if that below is damaged.
    Different {
        /// The first difference; its first tree is the upper one, its other the lower one.
        difference: Difference,
        /// Which of the two are not what their rows say; empty if both are.
        modified: Vec<Modified>,
    },
    /// The path is valid in the lower store, and its object is not there.
    Missing {
        /// Where it was looked for first.
        expected: PathBuf,
    },
    /// The rows of the two databases say different things of the contents.
    RowsDiffer {
        /// What the upper database says.
        upper: Hash,
        /// What the lower store says.
        lower: Hash,
    },
    /// An object or a row cannot be read.
    Unreadable {
        /// Whose.
        layer: Layer,
        /// Why.
        error: Error,
    },
    /// Several lower directories have a directory of that name: what would show is the union of them. No fault.
    SeveralBelow,
    /// A process is adding the path right now. No fault.
    InUse,
    /// One of the two was replaced while they were compared. No fault: the next run looks again.
    Changed,
}

impl Reason {
    /// Whether something is wrong with one of the layers.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Different { .. }
            | Self::Missing { .. }
            | Self::RowsDiffer { .. }
            | Self::Unreadable { .. } => true,
            Self::SeveralBelow | Self::InUse | Self::Changed => false,
        }
    }
}

/// An object that is not what its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modified {
    /// Which one.
    pub layer: Layer,
    /// What the row says.
    pub expected: Hash,
    /// What the object is.
    pub found: Hash,
}

/// How many files were not made links, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The owner may write them, or they have another time than store objects: links would share what is not settled.
    pub not_canonical: u64,
    /// Their owner is another than that of the file that they would become.
    pub foreign: u64,
    /// OverlayFS copied them up, and keeps notes about where from, which must not be shared.
    pub copied_up: u64,
    /// No more links to the same file are possible.
    pub too_many_links: u64,
    /// There was no space for a link, or no permission to make it.
    pub refused: u64,
    /// They changed or went away meanwhile, or their object cannot be read.
    pub changed: u64,
}

impl Skipped {
    pub(super) fn add(&mut self, more: Skipped) {
        self.not_canonical += more.not_canonical;
        self.foreign += more.foreign;
        self.copied_up += more.copied_up;
        self.too_many_links += more.too_many_links;
        self.refused += more.refused;
        self.changed += more.changed;
    }
}
