// SPDX-License-Identifier: MIT OR Apache-2.0
//! What decides the shape of everything after the handshake.

use superpose_store_path::StoreDir;

use crate::feature::{Feature, Features};
use crate::version::Version;

/// What two sides agreed on, and the store directory that their paths are in. Every shape after the handshake follows
/// from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The store directory; paths outside it are refused.
    pub store_dir: StoreDir,
    /// The lower one of both sides' versions.
    pub version: Version,
    /// What both sides offered.
    pub features: Features,
}

impl Dialect {
    /// Whether something that came with a minor version of 1 is there.
    pub(crate) const fn since(&self, minor: u8) -> bool {
        self.version.has(minor)
    }

    /// Whether a feature was agreed on.
    pub(crate) const fn has(&self, feature: Feature) -> bool {
        self.features.contains(feature)
    }
}

impl Default for Dialect {
    /// Returns that of all current releases: `/nix/store`, 1.38, no features.
    fn default() -> Self {
        Self {
            store_dir: StoreDir::default(),
            version: Version::CURRENT,
            features: Features::NONE,
        }
    }
}
