// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying objects, with what they need, from another store.

use std::collections::HashSet;
use std::os::fd::AsFd;

use superpose_metadata::{MetadataSource, PathInfo, Realisation};
use superpose_store_path::StorePath;

use super::{NewObject, ObjectSource, Outcome, SignatureCheck, Store};
use crate::view::StoreView;
use crate::{Error, Result};

/// What is copied besides the given paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recursion {
    /// All that they need.
    #[default]
    Closures,
    /// Nothing: what they refer to has to be valid already.
    PathsOnly,
}

/// How to copy.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CopyOptions {
    /// What is copied besides the given paths.
    pub recursion: Recursion,
    /// Whether signatures are asked for.
    pub signatures: SignatureCheck,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Paths that are valid now and were not before, dependencies before dependents.
    pub paths: Vec<StorePath>,
    /// Bytes of their archives.
    pub bytes: u64,
    /// Realisations of content-addressed derivations that came with them.
    pub realisations: usize,
    /// Realisations that were left, because this store has no place for their kind, knows others, or asks for
    /// signatures.
    pub realisations_left: usize,
}

impl Store {
    /// Copies valid paths from another store, and protects them until this one is closed. What is valid here already is
    /// not looked at.
    ///
    /// Objects go from directory to directory on all cores, without an archive in between; blocks are shared where the
    /// file system can. Signatures, derivers, content addresses and registration times come along.
    ///
    /// # Durability
    /// As [`Store::add_objects`].
    ///
    /// # Errors
    /// A path that is not valid there; as [`Store::add_objects`]: nothing of the batch is registered then, and the batches
    /// before it stay, each with all that it needs.
    pub fn copy_from(
        &mut self,
        source: &StoreView,
        paths: &[StorePath],
        options: &CopyOptions,
    ) -> Result<Copied> {
        if source.store_dir() != self.dir() {
            return Err(Error::ForeignSource {
                url: source.layout().reference().to_string(),
                expected: self.dir().clone(),
                found: source.store_dir().clone(),
            });
        }
        let infos = self.lacking(source, paths, options.recursion)?;
        if infos.is_empty() {
            return Ok(Copied::default());
        }
        // Before the first is copied: what cannot be had as a whole is not begun.
        for info in &infos {
            self.require_signature(info, options.signatures)?;
        }
        let directory = source.open_objects()?;
        let objects = infos
            .iter()
            .map(|info| NewObject {
                info: info.clone(),
                source: ObjectSource::Tree {
                    directory: directory.as_fd(),
                    name: info.path.base_name().into(),
                },
            })
            .collect();
        let imported = self.add_known(objects, options.signatures)?;
        let mut copied = Copied::default();
        for (info, imported) in infos.into_iter().zip(imported) {
            if imported.outcome == Outcome::Stored {
                copied.bytes = copied.bytes.saturating_add(info.nar_size);
                copied.paths.push(info.path);
            }
        }
        self.copy_realisations(source, options.signatures, &mut copied)?;
        Ok(copied)
    }

    /// What is known there of the paths that are not valid here, dependencies before dependents.
    ///
    /// A path is protected before it is asked about. What is valid here has all that it needs, and protects it.
    fn lacking(
        &self,
        source: &StoreView,
        paths: &[StorePath],
        recursion: Recursion,
    ) -> Result<Vec<PathInfo>> {
        let mut is_here = |paths: &[StorePath]| -> superpose_metadata::Result<Vec<bool>> {
            self.add_temp_roots(paths)
                .map_err(superpose_metadata::Error::caller)?;
            let layers = self.valid_in(paths).map_err(superpose_metadata::Error::caller)?;
            Ok(layers.into_iter().map(|layer| layer.is_some()).collect())
        };
        if recursion == Recursion::Closures {
            return Ok(source.closure_infos(paths, &mut is_here)?);
        }
        let valid = is_here(paths)?;
        let lacking = paths.iter().zip(valid).filter(|(_, valid)| !valid);
        let lacking: Vec<StorePath> = lacking.map(|(path, _)| path.clone()).collect();
        // Dependencies first all the same, or a batch could end between the two.
        let given: HashSet<&StorePath> = lacking.iter().collect();
        let mut others_left_out =
            |paths: &[StorePath]| Ok(paths.iter().map(|path| !given.contains(path)).collect());
        Ok(source.closure_infos(&lacking, &mut others_left_out)?)
    }

    /// Takes over which outputs of content-addressed derivations the copied paths are, as far as this store keeps such
    /// things. Their signatures are over something else than those of paths and are not checked here: where they are
    /// asked for, realisations are left.
    fn copy_realisations(
        &mut self,
        source: &StoreView,
        signatures: SignatureCheck,
        copied: &mut Copied,
    ) -> Result<()> {
        let found = source.realisations_of(&copied.paths)?;
        if found.is_empty() {
            return Ok(());
        }
        let all = found.len();
        let mut taken: Vec<Realisation> = Vec::new();
        if !self.requires_signatures(signatures) {
            let keys: Vec<_> = found.iter().map(|realisation| realisation.key.clone()).collect();
            let known = self.metadata().realisations(&keys)?;
            for (realisation, known) in found.into_iter().zip(known) {
                let conflicts = known.is_some_and(|known| known.output_path != realisation.output_path);
                if !conflicts && self.database.keeps_realisations(realisation.key.kind)? {
                    taken.push(realisation);
                }
            }
            self.database.register_realisations(&taken)?;
        }
        copied.realisations = taken.len();
        copied.realisations_left = all - taken.len();
        Ok(())
    }
}
