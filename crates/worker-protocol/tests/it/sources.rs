// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sources and helpers that the tests share.

use std::io::{self, Read};

use superpose_store_path::{StoreDir, StorePath};
use superpose_worker_protocol::{Dialect, Feature, Features, Limits, Version, WireReader, WireWriter};

/// A source that gives one byte at a time, and between any two says that it was interrupted.
pub(crate) struct Trickle<'a> {
    pub(crate) bytes: &'a [u8],
    is_interrupted: bool,
}

impl<'a> Trickle<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            is_interrupted: false,
        }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let wanted = buffer.len().min(1);
        self.bytes.read(&mut buffer[..wanted])
    }
}

/// A source that counts: how many bytes were taken, and how many were wanted at once at most. What is wanted at once was
/// allocated before.
pub(crate) struct Counting<R> {
    pub(crate) input: R,
    pub(crate) taken: u64,
    pub(crate) largest: usize,
}

impl<R: Read> Counting<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            taken: 0,
            largest: 0,
        }
    }
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.largest = self.largest.max(buffer.len());
        let read = self.input.read(buffer)?;
        self.taken += read as u64;
        Ok(read)
    }
}

/// A reader of bytes with the narrower limits.
pub(crate) fn reader(bytes: &[u8]) -> WireReader<&[u8]> {
    WireReader::new(bytes, Limits::for_requests())
}

/// What is written.
pub(crate) fn written(
    write: impl FnOnce(&mut WireWriter<Vec<u8>>) -> superpose_worker_protocol::Result<()>,
) -> Vec<u8> {
    let mut out = WireWriter::new(Vec::new());
    write(&mut out).unwrap();
    out.into_inner()
}

/// The dialect of a version without features.
pub(crate) fn version(minor: u8) -> Dialect {
    Dialect {
        version: Version::new(1, minor),
        ..Dialect::default()
    }
}

/// The current dialect with one feature.
pub(crate) fn with(feature: Feature) -> Dialect {
    Dialect {
        features: Features::NONE.with(feature),
        ..Dialect::default()
    }
}

/// A path of `/nix/store`.
pub(crate) fn path(base: &str) -> StorePath {
    StoreDir::default()
        .parse_path(format!("/nix/store/{base}").as_bytes())
        .unwrap()
}
