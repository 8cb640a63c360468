// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which OverlayFS mount covers a directory, and is it the expected one?
//!
//! [`check()`] compares a mount with what is [`Expected`] and gives a [`Report`]: it is as expected; or it
//! differs, and each [`Difference`] says what was expected, what was found and how to mend it; or it cannot
//! be told, and why. A report that is as expected turns into a [`VerifiedMount`], the proof that other code
//! can ask for. [`describe()`] tells what covers any directory.
//!
//! The decision rests on identity. The text of the mount table is the mounter's own: relative, unnormalised,
//! of another root directory or namespace, unchanged when a layer is renamed and another put in its place.
//! The objects seen through the mount, however, carry their layer's file handle (Linux 6.6 and newer), its
//! inode number (if all layers are on one file system) and its times. Text only speaks where the objects are
//! silent, as over an empty lower directory. So every way to mount is understood: option strings with any
//! escaping, `lowerdir+`, data-only layers, file descriptors, several lower directories, bind mounts of a
//! part, directories below the root of an overlay, user namespaces; and a mount that only looks right is not:
//! one that is covered by another, over a parent directory as well, or has a renamed or replaced layer.
//!
//! File handles are read from inotify's lines in `/proc`, since the system call for them has no safe binding
//! in the libraries used, and only where inode numbers and text have not settled the matter: that way costs
//! some milliseconds. Where it gives nothing (no read permission, a user namespace, an older kernel), inode
//! numbers and times remain.
//!
//! # What it deliberately does not do
//!
//! It makes, changes and undoes no mounts: it prints the commands that would ([`escape`] builds them). It
//! knows nothing of what the layers hold. It needs no privilege, and writes nothing unless the active
//! [`Probe`] is asked for. It does not look into fuse-overlayfs, whose layers only its daemon knows. It tells
//! the order of several lower directories from the text alone, and not at all where that cannot be followed.
//!
//! # Example
//!
//! ```
//! use std::path::Path;
//! use superpose_mount_check::{Expected, Outcome, check};
//!
//! let report = check(&Expected {
//!     mount_point: Path::new("/proc"),
//!     lower: vec!["/usr".into()],
//!     upper: Path::new("/tmp"),
//! })?;
//! assert!(matches!(report.outcome, Outcome::Different(_)));
//! // Expected an overlay, found proc; and the commands that mend it.
//! assert!(report.to_string().contains("mount -t overlay"));
//! # Ok::<(), superpose_mount_check::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod escape;
pub mod mountinfo;
pub mod options;

mod check;
mod covering;
mod describe;
mod error;
mod evidence;
mod gather;
mod handle;
mod mend;
mod object;
mod probe;
mod proof;
mod quote;
mod report;
mod text;
mod verdict;
mod warning;

pub use check::{Access, Expected, Options, Probe, Warnings, check, check_with};
pub use describe::{MountDescription, MountKind, describe};
pub use error::{Error, Result};
pub use proof::VerifiedMount;
pub use report::{Aspect, Certainty, Difference, Evidence, Layer, Mend, Outcome, Reason, Report, Text};
pub use warning::Warning;
