// SPDX-License-Identifier: MIT OR Apache-2.0
//! The name part of a store path.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, excerpt};

/// Longest name, in bytes.
pub const MAX_NAME_LEN: usize = 211;

/// Which bytes may stand in a name.
const ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(byte as u8, b'+' | b'-' | b'.' | b'_' | b'?' | b'=');
        byte += 1;
    }
    table
};

/// The name of a store object: 1 to 211 bytes of `0-9 A-Z a-z + - . _ ? =`.
///
/// `.`, `..` and anything that begins with `.-` or `..-` are refused, as Nix does; other leading dots are
/// fine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// If the length, a character or the beginning is not allowed.
    pub fn new(text: &[u8]) -> Result<Self> {
        Ok(Self(check(text)?.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the rules of a name and returns it as text.
pub(crate) fn check(text: &[u8]) -> Result<&str> {
    let fail = |expected| Error::Name {
        found: excerpt(text),
        expected,
    };
    if text.is_empty() || text.len() > MAX_NAME_LEN {
        return Err(fail("1 to 211 bytes"));
    }
    if !text.iter().all(|&byte| ALLOWED[byte as usize]) {
        return Err(fail("only 0-9 A-Z a-z + - . _ ? ="));
    }
    if text[0] == b'.'
        && (matches!(text, b"." | b"..") || text.starts_with(b".-") || text.starts_with(b"..-"))
    {
        return Err(fail("neither `.` nor `..`, and not beginning with `.-` or `..-`"));
    }
    Ok(str::from_utf8(text).expect("every allowed byte is ASCII"))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text.as_bytes())
    }
}
