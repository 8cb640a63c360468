// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signatures, as text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD};

use crate::base64;
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
    ///
    /// # Deviation
    /// Nix up to 2.33 takes any text. Nix 2.34 reads sloppy base64 as well, for which there is
    /// [`Signature::parse_lenient`], and key names with blanks or control characters.
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

    /// Reads a signature that is on record as leniently as Nix 2.34: of its base64 the padding may be wrong, and newlines, what
    /// follows the padding, and stray bits in the last character do not count. The result is what Nix makes of it, in
    /// canonical form, unless [`Signature::parse`] accepts the text as it is.
    ///
    /// # Errors
    /// If the key name is not acceptable to [`Signature::parse`], or the rest is not base64 of at least one byte even so.
    pub fn parse_lenient(text: &[u8]) -> Result<Self> {
        Self::parse(text).or_else(|error| {
            let colon = text.iter().position(|&byte| byte == b':');
            let (key, value) = text.split_at(colon.map_or(text.len(), |colon| colon + 1));
            match (str::from_utf8(key), base64::decode(value)) {
                (Ok(key), Some(value)) => {
                    Self::parse(format!("{key}{}", base64::encode(&value)).as_bytes()).map_err(|_| error)
                }
                _ => Err(error),
            }
        })
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

    /// Returns the bytes of the signature itself.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        let text = self.0.split_once(':').map_or("", |(_, value)| value);
        base64::decode(text.as_bytes()).unwrap_or_default()
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
