// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signatures, as text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD};

use crate::error::{Error, Result, excerpt};

/// A signature over a path's metadata: `keyname:base64`.
///
/// Only the form is checked; whether the signature is right is not this crate's matter. Nix 2.34 and newer
/// refuse database rows that hold anything of another form. The order is the byte order of the text, in which
/// Nix writes them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(Arc<str>);

impl Signature {
    /// Checks the form of a signature.
    ///
    /// # Errors
    /// If there is no `:`, if the key name is empty or holds a blank or control character, or if the rest is
    /// not base64 (padded or not) of at least one byte.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let fail = |expected| Error::Signature {
            found: excerpt(text),
            expected,
        };
        let text_str = str::from_utf8(text).map_err(|_| fail("UTF-8"))?;
        let (key, value) = text_str
            .split_once(':')
            .ok_or_else(|| fail("a key name, `:` and base64"))?;
        // Signatures are kept in one database column, separated by blanks.
        if key.is_empty()
            || key
                .chars()
                .any(|character| character.is_whitespace() || character.is_control())
        {
            return Err(fail("a key name without blanks before the `:`"));
        }
        let value = value.as_bytes();
        let valid = BASE64.decode(value).is_ok() || BASE64_NOPAD.decode(value).is_ok();
        if value.is_empty() || !valid {
            return Err(fail("base64 after the `:`"));
        }
        Ok(Self(text_str.into()))
    }

    /// Returns the whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the key.
    #[must_use]
    pub fn key_name(&self) -> &str {
        self.0.split_once(':').map_or("", |(key, _)| key)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", self.0)
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes())
    }
}
