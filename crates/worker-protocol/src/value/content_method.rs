// SPDX-License-Identifier: MIT OR Apache-2.0
//! How content is addressed, without the address.

use std::fmt;

use superpose_store_path::{ContentMethod, HashAlgorithm};

use crate::codec::bad_value;
use crate::error::{Error, Result};

/// How the content of an object is to be hashed: `fixed:r:sha256`, `text:sha256` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodAlgorithm {
    /// How the content is turned into bytes.
    pub method: ContentMethod,
    /// How those are hashed.
    pub algorithm: HashAlgorithm,
}

impl MethodAlgorithm {
    /// Parses the form of `AddToStore`.
    ///
    /// # Errors
    /// If the beginning or the algorithm is not known.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let (text, is_fixed) = match text.strip_prefix(b"fixed:") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let parsed = Self::parse_unprefixed(text)?;
        if is_fixed == (parsed.method == ContentMethod::Text) {
            return Err(bad_value(
                "the content address method",
                "`text:` or `fixed:` (then `r:`, `git:` or nothing) and an algorithm",
                text,
            ));
        }
        Ok(parsed)
    }

    /// Parses the form of a derivation's output: `r:sha256`, `sha256`, `text:sha256`.
    pub(crate) fn parse_unprefixed(text: &[u8]) -> Result<Self> {
        let method = [ContentMethod::Text, ContentMethod::Nar, ContentMethod::Git]
            .into_iter()
            .find(|method| text.starts_with(method.prefix().as_bytes()))
            .unwrap_or(ContentMethod::Flat);
        let algorithm = HashAlgorithm::parse(&text[method.prefix().len()..]);
        let algorithm = algorithm.map_err(|source| Error::Malformed {
            what: "the content address method",
            source,
        })?;
        Ok(Self { method, algorithm })
    }

    /// Writes the form of a derivation's output.
    pub(crate) fn render_unprefixed(self) -> String {
        format!("{}{}", self.method.prefix(), self.algorithm)
    }
}

impl fmt::Display for MethodAlgorithm {
    /// Writes the form of `AddToStore`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.method != ContentMethod::Text {
            f.write_str("fixed:")?;
        }
        write!(f, "{}{}", self.method.prefix(), self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_back() {
        for text in [
            "text:sha256",
            "fixed:sha256",
            "fixed:r:sha256",
            "fixed:r:sha1",
            "fixed:git:sha1",
        ] {
            assert_eq!(MethodAlgorithm::parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_mixes_the_two_beginnings_is_refused() {
        for text in [
            "sha256",
            "r:sha256",
            "fixed:text:sha256",
            "fixed:",
            "",
            "fixed:r:md4",
        ] {
            assert!(MethodAlgorithm::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
