// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proof that a mount was found to be the expected one.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::report::Report;

/// The directories of a check, held open.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) mount_point: OwnedFd,
    pub(crate) upper: OwnedFd,
    pub(crate) lower: Vec<OwnedFd>,
}

/// An overlay mount whose layers were found to be the expected ones.
///
/// There is no way to make one but [`Report::into_proof`]. It holds the directories open that were compared,
/// so work done relative to its descriptors reaches exactly those, whatever is renamed or mounted meanwhile.
/// The descriptors are opened with `O_PATH`: good as the starting point of `openat`, `fstatat`, `renameat`
/// and for `fspick` with `FSPICK_EMPTY_PATH`; to list a directory, open `.` relative to it.
///
/// # Limitations
/// It says what was so when the check ran. While it lives the mount cannot be undone except lazily, and then
/// the descriptors still lead to the same overlay.
#[derive(Debug)]
pub struct VerifiedMount {
    handles: Handles,
    report: Report,
}

impl VerifiedMount {
    pub(crate) fn new(handles: Handles, report: Report) -> Self {
        Self { handles, report }
    }

    /// The merged directory.
    #[must_use]
    pub fn mount_point(&self) -> BorrowedFd<'_> {
        self.handles.mount_point.as_fd()
    }

    /// The upper layer directory.
    #[must_use]
    pub fn upper(&self) -> BorrowedFd<'_> {
        self.handles.upper.as_fd()
    }

    /// The lower directories, top-most first.
    pub fn lower(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.handles.lower.iter().map(|lower| lower.as_fd())
    }

    /// The merged directory as the caller named it, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.report.mount_point
    }

    /// What the check found, with its warnings.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}
