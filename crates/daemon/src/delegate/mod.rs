// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this server does not do by itself, done by a Nix that is installed: a `nix-daemon --stdio` on the same store, as a
//! child of the connection that needs it.

mod child;

use std::path::PathBuf;

pub(crate) use child::Delegated;

/// The program that builds and fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    program: PathBuf,
}

impl Delegate {
    /// Names the program: a `nix-daemon`, which is started with `--stdio --store URL`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }
}
