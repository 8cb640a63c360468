// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that nobody else has.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use superpose_store_path::{HashPart, StorePath};

/// The part after the hash of scratch objects.
const SCRATCH_NAME: &str = "superpose-tmp";

/// A random number from the operating system's seed of the standard hasher.
///
/// Each `RandomState` of a process has keys of its own, derived from a random seed: unique enough for names that are
/// created exclusively, and without a generator of our own.
fn number(salt: u8) -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(salt);
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// `len` random hexadecimal digits, at most 16.
pub(crate) fn hex_digits(len: usize) -> String {
    let mut digits = format!("{:016x}", number(0));
    digits.truncate(len);
    digits
}

/// 32 random digits of the store path alphabet.
pub(crate) fn nix32_digits() -> String {
    let mut bytes = [0; 20];
    for (salt, chunk) in (1_u8..).zip(bytes.chunks_mut(8)) {
        chunk.copy_from_slice(&number(salt).to_le_bytes()[..chunk.len()]);
    }
    superpose_store_path::nix32::encode(&bytes)
}

/// A name in a store directory that is no object's, and that parses as a store path, so that every collector can
/// remove what a crash leaves under it.
pub(crate) fn scratch_path() -> StorePath {
    let hash = HashPart::parse(nix32_digits().as_bytes()).expect("32 digits of the alphabet");
    let name = superpose_store_path::Name::new(SCRATCH_NAME.as_bytes()).expect("a valid name");
    StorePath::from_parts(hash, &name)
}

/// Whether it is a name that [`scratch_path`] makes.
pub(crate) fn is_scratch(path: &StorePath) -> bool {
    path.name() == SCRATCH_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_parse() {
        let one = scratch_path();
        assert_ne!(one, scratch_path());
        assert!(is_scratch(&one));
        assert_eq!(hex_digits(8).len(), 8);
    }
}
