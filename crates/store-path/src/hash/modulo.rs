// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content hashes of objects that refer to themselves.
//!
//! The content hash decides the path, so the path's own hash part inside the content has to be left out: each
//! occurrence is hashed as 32 NUL bytes. Since Nix 2.35 the positions of the occurrences are hashed after the
//! stream as well, so that a hash part moved to a place that held NUL bytes makes a difference.

use std::fmt;
use std::io;

use super::{Hash, HashAlgorithm, Hasher};
use crate::store_path::{HASH_PART_LEN, HashPart};

/// What each occurrence is hashed as.
const BLANK: [u8; HASH_PART_LEN] = [0; HASH_PART_LEN];

/// Which rule for self references applies. The two disagree on every object that refers to itself, and agree
/// on all others; a registered object keeps its path whatever rule made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuloGeneration {
    /// Nix 2.17 to 2.34: occurrences are blanked.
    Plain,
    /// Nix 2.35 and newer: occurrences are blanked, and their offsets hashed after the stream.
    WithOffsets,
}

/// Hashes a stream modulo the occurrences of one hash part, wherever the pieces of the stream are cut.
#[derive(Clone)]
pub struct ModuloHasher {
    hasher: Hasher,
    modulus: [u8; HASH_PART_LEN],
    /// For each byte, how far a window of the modulus' length whose last byte it is may be moved on.
    shift: [u8; 256],
    /// What has been seen but not hashed, being too short to tell whether the modulus begins in it: at most
    /// one byte less than the modulus between calls, and as many again while a call looks across the seam.
    pending: [u8; 2 * HASH_PART_LEN],
    pending_len: usize,
    /// The offset of the first pending byte in the stream.
    offset: u64,
    generation: ModuloGeneration,
    offsets: Offsets,
    occurrences: u64,
}

impl ModuloHasher {
    /// Begins a hash modulo `modulus`, the hash part of the object's own path.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm, modulus: HashPart, generation: ModuloGeneration) -> Self {
        let modulus = modulus.digits();
        let mut shift = [HASH_PART_LEN as u8; 256];
        for (place, &digit) in modulus[..HASH_PART_LEN - 1].iter().enumerate() {
            shift[digit as usize] = (HASH_PART_LEN - 1 - place) as u8;
        }
        Self {
            hasher: Hasher::new(algorithm),
            modulus,
            shift,
            pending: [0; 2 * HASH_PART_LEN],
            pending_len: 0,
            offset: 0,
            generation,
            offsets: Offsets::default(),
            occurrences: 0,
        }
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        let held = self.pending_len;
        if held > 0 {
            // An occurrence that begins in what is held ends before this many of the new bytes.
            let more = bytes.len().min(HASH_PART_LEN - 1);
            let mut seam = self.pending;
            seam[held..held + more].copy_from_slice(&bytes[..more]);
            let seam = &seam[..held + more];
            let used = self.consume(seam);
            if used < held {
                // Still too little to tell; `more` is all there is.
                self.keep(&seam[used..]);
                return;
            }
            bytes = &bytes[used - held..];
        }
        let used = self.consume(bytes);
        self.keep(&bytes[used..]);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.pending[..bytes.len()].copy_from_slice(bytes);
        self.pending_len = bytes.len();
    }

    /// Hashes as much of `bytes` as can be decided, and returns how much that is.
    fn consume(&mut self, bytes: &[u8]) -> usize {
        const LAST: usize = HASH_PART_LEN - 1;
        let mut hashed = 0;
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + HASH_PART_LEN) {
            if window == self.modulus {
                self.hasher.update(&bytes[hashed..at]);
                self.hasher.update(&BLANK);
                self.record(self.offset + at as u64);
                at += HASH_PART_LEN;
                hashed = at;
            } else {
                at += self.shift[window[LAST] as usize] as usize;
            }
        }
        self.hasher.update(&bytes[hashed..at]);
        self.offset += at as u64;
        at
    }

    fn record(&mut self, offset: u64) {
        self.occurrences += 1;
        if self.generation == ModuloGeneration::WithOffsets {
            self.offsets.push(offset);
        }
    }

    /// Returns how many occurrences have been found so far.
    #[must_use]
    pub const fn occurrences(&self) -> u64 {
        self.occurrences
    }

    /// Ends the hash.
    #[must_use]
    pub fn finish(mut self) -> Hash {
        self.hasher.update(&self.pending[..self.pending_len]);
        for offset in self.offsets.iter() {
            self.hasher.update(format!("|{offset}").as_bytes());
        }
        self.hasher.finish()
    }
}

/// The offsets of all occurrences, ascending, which can only be hashed after the stream.
///
/// An object may consist of little but its own hash part, so they are kept small: as the distance from the
/// last one, seven bits per byte, the highest bit telling that more follow. At most one byte per 32 of the
/// stream results.
#[derive(Clone, Default)]
struct Offsets {
    distances: Vec<u8>,
    last: u64,
}

impl Offsets {
    fn push(&mut self, offset: u64) {
        let mut distance = offset - self.last;
        self.last = offset;
        while distance >= 0x80 {
            self.distances.push(distance as u8 | 0x80);
            distance >>= 7;
        }
        self.distances.push(distance as u8);
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let mut offset = 0;
        let mut distance = 0;
        let mut shift = 0;
        self.distances.iter().filter_map(move |&byte| {
            distance |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            (byte < 0x80).then(|| {
                offset += distance;
                (distance, shift) = (0, 0);
                offset
            })
        })
    }
}

impl io::Write for ModuloHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for ModuloHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuloHasher")
            .field("hasher", &self.hasher)
            .field("generation", &self.generation)
            .field("occurrences", &self.occurrences)
            .finish_non_exhaustive()
    }
}
