// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first bytes of an input choose the dialect.

use superpose_worker_protocol::{Dialect, Feature, Version};

/// Takes the choice off the beginning.
pub fn choose(bytes: &[u8]) -> Option<(Dialect, &[u8])> {
    let (&[minor, features], rest) = bytes.split_first_chunk()?;
    let dialect = Dialect {
        // Mostly the current one.
        version: Version::new(1, if minor < 128 { 38 } else { 18 + minor % 21 }),
        features: Feature::ALL
            .into_iter()
            .filter(|&feature| features >> (feature as u8) & 1 == 1)
            .collect(),
        ..Dialect::default()
    };
    Some((dialect, rest))
}
