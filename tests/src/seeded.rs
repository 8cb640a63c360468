// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that look random and are the same in every run.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// A generator (`SplitMix64`): too weak for secrets, good enough for shapes, contents and choices.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

/// Chooses the seed of what is random in a suite, so that a run can be made again.
const SEED: &str = "SUPERPOSE_SEED";

/// The seed of this run: the one that the environment names, or another each time.
///
/// # Errors
/// If the environment names none that is a number.
pub fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text}")),
        Err(_) => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            Ok(u64::from(since.subsec_nanos()) ^ since.as_secs())
        }
    }
}

impl Seeded {
    /// The numbers of a seed, from the first one on.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        let scaled = (u64::from(u32::MAX) & self.number()) * u64::from(limit);
        u32::try_from(scaled >> 32).unwrap_or(0)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of several values, of which there is at least one.
    pub fn choose<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        &values[self.below(count) as usize]
    }

    /// Fills bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let value = self.number().to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let numbers = |seed| {
            let mut seeded = Seeded::new(seed);
            [seeded.number(), seeded.number()]
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        // Of the published algorithm.
        assert_eq!(Seeded::new(0).number(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn numbers_stay_below_their_limit() {
        let mut seeded = Seeded::new(7);
        let mut seen = [false; 5];
        for _ in 0..100 {
            seen[seeded.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
