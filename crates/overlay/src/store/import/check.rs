// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing an object that arrives with what is known of it.

use superpose_metadata::PathInfo;
use superpose_nar::{Hashed, ObjectKind, Taps};
use superpose_store_path::{
    ContentAddress, ContentMethod, Hash, HashAlgorithm, HashEncoding, Hasher, ModuloGeneration, ModuloHasher,
    StoreDir,
};

use crate::{Error, Result};

/// What an archive has to be hashed for, besides its own hash.
pub(super) struct Check(Address);

enum Address {
    /// There is no content address, or the hash of the archive is all that it takes, or it is of a method that is not
    /// recomputed here (git) and nobody trusts.
    Archive,
    /// The archive, with another algorithm.
    OtherHash(Hasher),
    /// The bare contents of a file.
    Contents(Hasher),
    /// The archive without its own hash part, as each of the two generations of Nix does it: which of them made the object
    /// is not known.
    Modulo(Box<[ModuloHasher; 2]>),
}

impl Check {
    pub(super) fn of(info: &PathInfo) -> Self {
        let Some(ContentAddress { method, hash }) = info.content_address else {
            return Check(Address::Archive);
        };
        let algorithm = hash.algorithm();
        Check(match method {
            ContentMethod::Git => Address::Archive,
            ContentMethod::Flat | ContentMethod::Text => Address::Contents(Hasher::new(algorithm)),
            ContentMethod::Nar if info.references.contains(&info.path) => {
                let generations = [ModuloGeneration::Plain, ModuloGeneration::WithOffsets];
                let part = info.path.hash_part();
                Address::Modulo(Box::new(
                    generations.map(|generation| ModuloHasher::new(algorithm, part, generation)),
                ))
            }
            ContentMethod::Nar if algorithm == HashAlgorithm::Sha256 => Address::Archive,
            ContentMethod::Nar => Address::OtherHash(Hasher::new(algorithm)),
        })
    }

    /// What has to see the archive.
    pub(super) fn taps(&mut self) -> Taps<'_> {
        match &mut self.0 {
            Address::Archive => Taps::none(),
            Address::OtherHash(hasher) => Taps::none().archive(hasher),
            Address::Contents(hasher) => Taps::none().contents(hasher),
            Address::Modulo(hashers) => {
                let [plain, with_offsets] = hashers.as_mut();
                Taps::none().archive(plain).archive(with_offsets)
            }
        }
    }

    /// Compares.
    pub(super) fn finish(self, info: &PathInfo, store_dir: &StoreDir, found: &Hashed) -> Result<()> {
        let path = || store_dir.join(&info.path);
        if found.nar.hash != info.nar_hash {
            return Err(Error::HashMismatch {
                path: path(),
                what: "hash",
                expected: info.nar_hash.render(HashEncoding::Nix32),
                found: found.nar.hash.render(HashEncoding::Nix32),
            });
        }
        if info.nar_size != 0 && found.nar.size != info.nar_size {
            return Err(Error::SizeMismatch {
                path: path(),
                expected: info.nar_size,
                found: found.nar.size,
            });
        }
        let Some(expected) = info.content_address.filter(|ca| ca.method != ContentMethod::Git) else {
            return Ok(());
        };
        let is_file = found.tree.kind == ObjectKind::File;
        let hashes: Vec<Hash> = match self.0 {
            Address::Archive => vec![found.nar.hash],
            Address::OtherHash(hasher) => vec![hasher.finish()],
            // A directory has no bare contents.
            Address::Contents(hasher) if is_file => vec![hasher.finish()],
            Address::Contents(_) => Vec::new(),
            Address::Modulo(hashers) => hashers.map(ModuloHasher::finish).to_vec(),
        };
        if hashes.contains(&expected.hash) {
            return Ok(());
        }
        let found = hashes.first().map_or_else(
            || "no regular file".to_owned(),
            |hash| {
                ContentAddress {
                    hash: *hash,
                    ..expected
                }
                .to_string()
            },
        );
        Err(Error::HashMismatch {
            path: path(),
            what: "content address",
            expected: expected.to_string(),
            found,
        })
    }
}
