// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adapters that hash and count what passes through them.

use std::fmt;
use std::io::{self, Read, Write};

use superpose_store_path::{Hash, HashAlgorithm, Hasher};

/// The SHA-256 of an archive, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarHash {
    /// The SHA-256 of all bytes of the archive.
    pub hash: Hash,
    /// The size of the archive in bytes.
    pub size: u64,
}

/// SHA-256 and size of a stream so far.
pub(crate) struct Meter {
    hasher: Hasher,
    size: u64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            hasher: Hasher::new(HashAlgorithm::Sha256),
            size: 0,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(crate) fn finish(self) -> NarHash {
        NarHash {
            hash: self.hasher.finish(),
            size: self.size,
        }
    }
}

/// A writer that hashes (SHA-256) and counts everything it passes on to another writer.
///
/// Over [`io::sink`] it is the way to hash an archive on the calling thread alone.
pub struct HashingWriter<W> {
    inner: W,
    meter: Meter,
}

impl<W> HashingWriter<W> {
    /// Wraps a writer; nothing is hashed yet.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            meter: Meter::new(),
        }
    }

    /// How many bytes have passed.
    pub const fn size(&self) -> u64 {
        self.meter.size
    }

    /// Gives back the writer, and the hash and number of the bytes it accepted.
    pub fn finish(self) -> (W, NarHash) {
        (self.inner, self.meter.finish())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let accepted = self.inner.write(bytes)?;
        self.meter.update(bytes.get(..accepted).unwrap_or(bytes));
        Ok(accepted)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: fmt::Debug> fmt::Debug for HashingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingWriter")
            .field("inner", &self.inner)
            .field("size", &self.meter.size)
            .finish()
    }
}

/// A reader that hashes (SHA-256) and counts everything that is read through it.
///
/// As [`crate::Reader`] never reads beyond the end of an archive, the result is the hash of the archive even when
/// other bytes follow it in the source.
pub struct HashingReader<R> {
    inner: R,
    meter: Meter,
}

impl<R> HashingReader<R> {
    /// Wraps a reader; nothing is hashed yet.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            meter: Meter::new(),
        }
    }

    /// How many bytes have passed.
    pub const fn size(&self) -> u64 {
        self.meter.size
    }

    /// Gives back the reader, and the hash and number of the bytes that were read.
    pub fn finish(self) -> (R, NarHash) {
        (self.inner, self.meter.finish())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<R: fmt::Debug> fmt::Debug for HashingReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingReader")
            .field("inner", &self.inner)
            .field("size", &self.meter.size)
            .finish()
    }
}

/// A writer that counts the bytes it passes on to another writer.
#[derive(Debug, Clone, Default)]
pub struct CountingWriter<W> {
    inner: W,
    size: u64,
}

impl<W> CountingWriter<W> {
    /// Wraps a writer; nothing is counted yet.
    pub const fn new(inner: W) -> Self {
        Self { inner, size: 0 }
    }

    /// How many bytes the writer has accepted.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Gives back the writer.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let accepted = self.inner.write(bytes)?;
        self.size += accepted as u64;
        Ok(accepted)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use superpose_store_path::hash_bytes;

    /// Accepts three bytes at a time.
    #[derive(Default)]
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_accepted_bytes_are_hashed_and_counted() {
        let mut hashing = HashingWriter::new(CountingWriter::new(Slow::default()));
        hashing.write_all(b"hello, world").unwrap();
        assert_eq!(hashing.size(), 12);
        let (counting, found) = hashing.finish();
        assert_eq!(counting.size(), 12);
        assert_eq!(counting.into_inner().0, b"hello, world");
        assert_eq!(
            found,
            NarHash {
                hash: hash_bytes(HashAlgorithm::Sha256, b"hello, world"),
                size: 12
            }
        );
    }

    #[test]
    fn a_reader_hashes_what_is_read_and_no_more() {
        let mut hashing = HashingReader::new(&b"hello, world"[..]);
        let mut head = [0; 5];
        hashing.read_exact(&mut head).unwrap();
        let (rest, found) = hashing.finish();
        assert_eq!(rest, b", world");
        assert_eq!(
            found,
            NarHash {
                hash: hash_bytes(HashAlgorithm::Sha256, b"hello"),
                size: 5
            }
        );
    }
}
