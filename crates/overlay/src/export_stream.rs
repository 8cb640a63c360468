// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stream in which Nix passes objects on: `nix-store --export` and `--import`.
//!
//! All numbers are 64 bits, little endian; a string is its length, its bytes, and zeros up to a multiple of eight. For
//! each object there is the number 1, its archive, the number [`MAGIC`], its full path, how many references it has,
//! these, its deriver or an empty string, and the number 0. After the last object comes the number 0 instead of 1.
//!
//! The last number of an object may be 1: then a signature in a form that was given up long ago follows as a string,
//! which is left unread. Neither signatures of today nor content addresses are part of the stream.

use std::io::{self, Read};

use superpose_metadata::PathInfo;
use superpose_store_path::{StoreDir, StorePath};

use crate::{Error, Result};

/// What follows an archive: `NIXE`.
pub(crate) const MAGIC: u64 = 0x4558_494e;

/// No store path is longer, whatever the store directory (`PATH_MAX`), nor was any of the old signatures.
const MAX_STRING: u64 = 4096;

/// No object refers to more others than a large store has.
const MAX_REFERENCES: u64 = 1 << 20;

/// Appends what follows the archive of an object.
pub(crate) fn put_info(info: &PathInfo, store_dir: &StoreDir, out: &mut Vec<u8>) {
    put_number(MAGIC, out);
    put_string(&store_dir.join(&info.path), out);
    put_number(info.references.len() as u64, out);
    for reference in &info.references {
        put_string(&store_dir.join(reference), out);
    }
    let deriver = info.deriver.as_ref().map(|path| store_dir.join(path));
    put_string(&deriver.unwrap_or_default(), out);
    put_number(0, out);
}

/// Appends a number.
pub(crate) fn put_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    put_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
}

/// What a stream says of an object behind its archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) path: StorePath,
    /// Sorted, each once.
    pub(crate) references: Vec<StorePath>,
    pub(crate) deriver: Option<StorePath>,
}

/// Reads a stream, and knows where it is.
pub(crate) struct ExportStream<'a> {
    input: &'a mut dyn Read,
    offset: u64,
}

impl<'a> ExportStream<'a> {
    pub(crate) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, offset: 0 }
    }

    /// Whether an object follows; else the stream is at its end.
    pub(crate) fn has_object(&mut self) -> Result<bool> {
        const EXPECTED: &str = "1 before an object, or 0 at the end";
        match self.number(EXPECTED)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(8, EXPECTED, other.to_string())),
        }
    }

    /// Reads what follows an archive.
    pub(crate) fn described(&mut self, store_dir: &StoreDir) -> Result<Described> {
        const EXPECTED: &str = "the mark behind an archive";
        let mark = self.number(EXPECTED)?;
        if mark != MAGIC {
            return Err(self.wrong(8, EXPECTED, format!("{mark:#x}")));
        }
        let path = self.path(store_dir)?;
        let count = self.number("the number of references")?;
        if count > MAX_REFERENCES {
            return Err(self.wrong(8, "a number of references up to 2^20", count.to_string()));
        }
        let mut references = Vec::new();
        // Not reserved for: the stream may claim any number.
        for _ in 0..count {
            references.push(self.path(store_dir)?);
        }
        references.sort_unstable();
        references.dedup();
        let deriver = match self.string("a deriver, or nothing")? {
            text if text.is_empty() => None,
            text => Some(store_dir.parse_path(&text)?),
        };
        const SIGNATURE: &str = "0, or 1 before an old signature";
        match self.number(SIGNATURE)? {
            0 => {}
            1 => drop(self.string("an old signature")?),
            other => return Err(self.wrong(8, SIGNATURE, other.to_string())),
        }
        Ok(Described {
            path,
            references,
            deriver,
        })
    }

    fn path(&mut self, store_dir: &StoreDir) -> Result<StorePath> {
        Ok(store_dir.parse_path(&self.string("a store path")?)?)
    }

    fn number(&mut self, expected: &'static str) -> Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes, expected)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn string(&mut self, expected: &'static str) -> Result<Vec<u8>> {
        let length = self.number(expected)?;
        if length > MAX_STRING {
            return Err(self.wrong(8, expected, format!("a string of {length} bytes")));
        }
        // Bounded just now.
        let mut bytes = vec![0; length.next_multiple_of(8) as usize];
        self.fill(&mut bytes, expected)?;
        if bytes.drain(length as usize..).any(|byte| byte != 0) {
            return Err(self.wrong(8, "zeros behind a string", "other bytes".to_owned()));
        }
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], expected: &'static str) -> Result<()> {
        match self.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.wrong(0, expected, "the end of the stream".to_owned()))
            }
            Err(error) => Err(Error::io("read", "the stream of exported objects", error)),
        }
    }

    /// The error of what was read `back` bytes ago.
    fn wrong(&self, back: u64, expected: &'static str, found: String) -> Error {
        Error::ExportStream {
            offset: self.offset - back,
            expected,
            found,
        }
    }
}

impl Read for ExportStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use superpose_store_path::Hash;

    use super::*;

    fn info() -> PathInfo {
        let path = |text: &str| StorePath::from_base_name(text.as_bytes()).unwrap();
        let mut info = PathInfo::new(
            path("26nci8mz5f9aldbsgmalpkj20xyqqd5c-program"),
            Hash::sha256([1; 32]),
            8,
        );
        info.references = vec![
            path("0g1savw1cf7pji42hasyx0smc4aw15nw-library"),
            info.path.clone(),
        ];
        info.deriver = Some(path("akj8mbqjx8nzkql9142nb7103vwn0wa2-program.drv"));
        info
    }

    fn read(mut bytes: &[u8]) -> Result<Described> {
        ExportStream::new(&mut bytes).described(&StoreDir::default())
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shorter() {
        let info = info();
        let mut bytes = Vec::new();
        put_info(&info, &StoreDir::default(), &mut bytes);
        let expected = Described {
            path: info.path,
            references: info.references,
            deriver: info.deriver,
        };
        assert_eq!(read(&bytes).unwrap(), expected);
        for end in 0..bytes.len() {
            let error = read(&bytes[..end]).unwrap_err();
            assert!(matches!(error, Error::ExportStream { .. }), "{end}: {error}");
        }
        // With a signature of old.
        let end = bytes.len() - 8;
        bytes[end] = 1;
        put_string("whatever", &mut bytes);
        assert_eq!(read(&bytes).unwrap(), expected);
        bytes[end] = 2;
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn claims_are_bounded_and_padding_is_zero() {
        let mut bytes = Vec::new();
        put_info(&info(), &StoreDir::default(), &mut bytes);
        let with = |at: usize, value: u64| {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            read(&bytes).unwrap_err().to_string()
        };
        assert!(
            with(0, 7).contains("wrong at byte 0: expected the mark"),
            "{}",
            with(0, 7)
        );
        assert!(with(8, u64::MAX).contains("a string of 18446744073709551615 bytes"));
        let path_end = 16 + "/nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program".len();
        let mut padded = bytes.clone();
        padded[path_end] = 1;
        assert!(read(&padded).unwrap_err().to_string().contains("zeros"));
        assert!(with(path_end.next_multiple_of(8), u64::MAX).contains("2^20"));
    }

    #[test]
    fn only_one_and_zero_begin_an_object() {
        let check = |number: u64| ExportStream::new(&mut &number.to_le_bytes()[..]).has_object();
        assert!(check(1).unwrap());
        assert!(!check(0).unwrap());
        assert!(check(2).is_err());
        assert!(ExportStream::new(&mut &[0; 7][..]).has_object().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_stream_panics(bytes: Vec<u8>, at in 0_usize..400, byte: u8) {
            read(&bytes).ok();
            let mut changed = Vec::new();
            put_info(&info(), &StoreDir::default(), &mut changed);
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            read(&changed).ok();
        }
    }
}
