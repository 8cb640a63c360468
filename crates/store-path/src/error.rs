// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error type of the crate.

use std::sync::Arc;

use crate::{ContentMethod, HashAlgorithm, Name, StoreDir, StorePath};

/// The result of this crate's fallible operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a text is not what it was expected to be, or a value cannot be what was asked for.
///
/// Texts that come from outside are quoted in escaped and shortened form, so that an error can be printed
/// and kept whatever the input was.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not usable as a logical store directory.
    #[error("store directory `{found}` is not usable: expected {expected}")]
    StoreDir {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A text is not the name part of a store path.
    #[error("store object name `{found}` is not valid: expected {expected}")]
    Name {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A text is not the base name of a store path.
    #[error("`{found}` is not the base name of a store path: expected {expected}")]
    BaseName {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A path is not a store path of the given store directory.
    #[error("`{found}` is not in the store: expected {expected} `{store_dir}`")]
    NotInStore {
        /// The store directory that was asked.
        store_dir: StoreDir,
        /// The path, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A text is not nix32 of the wanted number of bytes.
    #[error("`{found}` is not {bytes} bytes in nix32: expected {expected}")]
    Nix32 {
        /// The text, shortened.
        found: String,
        /// How many bytes were wanted.
        bytes: usize,
        /// What it should have been.
        expected: &'static str,
    },
    /// A hash algorithm has a name that is not known here.
    #[error("unknown hash algorithm `{found}`: expected {expected}")]
    HashAlgorithm {
        /// The name, shortened.
        found: String,
        /// The names that are known.
        expected: &'static str,
    },
    /// A text is not a hash in any accepted encoding.
    #[error("`{found}` is not a hash: expected {expected}")]
    Hash {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: String,
    },
    /// A digest has the wrong number of bytes for its algorithm.
    #[error("digest has {found} bytes: expected {expected} for {algorithm}")]
    DigestLength {
        /// The algorithm of the hash.
        algorithm: HashAlgorithm,
        /// Length of its digests, in bytes.
        expected: usize,
        /// Length of what was given, in bytes.
        found: usize,
    },
    /// A text is not a content address.
    #[error("`{found}` is not a content address: expected {expected}")]
    ContentAddress {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A content address carries a hash that is not one.
    #[error("hash of the content address `{found}` is not valid")]
    ContentAddressHash {
        /// The whole content address, shortened.
        found: String,
        /// What is wrong with the hash.
        #[source]
        source: Box<Error>,
    },
    /// A text is not a signature.
    #[error("`{found}` is not a signature: expected {expected}")]
    Signature {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A text is not a key. Only the name is quoted: the rest may be a secret.
    #[error("the {kind} key `{name}` is not valid: expected {expected}")]
    Key {
        /// `public` or `secret`.
        kind: &'static str,
        /// The part before the `:`, shortened.
        name: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A content address, or references, that no object can have.
    #[error("no path for `{name}` with method {method:?} and {algorithm}: {problem}")]
    ContentPath {
        /// The name of the object.
        name: Name,
        /// The method of its content address.
        method: ContentMethod,
        /// The algorithm of its content address.
        algorithm: HashAlgorithm,
        /// The rule that forbids it.
        problem: &'static str,
    },
    /// The text of a derivation does not follow the syntax.
    #[error("derivation `{name}`: expected {expected} at byte {offset}, found `{found}`")]
    DerivationSyntax {
        /// The name of the derivation, without `.drv`.
        name: String,
        /// Where in the file, in bytes.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// A field of a derivation holds something that is not of its type.
    #[error("derivation `{name}`: the field that ends before byte {offset} is not valid")]
    DerivationField {
        /// The name of the derivation, without `.drv`.
        name: String,
        /// The first byte after the field.
        offset: usize,
        /// What is wrong with it.
        #[source]
        source: Box<Error>,
    },
    /// A derivation is well-formed, but says something that does not follow from its inputs.
    #[error("derivation `{drv}` is not consistent: {subject} should be {expected}, found `{found}`")]
    DerivationInconsistent {
        /// The name of the derivation, or its base name where that is known.
        drv: String,
        /// Which of its parts.
        subject: String,
        /// What that should be.
        expected: String,
        /// What it is, shortened.
        found: String,
    },
    /// A derivation needed for the hash of another one is not usable.
    #[error("input derivation `{path}` cannot be used")]
    InputDerivation {
        /// The input.
        path: StorePath,
        /// What is wrong with it.
        #[source]
        source: Box<Error>,
    },
    /// The caller could not supply an input derivation.
    #[error("cannot read input derivation `{path}`")]
    ReadDerivation {
        /// The input.
        path: StorePath,
        /// What the caller said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A text is not a store URL.
    #[error("cannot parse store URL `{found}`: expected {expected}")]
    StoreUrl {
        /// The text, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The store URL inside a setting is not usable.
    #[error("store URL in the setting `{key}` is not usable")]
    NestedStoreUrl {
        /// The name of the setting.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<Error>,
    },
    /// A store URL is of a kind that cannot be used here.
    #[error("store `{url}` cannot be used: expected {expected}")]
    UnsupportedStore {
        /// The URL, shortened.
        url: String,
        /// What can be.
        expected: &'static str,
    },
    /// A setting of a store URL has a value that is not of its type.
    #[error("setting `{key}` is `{found}`: expected {expected}")]
    Setting {
        /// The name of the setting.
        key: &'static str,
        /// What its value should be.
        expected: &'static str,
        /// What it is, shortened.
        found: String,
    },
    /// A setting that has no default is not given.
    #[error("setting `{key}` is missing: expected {expected}")]
    MissingSetting {
        /// The name of the setting.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Something exceeds a bound that protects memory.
    #[error("{subject} is too large: expected at most {limit} {unit}")]
    TooLarge {
        /// What is too large.
        subject: String,
        /// The bound.
        limit: usize,
        /// What the bound counts.
        unit: &'static str,
    },
}

/// Longest excerpt of a foreign text inside an error, in bytes.
const EXCERPT: usize = 160;

/// Renders foreign bytes for an error: control characters escaped, undecodable bytes replaced, the length
/// bounded.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let (head, cut) = match bytes.get(..EXCERPT) {
        Some(head) if bytes.len() > EXCERPT => (head, true),
        _ => (bytes, false),
    };
    let mut text = String::new();
    for chunk in head.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_debug());
            } else {
                text.push(character);
            }
        }
        if !chunk.invalid().is_empty() {
            text.push('\u{fffd}');
        }
    }
    if cut {
        text.push('…');
    }
    text
}
