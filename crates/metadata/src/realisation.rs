// SPDX-License-Identifier: MIT OR Apache-2.0
//! Realisations: which path an output of a content-addressed derivation turned out to be.
//!
//! Nix keeps them only with its experimental feature `ca-derivations`, and in two ways that ignore each
//! other: releases up to 2.34 under the hash modulo of the derivation, 2.35 and newer under its base name.
//! Keys are opaque here and never translated from one into the other.

use std::fmt;

use superpose_store_path::{Signature, StorePath};

/// Which releases of Nix see a realisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RealisationKind {
    /// Nix up to 2.34: table `Realisations`, keys such as `sha256:<hex>`. The output path must be valid.
    HashModulo,
    /// Nix 2.35 and newer: table `BuildTraceV3`, keys are base names of derivations.
    BuildTrace,
}

/// What a realisation is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealisationKey {
    /// Which releases of Nix see it.
    pub kind: RealisationKind,
    /// The derivation, in the form that the kind asks for.
    pub derivation: String,
    /// The name of the output.
    pub output: String,
}

impl fmt::Display for RealisationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nix 2.35 changed the separator together with the key.
        let separator = match self.kind {
            RealisationKind::HashModulo => '!',
            RealisationKind::BuildTrace => '^',
        };
        write!(f, "{}{separator}{}", self.derivation, self.output)
    }
}

/// Which path an output turned out to be.
///
/// # Limitations
/// The links between realisations that Nix up to 2.33 writes are left alone and not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realisation {
    /// What it is found by.
    pub key: RealisationKey,
    /// The path of the output.
    pub output_path: StorePath,
    /// Signatures: sorted, each once.
    pub signatures: Vec<Signature>,
}
