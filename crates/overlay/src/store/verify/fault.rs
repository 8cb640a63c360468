// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a verification can find.

use std::ffi::{OsStr, OsString};

use superpose_metadata::ArchiveInfo;
use superpose_store_path::{Hash, StorePath};

use crate::Error;
use crate::upper_layer::Layer;

/// One fault that was found: something valid is not, or not surely, what was registered; or a collector would fail.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The object is gone, and valid paths refer to it, or it is valid in the lower store.
    ///
    /// # Deviation
    /// Nix forgets a row of the latter kind, and copies it up again when it is next asked about it.
    Missing {
        /// The path.
        path: StorePath,
        /// Valid paths that refer to it.
        referrers: Vec<StorePath>,
        /// Whether it is valid in the lower store.
        valid_below: bool,
    },
    /// The object is not what was registered.
    Modified {
        /// The path.
        path: StorePath,
        /// Which layer holds the object; the upper one as well if it holds a part of it.
        layer: Layer,
        /// What the row says.
        expected: Hash,
        /// What the object is.
        found: Hash,
    },
    /// The object cannot be hashed, or its row cannot be read.
    Unreadable {
        /// The path.
        path: StorePath,
        /// Why.
        error: Error,
    },
    /// A whiteout of the upper layer hides an object that is valid in the lower store.
    Hidden {
        /// The path.
        path: StorePath,
    },
    /// The row is a copy from below, and below the path is not valid any more: its files there, if there are any, can
    /// go at any time.
    Lost {
        /// The path.
        path: StorePath,
    },
    /// The row is a copy from below, and the row below says something else by now.
    Drifted {
        /// The path.
        path: StorePath,
        /// What the upper database says.
        expected: Hash,
        /// What the lower store says.
        found: Hash,
    },
    /// The upper layer has a part of the object only, and the rest shines through from what the lower store does not
    /// know any more.
    Incomplete {
        /// The path.
        path: StorePath,
    },
    /// The file in the upper layer has no contents: they are those of the file below, as long as the mount is made with
    /// `metacopy`.
    MetadataOnly {
        /// The path.
        path: StorePath,
    },
    /// The row has no hash, so that nobody can tell whether the object is right.
    NoHash {
        /// The path.
        path: StorePath,
        /// What the object is, if contents were looked at.
        found: Option<ArchiveInfo>,
    },
    /// A name in the upper layer is no store path: the collector of stock Nix stops at it.
    ForeignName {
        /// The name in the layer.
        name: OsString,
    },
    /// An entry of the hard-link farm is not the file that its name says. Nix links new files to it.
    Link {
        /// The name in `.links`.
        name: OsString,
        /// The hash of what it is.
        found: Hash,
    },
    /// An entry of the hard-link farm cannot be hashed.
    UnreadableLink {
        /// The name in `.links`.
        name: OsString,
        /// Why.
        error: Error,
    },
}

/// Something that is good to know and does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// An object of the layer that no row knows; a collection removes it.
    Unregistered {
        /// Its path, if it were valid.
        path: StorePath,
    },
    /// A name in the directory of a local store that is no store path; a collection removes it.
    ForeignName {
        /// The name.
        name: OsString,
    },
    /// A whiteout over nothing, or over what the lower store does not know.
    Whiteout {
        /// The name in the upper layer.
        name: OsString,
    },
    /// A directory of the upper layer is merged with one below, as both layers have the object: what is seen is the
    /// union. Whether that is right, contents tell.
    Merged {
        /// The path.
        path: StorePath,
    },
    /// The kernel copied a part of the object or all of it up, since somebody changed it through the mount; the rest is
    /// that of the lower store.
    CopiedUp {
        /// The path.
        path: StorePath,
    },
    /// Both layers have the object, and they differ: it was built twice, and the upper one is seen.
    DiffersBelow {
        /// The path.
        path: StorePath,
        /// What the upper database says.
        above: Hash,
        /// What the lower store says.
        below: Hash,
    },
    /// The row has no size of the archive, or another one than it has.
    Size {
        /// The path.
        path: StorePath,
        /// What the row says; 0 if nothing.
        recorded: u64,
        /// What it is, if contents were looked at.
        found: Option<u64>,
    },
}

impl Fault {
    /// The path that is at fault, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Fault::Missing { path, .. }
            | Fault::Modified { path, .. }
            | Fault::Unreadable { path, .. }
            | Fault::Hidden { path }
            | Fault::Lost { path }
            | Fault::Drifted { path, .. }
            | Fault::Incomplete { path }
            | Fault::MetadataOnly { path }
            | Fault::NoHash { path, .. } => Some(path),
            Fault::ForeignName { .. } | Fault::Link { .. } | Fault::UnreadableLink { .. } => None,
        }
    }

    /// The name that is at fault: in the store directory, or in the hard-link farm.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        match self {
            Fault::ForeignName { name } | Fault::Link { name, .. } | Fault::UnreadableLink { name, .. } => {
                name
            }
            other => OsStr::new(other.path().map_or("", StorePath::base_name)),
        }
    }
}

impl Note {
    /// The name that is meant: in the store directory.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        match self {
            Note::Unregistered { path }
            | Note::Merged { path }
            | Note::CopiedUp { path }
            | Note::DiffersBelow { path, .. }
            | Note::Size { path, .. } => OsStr::new(path.base_name()),
            Note::ForeignName { name } | Note::Whiteout { name } => name,
        }
    }
}
