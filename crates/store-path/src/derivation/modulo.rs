// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hash of a derivation modulo how its fixed outputs are made.
//!
//! The hash of a derivation depends on those of its input derivations, theirs on their inputs, and so on.
//! That graph is walked with a stack of its own, since its depth is in the hands of whoever wrote the files.

use std::collections::HashMap;

use super::render::{Inputs, OutputPaths};
use super::{Derivation, DerivationKind, DerivationOutput, MAX_DERIVATION_LEN};
use crate::content_address::ContentAddress;
use crate::content_path::{DEFAULT_OUTPUT, References};
use crate::error::{Error, Result};
use crate::hash::{Hash, HashAlgorithm, HashEncoding, hash_bytes};
use crate::store_dir::StoreDir;
use crate::store_path::StorePath;

/// Most derivations below one another. The deepest chains of Nixpkgs are some hundreds long.
const MAX_DEPTH: usize = 10_000;

/// Most derivation text that may be waiting for the hashes of inputs at a time, in bytes.
const MAX_WAITING: usize = 2 * MAX_DERIVATION_LEN;

/// Most derivations that a memo holds: some hundreds of megabytes. The closure of all of Nixpkgs is a tenth
/// of it.
const MAX_KNOWN: usize = 2_000_000;

/// Supplies the text of an input derivation, wherever it lies and whether or not it is valid.
pub type ReadDerivation<'a> =
    dyn FnMut(&StorePath) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Remembers what derivations count as when they are inputs, so that each is read and hashed once.
///
/// Good for one store directory, and for as long as the files do not change.
#[derive(Debug, Default)]
pub struct ModuloMemo {
    known: HashMap<StorePath, Standing>,
}

/// What a derivation counts as when it is an input.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// The hash of its text.
    InputAddressed(Hash),
    /// The hash of what its only output holds.
    Fixed(Hash),
    /// Its outputs are not known, and so are not those of whoever needs it.
    Unknown,
    /// It waits for its own inputs. Seen from one of them, it is part of a cycle.
    Waiting,
}

/// A derivation that waits for its inputs.
struct Frame {
    path: StorePath,
    derivation: Derivation,
    unseen: Vec<StorePath>,
    text_len: usize,
}

impl ModuloMemo {
    /// Makes an empty memo.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many derivations are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Tells whether no derivation is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Finds out about `path` and everything below it.
    fn learn(&mut self, path: &StorePath, dir: &StoreDir, read: &mut ReadDerivation<'_>) -> Result<()> {
        let mut stack = Vec::new();
        let mut waiting = 0;
        let result = self.walk(path, dir, read, &mut stack, &mut waiting);
        if result.is_err() {
            for frame in &stack {
                self.known.remove(&frame.path);
            }
        }
        result
    }

    fn walk(
        &mut self,
        path: &StorePath,
        dir: &StoreDir,
        read: &mut ReadDerivation<'_>,
        stack: &mut Vec<Frame>,
        waiting: &mut usize,
    ) -> Result<()> {
        self.enter(path.clone(), dir, read, stack, waiting)?;
        while let Some(frame) = stack.last_mut() {
            if let Some(next) = frame.unseen.pop() {
                self.enter(next, dir, read, stack, waiting)?;
            } else if let Some(frame) = stack.pop() {
                *waiting -= frame.text_len;
                let hash = self.hash(&frame.derivation, dir, OutputPaths::Written);
                let standing = hash.map(|hash| hash.map_or(Standing::Unknown, Standing::InputAddressed));
                // Whether or not it worked, it no longer waits.
                self.known.remove(&frame.path);
                let standing = standing.map_err(|source| input_error(&frame.path, source))?;
                self.known.insert(frame.path, standing);
            }
        }
        Ok(())
    }

    /// Reads a derivation that is not known yet. What it counts as is known at once, or it waits for its
    /// inputs.
    fn enter(
        &mut self,
        path: StorePath,
        dir: &StoreDir,
        read: &mut ReadDerivation<'_>,
        stack: &mut Vec<Frame>,
        waiting: &mut usize,
    ) -> Result<()> {
        match self.known.get(&path) {
            None => {}
            Some(Standing::Waiting) => {
                return Err(Error::DerivationInconsistent {
                    drv: path.to_string(),
                    subject: "its closure of input derivations".to_owned(),
                    expected: "free of cycles".to_owned(),
                    found: "the derivation itself".to_owned(),
                });
            }
            Some(_) => return Ok(()),
        }
        if self.known.len() >= MAX_KNOWN {
            let subject = "the closure of input derivations".to_owned();
            return Err(Error::TooLarge {
                subject,
                limit: MAX_KNOWN,
                unit: "derivations",
            });
        }
        let text = read(&path).map_err(|source| Error::ReadDerivation {
            path: path.clone(),
            source: source.into(),
        })?;
        let derivation =
            Derivation::parse_object(&text, dir, &path).map_err(|source| input_error(&path, source))?;
        let standing = derivation
            .kind()
            .and_then(|kind| first_standing(&derivation, kind, dir))
            .map_err(|source| input_error(&path, source))?;
        if let Standing::Waiting = standing {
            *waiting += text.len();
            let limits = [
                (stack.len(), MAX_DEPTH, "derivations"),
                (*waiting, MAX_WAITING, "bytes"),
            ];
            if let Some(&(_, limit, unit)) = limits.iter().find(|(value, limit, _)| value >= limit) {
                let subject = "a chain of input derivations".to_owned();
                return Err(Error::TooLarge { subject, limit, unit });
            }
            let unseen = derivation.input_drvs.keys().rev().cloned().collect();
            stack.push(Frame {
                path: path.clone(),
                derivation,
                unseen,
                text_len: text.len(),
            });
        }
        self.known.insert(path, standing);
        Ok(())
    }

    /// Hashes a derivation whose inputs are all known; `None` if one of them has no known outputs.
    fn hash(&self, derivation: &Derivation, dir: &StoreDir, outputs: OutputPaths) -> Result<Option<Hash>> {
        let mut inputs = Inputs::new();
        for (path, names) in &derivation.input_drvs {
            let (hash, fixed) = match self.known.get(path) {
                Some(Standing::InputAddressed(hash)) => (hash, false),
                Some(Standing::Fixed(hash)) => (hash, true),
                Some(Standing::Unknown | Standing::Waiting) | None => return Ok(None),
            };
            if names.is_empty() {
                // Nix hashes the pairs of input and output; without an output there is no pair.
                continue;
            }
            let used = inputs.entry(hash.render_bare(HashEncoding::Base16)).or_default();
            if !fixed {
                used.extend(names.iter().cloned());
                continue;
            }
            if let Some(other) = names.iter().find(|name| *name != DEFAULT_OUTPUT) {
                return Err(Error::DerivationInconsistent {
                    drv: derivation.name.to_string(),
                    subject: format!("the outputs used of `{path}`"),
                    expected: "`out` alone, since that output is fixed".to_owned(),
                    found: other.clone(),
                });
            }
            used.insert(DEFAULT_OUTPUT.to_owned());
        }
        let text = derivation.render_for_hash(dir, outputs, &inputs);
        Ok(Some(hash_bytes(HashAlgorithm::Sha256, &text)))
    }

    /// Remembers what `derivation`, which is stored under `path` and was checked, counts as itself.
    pub(super) fn remember(
        &mut self,
        path: &StorePath,
        derivation: &Derivation,
        dir: &StoreDir,
    ) -> Result<()> {
        if self.known.len() >= MAX_KNOWN || self.known.contains_key(path) {
            return Ok(());
        }
        let mut standing = first_standing(derivation, derivation.kind()?, dir)?;
        if let Standing::Waiting = standing {
            let hash = self.hash(derivation, dir, OutputPaths::Written)?;
            standing = hash.map_or(Standing::Unknown, Standing::InputAddressed);
        }
        self.known.insert(path.clone(), standing);
        Ok(())
    }
}

impl Derivation {
    /// Computes the hash that the paths of input-addressed outputs follow from: of the text without output
    /// paths, each input derivation replaced by its own hash, and fixed ones by what they yield.
    ///
    /// `None` if an input's outputs are not known beforehand; then those of this derivation are not either.
    /// Input derivations are read once each, fixed ones without their inputs.
    ///
    /// # Errors
    /// If an input cannot be read or parsed, or the graph of inputs has a cycle or exceeds a bound.
    pub fn hash_modulo(
        &self,
        dir: &StoreDir,
        memo: &mut ModuloMemo,
        read: &mut ReadDerivation<'_>,
    ) -> Result<Option<Hash>> {
        for path in self.input_drvs.keys() {
            memo.learn(path, dir, read)?;
        }
        memo.hash(self, dir, OutputPaths::Masked)
    }
}

/// What a derivation counts as, as far as that can be told without its inputs.
fn first_standing(derivation: &Derivation, kind: DerivationKind, dir: &StoreDir) -> Result<Standing> {
    Ok(match kind {
        DerivationKind::InputAddressed => Standing::Waiting,
        DerivationKind::Fixed => match derivation.outputs.get(DEFAULT_OUTPUT) {
            Some(DerivationOutput::Fixed { path, ca }) => {
                Standing::Fixed(fixed_hash(derivation, path, ca, dir)?)
            }
            _ => Standing::Unknown,
        },
        DerivationKind::Floating | DerivationKind::Deferred | DerivationKind::Impure => Standing::Unknown,
    })
}

/// What a fixed derivation counts as: the hash of what its output holds and where.
fn fixed_hash(
    derivation: &Derivation,
    stated: &StorePath,
    ca: &ContentAddress,
    dir: &StoreDir,
) -> Result<Hash> {
    let path = dir.content_path(&derivation.name, ca, &References::default())?;
    if path != *stated {
        return Err(Error::DerivationInconsistent {
            drv: derivation.name.to_string(),
            subject: format!("the path of output `{DEFAULT_OUTPUT}`"),
            expected: format!("`{path}`"),
            found: stated.to_string(),
        });
    }
    let digest = ca.hash.render(HashEncoding::Base16);
    let text = format!("fixed:out:{}{digest}:{}", ca.method.prefix(), dir.display(&path));
    Ok(hash_bytes(HashAlgorithm::Sha256, text.as_bytes()))
}

fn input_error(path: &StorePath, source: Error) -> Error {
    Error::InputDerivation {
        path: path.clone(),
        source: Box::new(source),
    }
}
