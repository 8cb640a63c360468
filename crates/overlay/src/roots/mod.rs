// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots of the garbage collection: what is kept, with everything that it refers to.
//!
//! Permanent roots are symbolic links below `gcroots` and `profiles` in the state directory; runtime roots are what
//! running processes have open; temporary roots ([`crate::temp_roots`]) are what they are about to use. Roots are
//! matched against the logical store directory. Whether an object of that name is valid is for the caller to ask.

use std::path::PathBuf;

use superpose_store_path::StorePath;

pub(crate) mod add;
pub(crate) mod lasting;
pub(crate) mod permanent;
pub(crate) mod runtime;

mod link;
mod prefixes;

/// An object that is kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// The link or file that keeps it. For an indirect root that is the user's own link; for what a process uses, a
    /// file below `/proc`.
    pub link: PathBuf,
    /// The object.
    pub path: StorePath,
}

/// What a scan does with links and files that keep nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Names them, and changes nothing: for dry runs, and for questions.
    Report,
    /// Names them and removes them, as Nix always does.
    Remove,
}
