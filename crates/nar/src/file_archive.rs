// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archive of a file that is not there as a file: of bytes in memory, or of a stream of known length.

use std::io::{self, Read};

use crate::format::{CLOSE, EXECUTABLE, FILE, START, padding};

/// Reads as the archive of a regular file with the given contents.
///
/// Objects whose path follows from their bare contents (text, and flat fixed outputs) are made this way: the mode of
/// the file that the contents came from does not matter. And it gives an open file the hash that names it in a farm of
/// hard links.
pub struct FileArchive<R> {
    head: io::Cursor<Vec<u8>>,
    contents: io::Take<R>,
    missing: u64,
    tail: io::Cursor<Vec<u8>>,
}

impl<R: Read> FileArchive<R> {
    /// Wraps contents of exactly `size` bytes, of a file that is not executable; more are not read, fewer are an error.
    pub fn new(contents: R, size: u64) -> Self {
        Self::of_node(&FILE, contents, size)
    }

    /// The same for a file that is executable.
    pub fn executable(contents: R, size: u64) -> Self {
        Self::of_node(&EXECUTABLE, contents, size)
    }

    fn of_node(node: &[u8], contents: R, size: u64) -> Self {
        let head = [&START[..], node, &size.to_le_bytes()].concat();
        let tail = [&[0; 8][..padding(size)], &CLOSE].concat();
        FileArchive {
            head: io::Cursor::new(head),
            contents: contents.take(size),
            missing: size,
            tail: io::Cursor::new(tail),
        }
    }
}

impl<R: Read> Read for FileArchive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.head.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        if self.missing > 0 {
            let read = self.contents.read(buffer)?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!(
                        "the contents ended {} bytes before the announced size",
                        self.missing
                    ),
                ));
            }
            self.missing -= read as u64;
            return Ok(read);
        }
        self.tail.read(buffer)
    }
}

impl<R> std::fmt::Debug for FileArchive<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileArchive")
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use superpose_store_path::{HashAlgorithm, HashEncoding, hash_bytes};

    #[test]
    fn gives_the_archive_of_a_file() {
        let mut archive = Vec::new();
        let size = FileArchive::new(&b"abc"[..], 3)
            .read_to_end(&mut archive)
            .expect("memory can be read");
        assert_eq!(size, 120);
        assert_eq!(
            hash_bytes(HashAlgorithm::Sha256, &archive).render_bare(HashEncoding::Base16),
            "11a71b4754d812f4aea20161c533bdaa112ac5c853013e65d3aa9640b5735230"
        );
        let mut executable = Vec::new();
        FileArchive::executable(&b"abc"[..], 3)
            .read_to_end(&mut executable)
            .expect("memory can be read");
        assert_eq!(
            hash_bytes(HashAlgorithm::Sha256, &executable).render_bare(HashEncoding::Base16),
            "04583e14eca2499ffa993852389e3a193aab5da20abc3b625a75d3f9876dc99e"
        );
        let mut empty = Vec::new();
        assert_eq!(
            FileArchive::new(io::empty(), 0)
                .read_to_end(&mut empty)
                .expect("memory can be read"),
            112
        );
    }

    #[test]
    fn contents_that_are_too_short_are_an_error_and_longer_ones_are_cut() {
        let mut archive = Vec::new();
        assert!(FileArchive::new(&b"ab"[..], 3).read_to_end(&mut archive).is_err());
        archive.clear();
        FileArchive::new(&b"abcd"[..], 3)
            .read_to_end(&mut archive)
            .expect("memory can be read");
        assert_eq!(archive.len(), 120);
    }
}
