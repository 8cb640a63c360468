// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store paths, held by their base name.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result, excerpt};
use crate::name::{self, Name};
use crate::nix32;

/// Length of the hash part as text, in bytes.
pub const HASH_PART_LEN: usize = 32;

/// Longest base name, in bytes: hash part, `-`, name.
pub const MAX_BASE_NAME_LEN: usize = HASH_PART_LEN + 1 + name::MAX_NAME_LEN;

/// Suffix of the names of derivations.
pub const DERIVATION_SUFFIX: &str = ".drv";

/// The 160 bits that begin a store path.
///
/// The order is that of the bytes, not that of the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashPart([u8; 20]);

impl HashPart {
    /// Makes a hash part of its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Parses 32 nix32 digits.
    ///
    /// # Errors
    /// If there are more, fewer or other characters.
    pub fn parse(text: &[u8]) -> Result<Self> {
        nix32::decode_array(text).map(Self)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Returns the 32 digits.
    #[must_use]
    pub fn digits(&self) -> [u8; HASH_PART_LEN] {
        nix32::encode20(&self.0)
    }
}

impl fmt::Display for HashPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).expect("digits are ASCII"))
    }
}

impl fmt::Debug for HashPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashPart({self})")
    }
}

impl FromStr for HashPart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes())
    }
}

/// A store path without its store directory: `<32 nix32 digits>-<name>`.
///
/// Cloning is cheap. The order is the byte order of the base name, which is the order Nix uses everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// Parses a base name.
    ///
    /// # Errors
    /// If the hash part, the `-` after it or the name is not right.
    ///
    /// # Deviation
    /// Nix before the late 2.35 releases accepts any character in place of the `-`; only `-` is accepted
    /// here.
    pub fn from_base_name(base: &[u8]) -> Result<Self> {
        let fail = |expected| Error::BaseName {
            found: excerpt(base),
            expected,
        };
        let Some((hash, rest)) = base.split_at_checked(HASH_PART_LEN) else {
            return Err(fail("32 nix32 digits, `-` and a name"));
        };
        if !nix32::is_alphabet(hash) {
            return Err(fail("32 nix32 digits at the beginning"));
        }
        let [b'-', name @ ..] = rest else {
            return Err(fail("`-` after the 32 digits"));
        };
        name::check(name)?;
        let text = str::from_utf8(base).expect("digits, `-` and names are ASCII");
        Ok(Self(text.into()))
    }

    /// Puts a hash part and a name together.
    #[must_use]
    pub fn from_parts(hash: HashPart, name: &Name) -> Self {
        let mut text = String::with_capacity(HASH_PART_LEN + 1 + name.as_str().len());
        text.push_str(str::from_utf8(&hash.digits()).expect("digits are ASCII"));
        text.push('-');
        text.push_str(name.as_str());
        Self(text.into())
    }

    /// Returns the whole base name.
    #[must_use]
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// Returns the hash part, decoded.
    #[must_use]
    pub fn hash_part(&self) -> HashPart {
        HashPart::parse(self.hash_part_str().as_bytes()).expect("checked at construction")
    }

    /// Returns the hash part as text: 32 digits.
    #[must_use]
    pub fn hash_part_str(&self) -> &str {
        &self.0[..HASH_PART_LEN]
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0[HASH_PART_LEN + 1..]
    }

    /// Tells whether the object is a derivation, which is a matter of the suffix `.drv` alone.
    #[must_use]
    pub fn is_derivation(&self) -> bool {
        self.0.ends_with(DERIVATION_SUFFIX)
    }

    /// Returns the name of a derivation without `.drv`; `None` for other objects.
    #[must_use]
    pub fn derivation_name(&self) -> Option<&str> {
        self.name().strip_suffix(DERIVATION_SUFFIX)
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePath({})", self.0)
    }
}

impl AsRef<str> for StorePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for StorePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for StorePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_base_name(text.as_bytes())
    }
}
