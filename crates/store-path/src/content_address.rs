// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content addresses: how an object's path follows from its content.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, excerpt};
use crate::hash::{Hash, HashAlgorithm, HashEncoding};

/// How the content of an object is turned into bytes before it is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentMethod {
    /// The bytes of one file that may refer to other objects, as derivations do.
    Text,
    /// The bytes of one file.
    Flat,
    /// The archive of the object.
    Nar,
    /// The git object of the file or tree; Nix's experimental feature `git-hashing`.
    Git,
}

impl ContentMethod {
    /// Returns what stands before the algorithm of a fixed output: nothing, `r:`, `git:` or `text:`.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Text => "text:",
            Self::Flat => "",
            Self::Nar => "r:",
            Self::Git => "git:",
        }
    }

    /// Takes a method's prefix off the beginning of `text`. No known prefix means flat.
    pub(crate) fn split_prefix(text: &[u8]) -> (Self, &[u8]) {
        for method in [Self::Text, Self::Nar, Self::Git] {
            if let Some(rest) = text.strip_prefix(method.prefix().as_bytes()) {
                return (method, rest);
            }
        }
        (Self::Flat, text)
    }
}

/// What the path of a content-addressed object is computed from, besides its name and references.
///
/// As text: `text:sha256:<nix32>` or `fixed:<prefix><algorithm>:<nix32>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentAddress {
    /// How the content was turned into bytes.
    pub method: ContentMethod,
    /// The hash of those bytes.
    pub hash: Hash,
}

impl ContentAddress {
    /// Parses the text form, with the digest in any encoding but SRI.
    ///
    /// # Errors
    /// If the beginning is not known, or the hash is not one.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let fail = || Error::ContentAddress {
            found: excerpt(text),
            expected: "`text:` or `fixed:` (then `r:`, `git:` or nothing), an algorithm, `:` and a digest",
        };
        let (method, hash) = if let Some(rest) = text.strip_prefix(b"text:") {
            (ContentMethod::Text, rest)
        } else {
            match ContentMethod::split_prefix(text.strip_prefix(b"fixed:").ok_or_else(fail)?) {
                (ContentMethod::Text, _) => return Err(fail()),
                split => split,
            }
        };
        let colon = hash.iter().position(|&byte| byte == b':').ok_or_else(fail)?;
        let hash = HashAlgorithm::parse(&hash[..colon])
            .and_then(|algorithm| Hash::parse_unprefixed(&hash[colon + 1..], algorithm))
            .map_err(|source| Error::ContentAddressHash {
                found: excerpt(text),
                source: Box::new(source),
            })?;
        Ok(Self { method, hash })
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.method != ContentMethod::Text {
            f.write_str("fixed:")?;
        }
        f.write_str(self.method.prefix())?;
        f.write_str(&self.hash.render(HashEncoding::Nix32))
    }
}

impl FromStr for ContentAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes())
    }
}
