// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store URLs: which store, and the settings that are given with it.

mod parse;
mod percent;
mod warning;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use self::parse::{MAX_NESTING, MAX_URL_LEN};
pub use self::warning::UrlWarning;
use crate::lexical;

/// The setting that holds another store URL.
pub(crate) const LOWER_STORE: &str = "lower-store";

/// The setting that moves a whole store to another place.
pub(crate) const ROOT: &str = "root";

/// Which kind of store a URL stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// Whatever is there: a local store that can be written, or a daemon.
    Auto,
    /// A store on this file system.
    Local,
    /// A daemon's store.
    Daemon {
        /// The daemon's socket; the default one if not given.
        socket: Option<PathBuf>,
    },
    /// A writable layer over another store.
    LocalOverlay,
    /// A kind of store that is not known here.
    Other {
        /// What stands before the `:` of the URL.
        scheme: String,
        /// Authority and path, as they stand in the URL.
        path: String,
    },
}

/// A store URL: the kind of the store, and settings by name.
///
/// It displays as a URL of the same store: keys sorted, values percent-encoded, and the path of a local or
/// overlay store as its `root`, the only form that every version of Nix decodes alike. What was displayed
/// once and parsed displays the same again, byte for byte.
///
/// Paths are absolute, or the store is refused when its settings are read.
///
/// # Deviation
/// Nix shows every overlay store as `local-overlay://`. Here the URL is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReference {
    kind: StoreKind,
    params: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl StoreReference {
    fn new(kind: StoreKind) -> Self {
        Self {
            kind,
            params: BTreeMap::new(),
        }
    }

    /// Refers to whatever store is there.
    #[must_use]
    pub fn auto() -> Self {
        Self::new(StoreKind::Auto)
    }

    /// Refers to the local store below a root directory.
    #[must_use]
    pub fn local(root: impl AsRef<Path>) -> Self {
        Self::new(StoreKind::Local).with_path(ROOT, root)
    }

    /// Refers to the local store in the default place.
    #[must_use]
    pub fn default_local() -> Self {
        Self::new(StoreKind::Local)
    }

    /// Refers to the store of the daemon that listens on a socket; the default one if `None`.
    #[must_use]
    pub fn daemon(socket: Option<&Path>) -> Self {
        let canonical = |path: &Path| match lexical::canonical(path.as_os_str().as_bytes()) {
            Some(canonical) => PathBuf::from(OsString::from_vec(canonical)),
            None => path.to_path_buf(),
        };
        Self::new(StoreKind::Daemon {
            socket: socket.map(canonical),
        })
    }

    /// Refers to the overlay store below a root directory, which writes to `upper_layer` and lies over
    /// `lower`.
    #[must_use]
    pub fn overlay(lower: &Self, upper_layer: impl AsRef<Path>, root: impl AsRef<Path>) -> Self {
        Self::new(StoreKind::LocalOverlay)
            .with_param(LOWER_STORE, lower.to_string())
            .with_path("upper-layer", upper_layer)
            .with_path(ROOT, root)
    }

    /// Gives a setting a value, in place of the one it may have.
    #[must_use]
    pub fn with_param(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.params.insert(key.as_ref().to_vec(), value.as_ref().to_vec());
        self
    }

    /// Gives a setting a path as its value, in place of the one it may have.
    #[must_use]
    pub fn with_path(self, key: impl AsRef<[u8]>, path: impl AsRef<Path>) -> Self {
        self.with_param(key, path.as_ref().as_os_str().as_bytes())
    }

    /// Returns the kind of the store.
    #[must_use]
    pub fn kind(&self) -> &StoreKind {
        &self.kind
    }

    /// Returns the settings, decoded, by name.
    #[must_use]
    pub fn params(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.params
    }

    /// Returns the value of one setting, decoded.
    #[must_use]
    pub fn param(&self, key: &str) -> Option<&[u8]> {
        self.params.get(key.as_bytes()).map(Vec::as_slice)
    }
}

impl fmt::Display for StoreReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, self.params.is_empty()) {
            (StoreKind::Auto, _) => f.write_str("auto")?,
            (StoreKind::Local, true) => f.write_str("local")?,
            (StoreKind::Local, false) => f.write_str("local://")?,
            (StoreKind::Daemon { socket: None }, true) => f.write_str("daemon")?,
            (StoreKind::Daemon { socket: None }, false) => f.write_str("unix://")?,
            (StoreKind::Daemon { socket: Some(path) }, _) => {
                write!(f, "unix://{}", percent::encode_path(path.as_os_str().as_bytes()))?;
            }
            (StoreKind::LocalOverlay, _) => f.write_str("local-overlay://")?,
            (StoreKind::Other { scheme, path }, _) => write!(f, "{scheme}://{path}")?,
        }
        for (place, (key, value)) in self.params.iter().enumerate() {
            let separator = if place == 0 { '?' } else { '&' };
            write!(
                f,
                "{separator}{}={}",
                percent::encode_query(key),
                percent::encode_query(value)
            )?;
        }
        Ok(())
    }
}
