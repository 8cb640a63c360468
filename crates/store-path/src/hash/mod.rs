// SPDX-License-Identifier: MIT OR Apache-2.0
//! Typed hashes and their text forms.

mod hasher;
mod modulo;

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

pub use self::hasher::{Hasher, hash_bytes};
pub use self::modulo::{ModuloGeneration, ModuloHasher};
use crate::error::{Error, Result, excerpt};
use crate::{base64, nix32};

/// Longest digest of any algorithm, in bytes.
const MAX_DIGEST: usize = 64;

/// A hash algorithm that Nix knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// MD5, 16 bytes; only for old fixed outputs.
    Md5,
    /// SHA-1, 20 bytes; only for old fixed outputs and git objects.
    Sha1,
    /// SHA-256, 32 bytes; the usual one.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// BLAKE3, 32 bytes; Nix 2.27 and newer, behind its experimental feature `blake3-hashes`.
    #[cfg(feature = "blake3")]
    Blake3,
}

impl HashAlgorithm {
    #[cfg(feature = "blake3")]
    const KNOWN: &'static str = "md5, sha1, sha256, sha512 or blake3";
    #[cfg(not(feature = "blake3"))]
    const KNOWN: &'static str = "md5, sha1, sha256 or sha512";
    /// For those who ask for the one that is left out.
    #[cfg(not(feature = "blake3"))]
    const BUILT: &'static str = "md5, sha1, sha256 or sha512, as this build is without its feature `blake3`";

    /// Parses a name; only lower case is one.
    ///
    /// # Errors
    /// If the name is not known, or its feature is not compiled in.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Ok(match text {
            b"md5" => Self::Md5,
            b"sha1" => Self::Sha1,
            b"sha256" => Self::Sha256,
            b"sha512" => Self::Sha512,
            #[cfg(feature = "blake3")]
            b"blake3" => Self::Blake3,
            #[cfg(not(feature = "blake3"))]
            b"blake3" => {
                return Err(Error::HashAlgorithm {
                    found: excerpt(text),
                    expected: Self::BUILT,
                });
            }
            _ => {
                return Err(Error::HashAlgorithm {
                    found: excerpt(text),
                    expected: Self::KNOWN,
                });
            }
        })
    }

    /// Returns the name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            #[cfg(feature = "blake3")]
            Self::Blake3 => "blake3",
        }
    }

    /// Returns the length of a digest, in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            #[cfg(feature = "blake3")]
            Self::Blake3 => 32,
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HashAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes())
    }
}

/// How the digest of a hash is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashEncoding {
    /// Lower-case hexadecimal.
    Base16,
    /// The base-32 notation of Nix.
    Nix32,
    /// Base64 with padding.
    Base64,
    /// Base64 with padding, after the algorithm and `-` instead of `:`.
    Sri,
}

/// A digest together with its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    algorithm: HashAlgorithm,
    /// The digest, then zeros: equality, order and hashing may look at all of it.
    digest: [u8; MAX_DIGEST],
}

impl Hash {
    /// Makes a hash of a digest.
    ///
    /// # Errors
    /// If the digest is not as long as the algorithm's digests are.
    pub fn new(algorithm: HashAlgorithm, digest: &[u8]) -> Result<Self> {
        if digest.len() != algorithm.digest_len() {
            let expected = algorithm.digest_len();
            return Err(Error::DigestLength {
                algorithm,
                expected,
                found: digest.len(),
            });
        }
        Ok(Self::padded(algorithm, digest))
    }

    /// Makes a SHA-256 hash of its digest.
    #[must_use]
    pub fn sha256(digest: [u8; 32]) -> Self {
        Self::padded(HashAlgorithm::Sha256, &digest)
    }

    /// The caller knows that the length is right.
    fn padded(algorithm: HashAlgorithm, digest: &[u8]) -> Self {
        let mut padded = [0; MAX_DIGEST];
        padded[..digest.len()].copy_from_slice(digest);
        Self {
            algorithm,
            digest: padded,
        }
    }

    /// Returns the algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Returns the digest.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest[..self.algorithm.digest_len()]
    }

    /// Parses a hash that names its algorithm: `sha256:` with any encoding, which its length tells, or
    /// `sha256-` with base64. That is read as leniently as by Nix: its padding may be missing, and newlines, what
    /// follows the padding, and stray bits in the last character do not count.
    ///
    /// # Errors
    /// If the algorithm is unknown, or the rest does not encode a digest of its length.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let Some(end) = text.iter().position(|byte| matches!(byte, b':' | b'-')) else {
            let expected = "an algorithm, `:` or `-`, and a digest".to_owned();
            return Err(Error::Hash {
                found: excerpt(text),
                expected,
            });
        };
        let algorithm = HashAlgorithm::parse(&text[..end])?;
        let body = &text[end + 1..];
        if text[end] == b':' {
            return Self::parse_unprefixed(body, algorithm);
        }
        let mut digest = [0; MAX_DIGEST];
        decode_base64(body, &mut digest[..algorithm.digest_len()]).ok_or_else(|| Error::Hash {
            found: excerpt(text),
            expected: format!("{} bytes in base64 after `{algorithm}-`", algorithm.digest_len()),
        })?;
        Ok(Self { algorithm, digest })
    }

    /// Parses the digest of a known algorithm; the encoding is told by the length. SRI is not accepted.
    ///
    /// # Errors
    /// If the length or a character fits no encoding.
    pub fn parse_unprefixed(text: &[u8], algorithm: HashAlgorithm) -> Result<Self> {
        let bytes = algorithm.digest_len();
        let base16 = 2 * bytes;
        let base32 = nix32::encoded_len(bytes);
        let base64 = bytes.div_ceil(3) * 4;
        let fail = |expected| Error::Hash {
            found: excerpt(text),
            expected,
        };
        let mut padded = [0; MAX_DIGEST];
        let digest = &mut padded[..bytes];
        if text.len() == base16 {
            HEXLOWER_PERMISSIVE.decode_mut(text, digest).map_err(|_| {
                fail(format!(
                    "hexadecimal digits, as {base16} characters of {algorithm} are"
                ))
            })?;
        } else if text.len() == base32 {
            nix32::decode_to(text, digest)?;
        } else if text.len() == base64 {
            decode_base64(text, digest)
                .ok_or_else(|| fail(format!("base64, as {base64} characters of {algorithm} are")))?;
        } else {
            return Err(fail(format!(
                "{base16} (hexadecimal), {base32} (nix32) or {base64} (base64) characters for {algorithm}"
            )));
        }
        Ok(Self {
            algorithm,
            digest: padded,
        })
    }

    /// Writes the hash with its algorithm: `sha256:…`, or `sha256-…` as SRI.
    #[must_use]
    pub fn render(&self, encoding: HashEncoding) -> String {
        let separator = if encoding == HashEncoding::Sri { '-' } else { ':' };
        let mut text = String::with_capacity(8 + 2 * self.digest().len());
        text.push_str(self.algorithm.as_str());
        text.push(separator);
        self.append_bare(encoding, &mut text);
        text
    }

    /// Writes the digest alone; as SRI it is base64.
    #[must_use]
    pub fn render_bare(&self, encoding: HashEncoding) -> String {
        let mut text = String::with_capacity(2 * self.digest().len());
        self.append_bare(encoding, &mut text);
        text
    }

    fn append_bare(&self, encoding: HashEncoding, text: &mut String) {
        match encoding {
            HashEncoding::Base16 => HEXLOWER.encode_append(self.digest(), text),
            HashEncoding::Nix32 => {
                nix32::encode_append::<{ nix32::encoded_len(MAX_DIGEST) }>(self.digest(), text);
            }
            HashEncoding::Base64 | HashEncoding::Sri => BASE64.encode_append(self.digest(), text),
        }
    }

    /// Folds the digest to 160 bits: byte *i* of the result is the exclusive or of all bytes *i* mod 20.
    #[must_use]
    pub fn compress(&self) -> [u8; 20] {
        let mut folded = [0; 20];
        for chunk in self.digest().chunks(folded.len()) {
            for (to, from) in folded.iter_mut().zip(chunk) {
                *to ^= from;
            }
        }
        folded
    }
}

/// Decodes base64 to exactly `digest`; `None` if it is not that.
fn decode_base64(text: &[u8], digest: &mut [u8]) -> Option<()> {
    let decoded = base64::decode(text)?;
    if decoded.len() != digest.len() {
        return None;
    }
    digest.copy_from_slice(&decoded);
    Some(())
}

impl fmt::Display for Hash {
    /// Writes the canonical form: the algorithm, `:`, nix32.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(HashEncoding::Nix32))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes())
    }
}
