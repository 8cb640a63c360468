// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making paths known to the upper database.

use std::collections::HashSet;
use std::io::{self, Read};

use rustix::fs::{self, Mode, OFlags};
use superpose_metadata::{MetadataSource, PathInfo};
use superpose_store_path::StorePath;

use super::{RealDir, Store};
use crate::Result;

/// A derivation is read whole when it is registered; the largest known are a few MiB.
const MAX_DERIVATION: u64 = 256 << 20;

/// What a registration wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    /// Rows that were asked for.
    pub registered: usize,
    /// Rows that were copied from below, so that the references close.
    pub copied: usize,
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
        let missing = self.missing_above(paths)?;
        if missing.is_empty() {
            return Ok(Registered::default());
        }
        let copies = self.closure_below(&missing)?;
        self.write(&copies, &[])
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
        let copies = if self.below.is_some() {
            self.needed_from_below(infos)?
        } else {
            Vec::new()
        };
        self.write(&copies, infos)
    }

    /// What the lower store has to supply so that `infos` can be registered: the paths themselves where they are
    /// valid below, and the closures of all references.
    fn needed_from_below(&self, infos: &[PathInfo]) -> Result<Vec<PathInfo>> {
        let given: HashSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
        let mut wanted: Vec<StorePath> = infos.iter().flat_map(|info| &info.references).cloned().collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|path| !given.contains(path));
        let mut missing = self.missing_above(&wanted)?;
        let own: Vec<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
        let own = self.missing_above(&own)?;
        let valid = self.overlay()?.lower.are_valid(&own)?;
        missing.extend(
            own.into_iter()
                .zip(valid)
                .filter_map(|(path, valid)| valid.then_some(path)),
        );
        if missing.is_empty() {
            Ok(Vec::new())
        } else {
            self.closure_below(&missing)
        }
    }

    /// Those of `paths` that the upper database does not know, each once.
    fn missing_above(&self, paths: &[StorePath]) -> Result<Vec<StorePath>> {
        let known = self.database.are_valid(paths)?;
        let mut seen = HashSet::new();
        Ok(paths
            .iter()
            .zip(known)
            .filter(|(path, known)| !known && seen.insert((*path).clone()))
            .map(|(path, _)| path.clone())
            .collect())
    }

    /// The part of the closures of `paths` that the upper database lacks.
    fn closure_below(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>> {
        let Some(below) = &self.below else {
            return Err(superpose_metadata::Error::NotValid {
                path: self.dir().join(&paths[0]),
            }
            .into());
        };
        Ok(below
            .lower
            .closure_infos(paths, &mut |paths| self.database.are_valid(paths))?)
    }

    fn write(&mut self, copies: &[PathInfo], infos: &[PathInfo]) -> Result<Registered> {
        let real = &self.real;
        let mut transaction = self.database.begin()?;
        if let (Some(below), false) = (&self.below, copies.is_empty()) {
            transaction.copy_in(copies, &below.lower)?;
        }
        if !infos.is_empty() {
            transaction.register(infos, &mut |derivation| Ok(read_derivation(real, derivation)?))?;
        }
        transaction.commit()?;
        Ok(Registered {
            registered: infos.len(),
            copied: copies.len(),
        })
    }
}

/// The bytes of a derivation file, wherever its layer is; validity is not asked, as in Nix.
fn read_derivation(real: &RealDir, derivation: &StorePath) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(real.fd(), derivation.base_name(), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MAX_DERIVATION)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
