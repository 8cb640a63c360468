// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words and limits of the format.
//!
//! An archive is a sequence of strings, each written as its length (64 bits, little endian), its bytes, and zeros
//! up to a multiple of eight: the magic string, then one node. A node is one of
//!
//! - `(` `type` `regular` `contents` *bytes* `)`, or for an executable file
//!   `(` `type` `regular` `executable` *empty* `contents` *bytes* `)`
//! - `(` `type` `symlink` `target` *bytes* `)`
//! - `(` `type` `directory` { `entry` `(` `name` *bytes* `node` *node* `)` } `)`
//!
//! with the entries of a directory in strictly increasing byte order. The limits are those that Nix enforces since
//! the security releases of spring 2026 (2.28.7, 2.30.5, 2.31.5, 2.32.8, 2.33.6, 2.34.7 and 2.35).

/// The string every archive begins with.
pub const MAGIC: &str = "nix-archive-1";

/// A node may be inside fewer than this many directories, so that readers that recurse keep their stack.
pub const MAX_DEPTH: usize = 64;

/// Longest name of a directory entry, in bytes; also what Linux file systems take.
pub const MAX_NAME: usize = 255;

/// Longest target of a symbolic link, in bytes; one less than what Linux takes with the closing NUL.
pub const MAX_TARGET: usize = 4095;

/// Longest keyword that is read at all, in bytes.
pub const MAX_TAG: usize = 32;

/// Largest contents of one file, in bytes: what a signed file offset can express.
pub const MAX_CONTENTS: u64 = i64::MAX.unsigned_abs();

/// Bytes of padding after a string of this length.
pub(crate) const fn padding(length: u64) -> usize {
    // A remainder of eight always fits.
    (length.wrapping_neg() & 7) as usize
}

/// Bytes that a string of this length takes in the archive.
pub(crate) const fn encoded_len(length: usize) -> usize {
    8 + length.next_multiple_of(8)
}

/// Renders keywords as they stand in the archive; `N` has to be their encoded length, checked when compiled.
const fn words<const N: usize>(list: &[&str]) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    let mut word = 0;
    while word < list.len() {
        let bytes = list[word].as_bytes();
        out[at] = bytes.len() as u8;
        let mut index = 0;
        while index < bytes.len() {
            out[at + 8 + index] = bytes[index];
            index += 1;
        }
        at += encoded_len(bytes.len());
        word += 1;
    }
    assert!(at == N, "the array has to fit its words");
    out
}

/// The beginning of an archive.
pub(crate) const START: [u8; 24] = words(&[MAGIC]);
/// The beginning of a file, up to the length of its contents.
pub(crate) const FILE: [u8; 64] = words(&["(", "type", "regular", "contents"]);
/// The beginning of an executable file, up to the length of its contents.
pub(crate) const EXECUTABLE: [u8; 96] = words(&["(", "type", "regular", "executable", "", "contents"]);
/// The beginning of a symbolic link, up to its target.
pub(crate) const SYMLINK: [u8; 64] = words(&["(", "type", "symlink", "target"]);
/// The beginning of a directory, up to its first entry or its end.
pub(crate) const DIRECTORY: [u8; 56] = words(&["(", "type", "directory"]);
/// The beginning of a directory entry, up to its name.
pub(crate) const ENTRY: [u8; 48] = words(&["entry", "(", "name"]);
/// What stands between the name of an entry and its node.
pub(crate) const NODE: [u8; 16] = words(&["node"]);
/// The end of a node or of an entry.
pub(crate) const CLOSE: [u8; 16] = words(&[")"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_padded_to_eight() {
        for (length, expected) in [
            (0, 0),
            (1, 7),
            (7, 1),
            (8, 0),
            (9, 7),
            (u64::MAX, 1),
            (u64::MAX - 7, 0),
        ] {
            assert_eq!(padding(length), expected, "{length}");
        }
        assert_eq!(
            (encoded_len(0), encoded_len(1), encoded_len(8), encoded_len(9)),
            (8, 16, 16, 24)
        );
    }

    #[test]
    fn words_are_rendered_as_strings() {
        assert_eq!(START, *b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0");
        assert_eq!(CLOSE, *b"\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0");
        assert_eq!(
            EXECUTABLE[48..80],
            *b"\x0a\0\0\0\0\0\0\0executable\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    }
}
