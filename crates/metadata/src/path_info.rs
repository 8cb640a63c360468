// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of one valid path.

use superpose_store_path::{ContentAddress, Hash, Signature, StorePath};

/// What is known of one valid path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The object.
    pub path: StorePath,
    /// Hash of the object's archive.
    pub nar_hash: Hash,
    /// Length of the object's archive in bytes; 0 if it is not known.
    pub nar_size: u64,
    /// The objects it refers to: sorted, each once, possibly itself.
    pub references: Vec<StorePath>,
    /// The derivation that it was built from, which need not be valid.
    pub deriver: Option<StorePath>,
    /// When it became valid, in Unix seconds. To register 0 means now.
    pub registration_time: i64,
    /// Whether it was built here, so that it is trusted without a signature.
    pub ultimate: bool,
    /// Signatures: sorted, each once.
    pub signatures: Vec<Signature>,
    /// How the path follows from the content, if it does.
    pub content_address: Option<ContentAddress>,
}

/// Hash and length of the archive of a valid path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveInfo {
    /// Hash of the archive.
    pub hash: Hash,
    /// Length of the archive in bytes; 0 if it is not known.
    pub size: u64,
}

impl From<&PathInfo> for ArchiveInfo {
    fn from(info: &PathInfo) -> Self {
        ArchiveInfo {
            hash: info.nar_hash,
            size: info.nar_size,
        }
    }
}

impl PathInfo {
    /// Makes the information of an object of which nothing but its archive's hash and length is known.
    #[must_use]
    pub fn new(path: StorePath, nar_hash: Hash, nar_size: u64) -> Self {
        Self {
            path,
            nar_hash,
            nar_size,
            references: Vec::new(),
            deriver: None,
            registration_time: 0,
            ultimate: false,
            signatures: Vec::new(),
            content_address: None,
        }
    }

    /// About how many bytes it takes to hold its references and signatures: all else is of about the same size for every path.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        /// What each of them costs beside its text: its length, its padding, its place in a set.
        const EACH: u64 = 48;
        let references = self.references.iter().map(|path| path.base_name().len());
        let signatures = self.signatures.iter().map(|signature| signature.as_str().len());
        let lengths = references.chain(signatures);
        lengths.map(|length| length as u64 + EACH).sum()
    }
}
