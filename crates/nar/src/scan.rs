// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding references: store hash parts that occur literally in a stream.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};

use superpose_store_path::{HashPart, nix32};

/// Length of a hash part in text, in bytes.
const LENGTH: usize = 32;

/// Which bytes are nix32 digits.
const IS_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut index = 0;
    while index < nix32::ALPHABET.len() {
        table[nix32::ALPHABET[index] as usize] = true;
        index += 1;
    }
    table
};

/// A writer that finds which of the given hash parts occur in what is written to it.
///
/// A hash part counts wherever its 32 digits stand: in contents, names and link targets, at any alignment and across
/// any borders between writes, with or without a store directory before it. That is what Nix takes for a reference.
///
/// The search looks at the last byte of each window first and jumps behind it when it is no nix32 digit, so that most
/// data is passed in strides of nearly 32 bytes; only a run of 32 digits costs a look-up.
///
/// It does not tell where, or how often, a hash part occurs.
pub struct ReferenceScanner {
    candidates: HashMap<[u8; LENGTH], Candidate>,
    filter: Filter,
    /// How many candidates have not been found; at zero there is nothing left to look for.
    missing: usize,
    /// The digits at the end of what has been written, fewer than 32: a hash part may go on in the next write.
    tail: [u8; LENGTH],
    tail_length: usize,
}

struct Candidate {
    part: HashPart,
    found: bool,
}

impl ReferenceScanner {
    /// Prepares the search for these hash parts; duplicates do no harm.
    pub fn new(candidates: impl IntoIterator<Item = HashPart>) -> Self {
        let candidates: HashMap<_, _> = candidates
            .into_iter()
            .map(|part| (part.digits(), Candidate { part, found: false }))
            .collect();
        let mut filter = Filter::new(candidates.len());
        for digits in candidates.keys() {
            filter.insert(digits);
        }
        Self {
            missing: candidates.len(),
            candidates,
            filter,
            tail: [0; LENGTH],
            tail_length: 0,
        }
    }

    /// The hash parts found so far, in ascending order of their text.
    #[must_use]
    pub fn found(&self) -> Vec<HashPart> {
        let mut found: Vec<_> = self
            .candidates
            .iter()
            .filter(|(_, candidate)| candidate.found)
            .collect();
        found.sort_unstable_by_key(|(digits, _)| **digits);
        found.into_iter().map(|(_, candidate)| candidate.part).collect()
    }

    /// Whether this hash part is a candidate that has been found.
    #[must_use]
    pub fn has_found(&self, part: HashPart) -> bool {
        self.candidates
            .get(&part.digits())
            .is_some_and(|candidate| candidate.found)
    }

    /// Continues the search with the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        if self.missing == 0 {
            return;
        }
        if self.tail_length > 0 {
            // Windows that begin in the tail end within the first 31 bytes of what follows it.
            let mut seam = [0; 2 * LENGTH];
            let fresh = bytes.len().min(LENGTH - 1);
            let length = self.tail_length + fresh;
            seam[..self.tail_length].copy_from_slice(&self.tail[..self.tail_length]);
            seam[self.tail_length..length].copy_from_slice(&bytes[..fresh]);
            self.search(&seam[..length]);
            if bytes.len() < LENGTH - 1 {
                self.keep_tail(&seam[..length]);
                return;
            }
        }
        self.search(bytes);
        self.keep_tail(bytes);
    }

    /// Remembers the digits at the end, as far as a hash part may begin with them.
    fn keep_tail(&mut self, bytes: &[u8]) {
        let end = &bytes[bytes.len().saturating_sub(LENGTH - 1)..];
        let digits = end
            .iter()
            .rev()
            .take_while(|byte| IS_DIGIT[usize::from(**byte)])
            .count();
        let kept = &end[end.len() - digits..];
        self.tail[..digits].copy_from_slice(kept);
        self.tail_length = digits;
    }

    /// Looks at every window of 32 bytes that lies wholly within `bytes`.
    fn search(&mut self, bytes: &[u8]) {
        let mut start = 0;
        // Everything in `start..known` is known to be digits, so that a long run is not checked again and again.
        let mut known = 0;
        while let Some(window) = bytes.get(start..).and_then(<[u8]>::first_chunk::<LENGTH>) {
            let unchecked = known.max(start) - start;
            let stop = window[unchecked..]
                .iter()
                .rposition(|byte| !IS_DIGIT[usize::from(*byte)]);
            if let Some(stop) = stop {
                // The bytes behind the stop, up to the end of the window, have just been seen to be digits.
                known = start + LENGTH;
                start += unchecked + stop + 1;
                continue;
            }
            known = start + LENGTH;
            if self.filter.may_hold(window) {
                self.look_up(window);
                if self.missing == 0 {
                    return;
                }
            }
            start += 1;
        }
    }

    #[cold]
    fn look_up(&mut self, window: &[u8; LENGTH]) {
        if let Some(candidate) = self.candidates.get_mut(window)
            && !candidate.found
        {
            candidate.found = true;
            self.missing -= 1;
        }
    }
}

impl Write for ReferenceScanner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for ReferenceScanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceScanner")
            .field("candidates", &self.candidates.len())
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

/// A bitmap that says quickly that a window is none of the candidates.
///
/// Long runs of digits (hexadecimal text, say) have a window at every byte; this keeps them at a nanosecond each.
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    /// Room for this many entries at about one bit in sixteen.
    fn new(entries: usize) -> Self {
        // The upper bound (2 MiB) keeps the map within the cache; beyond a million candidates it only filters less.
        let bits = (entries.saturating_mul(16))
            .next_power_of_two()
            .clamp(1 << 10, 1 << 24);
        Self {
            bits: vec![0; bits / 64],
            shift: u64::BITS - bits.trailing_zeros(),
        }
    }

    fn index(&self, window: &[u8; LENGTH]) -> (usize, u64) {
        let mut head = [0; 8];
        head.copy_from_slice(&window[..8]);
        // Multiplication by an odd constant (the golden ratio) gathers the entropy of all digits in the top bits.
        let mixed = u64::from_le_bytes(head).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift;
        // Below 2^24, as `shift` is at least 40.
        (mixed as usize / 64, 1 << (mixed % 64))
    }

    fn insert(&mut self, window: &[u8; LENGTH]) {
        let (word, bit) = self.index(window);
        self.bits[word] |= bit;
    }

    fn may_hold(&self, window: &[u8; LENGTH]) -> bool {
        let (word, bit) = self.index(window);
        self.bits[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> HashPart {
        HashPart::parse(text.as_bytes()).unwrap()
    }

    const A: &str = "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp";
    const B: &str = "0y839a054fcnhjcd2w1pb6a4k4fl38iw";
    const C: &str = "00000000000000000000000000000000";

    fn check(chunks: &[&[u8]], expected: &[&str]) {
        let mut scanner = ReferenceScanner::new([A, B, C].map(part));
        for chunk in chunks {
            scanner.update(chunk);
        }
        let expected: Vec<_> = expected.iter().map(|text| part(text)).collect();
        assert_eq!(scanner.found(), expected, "{chunks:?}");
        for text in [A, B, C] {
            assert_eq!(scanner.has_found(part(text)), expected.contains(&part(text)));
        }
    }

    #[test]
    fn hash_parts_are_found_anywhere() {
        check(&[], &[]);
        check(&[b""], &[]);
        check(&[A.as_bytes()], &[A]);
        check(&[format!("/nix/store/{B}-x {A}").as_bytes()], &[B, A]);
        check(&[format!("0123{A}{B}").as_bytes()], &[B, A]);
        check(&[&A.as_bytes()[1..]], &[]);
        check(&[A.to_uppercase().as_bytes()], &[]);
        check(&["0".repeat(31).as_bytes()], &[]);
        check(&["0".repeat(400).as_bytes()], &[C]);
        check(&[format!("{}e{}", &A[..16], &A[16..]).as_bytes()], &[]);
    }

    #[test]
    fn hash_parts_are_found_across_any_borders() {
        let text = format!("x/{A}{B}-y");
        let text = text.as_bytes();
        for first in 0..text.len() {
            for second in first..text.len() {
                check(&[&text[..first], &text[first..second], &text[second..]], &[B, A]);
            }
        }
        let bytes: Vec<_> = text.chunks(1).collect();
        check(&bytes, &[B, A]);
    }

    #[test]
    fn no_candidates_find_nothing() {
        let mut scanner = ReferenceScanner::new([]);
        scanner.update(A.as_bytes());
        assert!(scanner.found().is_empty());
    }
}
