// SPDX-License-Identifier: MIT OR Apache-2.0
//! Derivations, as far as a store needs them: their text, their outputs, and whether the two fit.

mod check;
mod modulo;
mod parse;
mod render;

use std::collections::{BTreeMap, BTreeSet};

pub use self::modulo::{ModuloMemo, ReadDerivation};
use crate::content_address::{ContentAddress, ContentMethod};
use crate::content_path::{DEFAULT_OUTPUT, References};
use crate::error::{Error, Result};
use crate::hash::{HashAlgorithm, hash_bytes};
use crate::name::Name;
use crate::store_dir::StoreDir;
use crate::store_path::{DERIVATION_SUFFIX, StorePath};

/// Largest text of a derivation that is looked at, in bytes. Real ones are kilobytes, rarely
/// a few megabytes.
pub const MAX_DERIVATION_LEN: usize = 32 << 20;

/// A recipe for one or more store objects.
///
/// Everything but names and paths is bytes, as in Nix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The name, without `.drv`. It is not in the text: the file's name gives it.
    pub name: Name,
    /// The outputs by their names.
    pub outputs: BTreeMap<String, DerivationOutput>,
    /// The derivations whose outputs are needed, and which outputs of each.
    pub input_drvs: BTreeMap<StorePath, BTreeSet<String>>,
    /// The other objects that are needed.
    pub input_srcs: BTreeSet<StorePath>,
    /// The platform it is built on, such as `x86_64-linux`.
    pub platform: Vec<u8>,
    /// The program that builds it.
    pub builder: Vec<u8>,
    /// The program's arguments.
    pub args: Vec<Vec<u8>>,
    /// The program's environment.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One output of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DerivationOutput {
    /// The path follows from the derivation.
    InputAddressed {
        /// That path.
        path: StorePath,
    },
    /// The content is known beforehand, and with it the path.
    Fixed {
        /// The path, as written in the derivation.
        path: StorePath,
        /// What the path must follow from.
        ca: ContentAddress,
    },
    /// The path will follow from the content, once that is known.
    Floating {
        /// How the content will be hashed.
        method: ContentMethod,
        /// With which algorithm.
        algorithm: HashAlgorithm,
    },
    /// The path will follow from the derivation once the paths of its inputs are known.
    Deferred,
    /// As floating, but never the same twice.
    Impure {
        /// How the content will be hashed.
        method: ContentMethod,
        /// With which algorithm.
        algorithm: HashAlgorithm,
    },
}

impl DerivationOutput {
    /// Returns the path, if it is known before the derivation is built.
    #[must_use]
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Self::InputAddressed { path } | Self::Fixed { path, .. } => Some(path),
            Self::Floating { .. } | Self::Deferred | Self::Impure { .. } => None,
        }
    }
}

/// What all outputs of a derivation have in common; kinds do not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DerivationKind {
    /// Every output is input-addressed.
    InputAddressed,
    /// The only output is fixed, and its name is `out`.
    Fixed,
    /// Every output is floating, with the same algorithm.
    Floating,
    /// Every output is deferred.
    Deferred,
    /// Every output is impure.
    Impure,
}

impl Derivation {
    /// Returns the outputs whose paths are known before the derivation is built: input-addressed and fixed
    /// ones, by name.
    #[must_use]
    pub fn static_outputs(&self) -> Vec<(String, StorePath)> {
        let known =
            |(name, output): (&String, &DerivationOutput)| Some((name.clone(), output.path()?.clone()));
        self.outputs.iter().filter_map(known).collect()
    }

    /// Returns what the derivation's own object refers to: all input derivations and all input sources.
    #[must_use]
    pub fn references(&self) -> BTreeSet<StorePath> {
        self.input_drvs.keys().chain(&self.input_srcs).cloned().collect()
    }

    /// Computes the path that the derivation's text is stored under.
    ///
    /// # Errors
    /// If the name becomes too long with `.drv`.
    pub fn path(&self, dir: &StoreDir) -> Result<StorePath> {
        let name = Name::new(format!("{}{DERIVATION_SUFFIX}", self.name).as_bytes())?;
        let hash = hash_bytes(HashAlgorithm::Sha256, &self.render(dir));
        let ca = ContentAddress {
            method: ContentMethod::Text,
            hash,
        };
        dir.content_path(
            &name,
            &ca,
            &References {
                others: self.references(),
                itself: false,
            },
        )
    }

    /// Returns the kind of the outputs.
    ///
    /// # Errors
    /// If there is no output, if kinds are mixed, if there is more than one fixed output or it is not `out`,
    /// or if floating outputs have different algorithms.
    pub fn kind(&self) -> Result<DerivationKind> {
        let refuse = |found: &str| Error::DerivationInconsistent {
            drv: self.name.to_string(),
            subject: "the set of outputs".to_owned(),
            expected: "outputs of one kind and one algorithm, or a single fixed one named `out`".to_owned(),
            found: found.to_owned(),
        };
        let mut outputs = self.outputs.iter().map(|(name, output)| {
            Ok(match output {
                DerivationOutput::InputAddressed { .. } => (DerivationKind::InputAddressed, None),
                DerivationOutput::Fixed { .. } if name == DEFAULT_OUTPUT => (DerivationKind::Fixed, None),
                DerivationOutput::Fixed { .. } => return Err(refuse("a fixed output with another name")),
                DerivationOutput::Floating { algorithm, .. } => (DerivationKind::Floating, Some(*algorithm)),
                DerivationOutput::Deferred => (DerivationKind::Deferred, None),
                DerivationOutput::Impure { .. } => (DerivationKind::Impure, None),
            })
        });
        let first = outputs.next().ok_or_else(|| refuse("none"))??;
        for other in outputs {
            if other? != first {
                return Err(refuse("outputs that differ"));
            }
        }
        Ok(first.0)
    }
}
