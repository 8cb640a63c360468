// SPDX-License-Identifier: MIT OR Apache-2.0
//! Versions of the protocol.

use std::fmt;

use crate::error::{Error, Result};

/// A version of the protocol. The lower one of both sides' holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number; only 1 is in use.
    pub major: u8,
    /// The second number.
    pub minor: u8,
}

impl Version {
    /// What this crate announces: 1.38, as Nix 2.24 to 2.36 do. Later additions are features, not versions.
    pub const CURRENT: Self = Self::new(1, 38);

    /// The oldest that is accepted of either role: 1.18, as Nix from 2.32 on.
    ///
    /// # Limitations
    /// With Nix before 2.4 (1.32) little can be uploaded: below 1.23 to 1.25 objects travel unframed, and the operations
    /// are refused.
    pub const MINIMUM: Self = Self::new(1, 18);

    /// Makes a version of its two numbers.
    #[must_use]
    pub const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// Reads the word of a greeting.
    pub(crate) fn from_word(word: u64) -> Result<Self> {
        match u16::try_from(word) {
            Ok(short) => {
                let [major, minor] = short.to_be_bytes();
                Ok(Self { major, minor })
            }
            Err(_) => Err(Error::Value {
                what: "the protocol version",
                expected: "two numbers of one byte each",
                found: format!("{word:#x}"),
            }),
        }
    }

    /// Returns the word of a greeting.
    pub(crate) fn word(self) -> u64 {
        u64::from(u16::from_be_bytes([self.major, self.minor]))
    }

    /// Whether something that came with a minor version of 1 is there.
    pub(crate) const fn has(self, minor: u8) -> bool {
        self.major > 1 || (self.major == 1 && self.minor >= minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_the_major_number_above_the_minor() {
        assert_eq!(Version::CURRENT.word(), 0x126);
        assert_eq!(Version::from_word(0x126).unwrap(), Version::CURRENT);
        assert!(Version::from_word(0x1_0126).is_err());
    }

    #[test]
    fn a_version_has_what_came_before_it() {
        assert!(Version::new(1, 25).has(25) && !Version::new(1, 24).has(25));
        assert!(Version::new(2, 0).has(25) && !Version::new(0, 99).has(25));
    }
}
