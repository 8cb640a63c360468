// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of which everything is known before they are added.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use superpose_store_path::{
    ContentAddress, ContentMethod, Hash, HashAlgorithm, HashEncoding, Name, References, StoreDir, hash_bytes,
};

use crate::Seeded;
use crate::stress::Content;

/// The size of a large file: many blocks, but a moment's work.
const LARGE: usize = 1 << 20;

/// An object as it has to be in the store.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its store path.
    pub path: String,
    /// Other store paths that it refers to, sorted.
    pub references: Vec<String>,
    /// The hash of its archive, as the database has it.
    pub hash: String,
    /// How long its archive is.
    pub size: u64,
    pub(super) name: String,
    pub(super) content: Content,
}

/// What an object is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A small file or tree; trees share files with each other.
    Small,
    /// A file of a mebibyte.
    Large,
}

impl Object {
    /// The object of some number; its content follows from the number and the seed. `sources` is a directory in which it may
    /// be written to be hashed.
    pub(super) fn new(
        seed: u64,
        number: u64,
        kind: Kind,
        references: Vec<String>,
        sources: &Path,
    ) -> Result<Self> {
        let mut seeded = Seeded::new(seed.wrapping_mul(31).wrapping_add(number));
        let content = match kind {
            Kind::Small => Content::some(&mut seeded, number),
            Kind::Large => {
                let mut bytes = vec![0; LARGE];
                seeded.fill(&mut bytes);
                Content::File(bytes)
            }
        };
        let mut object = Self {
            path: String::new(),
            references,
            hash: String::new(),
            size: 0,
            name: format!("object-{number}"),
            content,
        };
        object.references.sort();
        object.references.dedup();
        let archive = object.archive(sources)?;
        let hash = hash_bytes(HashAlgorithm::Sha256, &archive);
        object.path = object.path_of(hash)?;
        object.hash = hash.render(HashEncoding::Base16);
        object.size = archive.len() as u64;
        Ok(object)
    }

    fn path_of(&self, hash: Hash) -> Result<String> {
        let dir = StoreDir::default();
        let mut references = References::default();
        for reference in &self.references {
            references.others.insert(dir.parse_path(reference.as_bytes())?);
        }
        let address = ContentAddress {
            method: ContentMethod::Nar,
            hash,
        };
        let path = dir.content_path(&Name::new(self.name.as_bytes())?, &address, &references)?;
        Ok(dir.join(&path))
    }

    /// Writes it below `sources`, under its name, and says where.
    pub(super) fn source(&self, sources: &Path) -> Result<PathBuf> {
        let source = sources.join(&self.name);
        if fs::symlink_metadata(&source).is_err() {
            self.content.write(&source)?;
        }
        Ok(source)
    }

    /// Its archive.
    pub(super) fn archive(&self, sources: &Path) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        superpose_nar::dump_path(self.source(sources)?, &mut archive)?;
        Ok(archive)
    }
}
