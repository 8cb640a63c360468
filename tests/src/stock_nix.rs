// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stock Nix that `cargo xtask stock-nix` fetched.

use std::path::{Path, PathBuf};

use crate::Invocation;

/// A Debian suite whose Nix the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockNix {
    /// Nix 2.34 at the time of writing.
    Sid,
    /// Nix 2.26.
    Trixie,
}

impl StockNix {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Sid, Self::Trixie];

    /// The name of the suite.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::Sid => "sid",
            Self::Trixie => "trixie",
        }
    }

    /// Prepares a run of one of its programs: `nix`, `nix-store`, `nix-daemon` or `nix-instantiate`.
    #[must_use]
    pub fn program(self, name: &str) -> Invocation {
        Invocation::new(self.dir().join("bin").join(name))
    }

    /// Prepares a run of `nix-store` on a store.
    #[must_use]
    pub fn nix_store(self, store: impl AsRef<std::ffi::OsStr>) -> Invocation {
        self.program("nix-store").arg("--store").arg(store)
    }

    /// Prepares a run of `nix` on a store.
    #[must_use]
    pub fn nix(self, store: impl AsRef<std::ffi::OsStr>) -> Invocation {
        self.program("nix").arg("--store").arg(store)
    }

    pub(crate) fn missing(self) -> Option<String> {
        let is_there = self.dir().join("stamp").is_file();
        (!is_there).then(|| {
            format!(
                "stock Nix of {} is not fetched: `cargo xtask stock-nix`",
                self.suite()
            )
        })
    }

    fn dir(self) -> PathBuf {
        target().join("stock-nix").join(self.suite())
    }
}

/// The directory of the work tree for everything that is not part of the project.
pub(crate) fn target() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).join("target")
}
