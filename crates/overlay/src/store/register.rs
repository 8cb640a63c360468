// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making paths known to the upper database.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use rustix::fs::{self, Mode, OFlags};
use superpose_metadata::{Database, MetadataSource, PathInfo, Realisation};
use superpose_store_path::{MAX_DERIVATION_LEN, Signature, StorePath};

use super::{Durability, RealDir, Store};
use crate::view::StoreView;
use crate::{Error, Result};

/// What a registration wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    /// Rows that were asked for.
    pub registered: usize,
    /// Rows that were copied from below, so that the references close.
    pub copied: usize,
}

/// Signatures that are to be added, by the paths that they are of.
#[derive(Debug, Default)]
struct Signing {
    by_path: BTreeMap<StorePath, Vec<Signature>>,
    /// How many a path may have then.
    limit: Option<usize>,
}

impl Store {
    /// Makes the closures of valid paths known to the upper database, in one transaction. Writes nothing when they
    /// are known there.
    ///
    /// # Errors
    /// [`superpose_metadata::Error::NotValid`] for a path that is valid in no layer; nothing is written then.
    ///
    /// # Deviation
    /// Nix does this as a side effect of asking whether a path is valid, in two transactions for each path.
    pub fn ensure(&mut self, paths: &[StorePath]) -> Result<Registered> {
        if missing_above(&self.database, paths)?.is_empty() {
            return Ok(Registered::default());
        }
        self.add_temp_roots(paths)?;
        self.write(paths, &[], &Signing::default())
    }

    /// Records objects as valid, in one transaction for all of them and for what they need from below.
    ///
    /// A path that is valid below already keeps the registration time and the deriver that are known there; its
    /// signatures, hash and content address become those given, as Nix does it.
    ///
    /// # Errors
    /// A reference that is valid in no layer; a derivation whose outputs are not those that follow from it; a cycle.
    /// Nothing is written then.
    ///
    /// # Deviation
    /// Nix fails when a reference is valid only below and was not asked for before.
    pub fn register(&mut self, infos: &[PathInfo]) -> Result<Registered> {
        let references: Vec<StorePath> = infos.iter().flat_map(|info| &info.references).cloned().collect();
        self.add_temp_roots(&references)?;
        self.register_protected(infos)
    }

    /// As [`Store::register`]; the caller has protected the references (which must not be done with a path lock held).
    pub(super) fn register_protected(&mut self, infos: &[PathInfo]) -> Result<Registered> {
        self.write(&[], infos, &Signing::default())
    }

    /// Adds signatures to a valid path, whose closure becomes known to the upper database with that. They are not looked
    /// at: whose signatures count is asked where it matters.
    ///
    /// # Errors
    /// A path that is valid in no layer; [`Error::TooManySignatures`] if it would have more than `limit` then, unless none of them
    /// is new. Nothing is written then.
    pub fn add_signatures(&mut self, path: &StorePath, signatures: &[Signature], limit: usize) -> Result<()> {
        self.add_temp_roots(std::slice::from_ref(path))?;
        self.write_signatures(&Signing {
            by_path: BTreeMap::from([(path.clone(), signatures.to_vec())]),
            limit: Some(limit),
        })
    }

    /// Records which outputs of content-addressed derivations paths turned out to be, all or none of them. The paths become
    /// known to the upper database. Signatures are not looked at.
    ///
    /// # Errors
    /// A path that is valid in no layer; another path that is known for the same output; a store that keeps no realisations
    /// of the kind, as it was never used with content-addressed derivations.
    pub fn register_realisations(&mut self, realisations: &[Realisation]) -> Result<()> {
        for realisation in realisations {
            if !self.database.keeps_realisations(realisation.key.kind)? {
                return Err(Error::NoRealisations {
                    key: realisation.key.to_string(),
                    url: self.layout.reference().to_string(),
                });
            }
        }
        let paths: Vec<StorePath> = realisations
            .iter()
            .map(|realisation| realisation.output_path.clone())
            .collect();
        self.ensure(&paths)?;
        Ok(self.database.register_realisations(realisations)?)
    }

    /// Adds signatures to valid and protected paths.
    pub(super) fn sign_protected(&mut self, signed: &[(StorePath, Signature)]) -> Result<()> {
        let mut signing = Signing::default();
        for (path, signature) in signed {
            let of_path = signing.by_path.entry(path.clone()).or_default();
            of_path.push(signature.clone());
        }
        self.write_signatures(&signing)
    }

    fn write_signatures(&mut self, signing: &Signing) -> Result<()> {
        let paths: Vec<StorePath> = signing.by_path.keys().cloned().collect();
        self.write(&paths, &[], signing)?;
        if self.options.durability == Durability::Synced {
            self.database.sync()?;
        }
        Ok(())
    }

    /// Writes rows, in one transaction: what is missing above is asked in it too, or a collector could take copied rows
    /// away between the question and the answer.
    fn write(&mut self, ensured: &[StorePath], infos: &[PathInfo], signing: &Signing) -> Result<Registered> {
        let real = &self.real;
        let mut transaction = self.database.begin()?;
        let needed = match &self.below {
            Some(below) => needed_from_below(transaction.database(), &below.lower, ensured, infos)?,
            None => missing_above(transaction.database(), ensured)?,
        };
        let mut copied = 0;
        if !needed.is_empty() {
            let Some(below) = &self.below else {
                let path = transaction.database().store_dir().join(&needed[0]);
                return Err(superpose_metadata::Error::NotValid { path }.into());
            };
            let above = transaction.database();
            let copies = below
                .lower
                .closure_infos(&needed, &mut |paths| above.are_valid(paths))?;
            transaction.copy_in(&copies, &below.lower)?;
            copied = copies.len();
        }
        if !infos.is_empty() {
            transaction.register(infos, &mut |derivation| Ok(read_derivation(real, derivation)?))?;
        }
        for (path, signatures) in &signing.by_path {
            if let Some(limit) = signing.limit {
                // In the transaction, or two who add some at once would go beyond it together.
                require_room(transaction.database(), path, signatures, limit)?;
            }
            // All of a path at once: each time its row is read and written whole.
            transaction.add_signatures(path, signatures)?;
        }
        transaction.commit()?;
        Ok(Registered {
            registered: infos.len(),
            copied,
        })
    }
}

/// What the lower store has to supply: what is to be ensured, the paths of `infos` themselves where they are valid
/// below, and their references.
fn needed_from_below(
    above: &Database,
    lower: &StoreView,
    ensured: &[StorePath],
    infos: &[PathInfo],
) -> Result<Vec<StorePath>> {
    let given: HashSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
    let references = infos
        .iter()
        .flat_map(|info| &info.references)
        .filter(|path| !given.contains(path));
    let wanted: Vec<StorePath> = ensured.iter().chain(references).cloned().collect();
    let mut missing = missing_above(above, &wanted)?;
    let own: Vec<StorePath> = given.into_iter().cloned().collect();
    let own = missing_above(above, &own)?;
    let valid = lower.are_valid(&own)?;
    missing.extend(
        own.into_iter()
            .zip(valid)
            .filter_map(|(path, valid)| valid.then_some(path)),
    );
    Ok(missing)
}

/// Refuses new signatures of a path that would have more than `limit` with them.
fn require_room(above: &Database, path: &StorePath, signatures: &[Signature], limit: usize) -> Result<()> {
    let info = above.path_infos(std::slice::from_ref(path))?.pop().flatten();
    let known = info.map(|info| info.signatures).unwrap_or_default();
    let all: HashSet<&Signature> = known.iter().chain(signatures).collect();
    let found = all.len();
    if found <= limit.max(known.len()) {
        return Ok(());
    }
    Err(Error::TooManySignatures {
        path: above.store_dir().join(path),
        limit,
        found,
    })
}

/// Those of `paths` that the upper database does not know, each once.
fn missing_above(above: &Database, paths: &[StorePath]) -> Result<Vec<StorePath>> {
    let known = above.are_valid(paths)?;
    let mut seen = HashSet::new();
    Ok(paths
        .iter()
        .zip(known)
        .filter(|(path, known)| !known && seen.insert((*path).clone()))
        .map(|(path, _)| path.clone())
        .collect())
}

/// The bytes of a derivation file, wherever its layer is; validity is not asked, as in Nix. Of what is longer than any
/// derivation so much is read that it is refused as that.
fn read_derivation(real: &RealDir, derivation: &StorePath) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(real.fd(), derivation.base_name(), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MAX_DERIVATION_LEN as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
