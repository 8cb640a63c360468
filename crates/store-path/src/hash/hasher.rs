// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashing of bytes as they come.

use std::fmt;
use std::io;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{Hash, HashAlgorithm};

/// A hash being computed over a stream.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
    // Its state is some two kilobytes.
    #[cfg(feature = "blake3")]
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Begins a hash.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self(match algorithm {
            HashAlgorithm::Md5 => State::Md5(Md5::new()),
            HashAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            HashAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            HashAlgorithm::Sha512 => State::Sha512(Sha512::new()),
            #[cfg(feature = "blake3")]
            HashAlgorithm::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Md5(state) => state.update(bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
            #[cfg(feature = "blake3")]
            State::Blake3(state) => {
                state.update(bytes);
            }
        }
    }

    /// Ends the hash.
    #[must_use]
    pub fn finish(self) -> Hash {
        match self.0 {
            State::Md5(state) => Hash::padded(HashAlgorithm::Md5, &state.finalize()),
            State::Sha1(state) => Hash::padded(HashAlgorithm::Sha1, &state.finalize()),
            State::Sha256(state) => Hash::padded(HashAlgorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Hash::padded(HashAlgorithm::Sha512, &state.finalize()),
            #[cfg(feature = "blake3")]
            State::Blake3(state) => Hash::padded(HashAlgorithm::Blake3, state.finalize().as_bytes()),
        }
    }

    fn algorithm(&self) -> HashAlgorithm {
        match self.0 {
            State::Md5(_) => HashAlgorithm::Md5,
            State::Sha1(_) => HashAlgorithm::Sha1,
            State::Sha256(_) => HashAlgorithm::Sha256,
            State::Sha512(_) => HashAlgorithm::Sha512,
            #[cfg(feature = "blake3")]
            State::Blake3(_) => HashAlgorithm::Blake3,
        }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

/// Hashes bytes that are all there.
#[must_use]
pub fn hash_bytes(algorithm: HashAlgorithm, bytes: &[u8]) -> Hash {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}
