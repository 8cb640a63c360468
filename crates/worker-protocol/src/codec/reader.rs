// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading primitives.

use std::io::{self, Read};

use superpose_store_path::{StoreDir, StorePath};

use super::padding;
use crate::error::{Error, Result, excerpt};
use crate::limits::Limits;

/// Most bytes by which a string grows at once: what is announced costs nothing before it arrives.
const STEP: usize = 64 << 10;

/// Reads the primitives of the protocol from anything, within [`Limits`].
///
/// It reads exactly what it returns, in many small pieces: around a socket belongs a [`std::io::BufReader`], inside.
/// `what` names the field in errors.
#[derive(Debug)]
pub struct WireReader<R> {
    input: R,
    limits: Limits,
    /// How many bytes the current message may still have.
    left: u64,
    /// Keeps the memory of short strings, which are parsed where they lie.
    scratch: Vec<u8>,
}

impl<R: Read> WireReader<R> {
    /// Prepares to read; nothing is read yet.
    pub fn new(input: R, limits: Limits) -> Self {
        Self {
            input,
            limits,
            left: limits.message,
            scratch: Vec::new(),
        }
    }

    /// Returns the source: for raw bytes between messages, and to look whether more is there.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// Returns the source: for raw bytes between messages.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Gives back the source. It stands right behind what was read.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Returns the limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins to count anew towards [`Limits::message`]. What reads whole messages does it itself.
    pub fn begin_message(&mut self) {
        self.left = self.limits.message;
    }

    /// Reads a number.
    ///
    /// # Errors
    /// If the source fails or ends, or the message is too long.
    pub fn number(&mut self, what: &'static str) -> Result<u64> {
        self.charge(8)?;
        self.raw_word(what)
    }

    /// Reads a number, or finds that the source ends before it: `None`.
    ///
    /// # Errors
    /// If the source fails, or ends within the number.
    pub fn number_or_end(&mut self, what: &'static str) -> Result<Option<u64>> {
        let mut bytes = [0; 8];
        match self.fill_what_is_there(what, &mut bytes)? {
            0 => Ok(None),
            8 => {
                self.charge(8)?;
                Ok(Some(u64::from_le_bytes(bytes)))
            }
            _ => Err(Error::UnexpectedEnd { what }),
        }
    }

    /// Reads a signed number: two's complement.
    ///
    /// # Errors
    /// As [`WireReader::number`].
    pub fn signed(&mut self, what: &'static str) -> Result<i64> {
        self.number(what).map(u64::cast_signed)
    }

    /// Reads a truth: anything but zero is true.
    ///
    /// # Errors
    /// As [`WireReader::number`].
    pub fn flag(&mut self, what: &'static str) -> Result<bool> {
        Ok(self.number(what)? != 0)
    }

    /// Reads a string of at most [`Limits::word`] bytes. It is lent: nothing is allocated once the largest has come.
    ///
    /// # Errors
    /// As [`WireReader::number`]; if the string is too long, or its padding is not zero.
    pub fn word(&mut self, what: &'static str) -> Result<&[u8]> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = self.string_into(what, self.limits.word, &mut scratch);
        self.scratch = scratch;
        read?;
        Ok(&self.scratch)
    }

    /// Reads a string of at most [`Limits::text`] bytes.
    ///
    /// # Errors
    /// As [`WireReader::word`].
    pub fn text(&mut self, what: &'static str) -> Result<Vec<u8>> {
        self.string(what, self.limits.text)
    }

    /// Reads a string of at most [`Limits::content`] bytes.
    ///
    /// # Errors
    /// As [`WireReader::word`].
    pub fn content(&mut self, what: &'static str) -> Result<Vec<u8>> {
        self.string(what, self.limits.content)
    }

    /// Reads a string of at most `limit` bytes.
    pub(crate) fn string(&mut self, what: &'static str, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.string_into(what, limit, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the count of a list, set or map: at most [`Limits::elements`]. Do not reserve memory by it.
    ///
    /// # Errors
    /// As [`WireReader::number`]; if it is too high.
    pub fn count(&mut self, what: &'static str) -> Result<usize> {
        self.count_up_to(what, self.limits.elements)
    }

    /// Reads a count of at most `limit`.
    pub(crate) fn count_up_to(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let found = self.number(what)?;
        match usize::try_from(found) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(Error::TooLong {
                what,
                limit: limit as u64,
                found,
            }),
        }
    }

    /// Reads a store path, in full.
    ///
    /// # Errors
    /// As [`WireReader::word`]; if it is not a path of that store directory.
    pub fn store_path(&mut self, what: &'static str, store_dir: &StoreDir) -> Result<StorePath> {
        let text = self.word(what)?;
        store_dir
            .parse_path(text)
            .map_err(|source| Error::Malformed { what, source })
    }

    /// Reads a store path, in full, or an empty string.
    ///
    /// # Errors
    /// As [`WireReader::store_path`].
    pub fn optional_store_path(
        &mut self,
        what: &'static str,
        store_dir: &StoreDir,
    ) -> Result<Option<StorePath>> {
        let text = self.word(what)?;
        if text.is_empty() {
            return Ok(None);
        }
        let path = store_dir.parse_path(text);
        path.map(Some).map_err(|source| Error::Malformed { what, source })
    }

    /// Reads a number that is one of few; `None` of `choose` is none of them.
    pub(crate) fn choice<T>(
        &mut self,
        what: &'static str,
        expected: &'static str,
        choose: impl FnOnce(u64) -> Option<T>,
    ) -> Result<T> {
        let number = self.number(what)?;
        choose(number).ok_or_else(|| Error::Value {
            what,
            expected,
            found: number.to_string(),
        })
    }

    /// Reads a short string and parses it.
    pub(crate) fn parsed<T>(
        &mut self,
        what: &'static str,
        parse: impl FnOnce(&[u8]) -> superpose_store_path::Result<T>,
    ) -> Result<T> {
        parse(self.word(what)?).map_err(|source| Error::Malformed { what, source })
    }

    /// Reads bytes up to the end of the source or of `buffer`, and tells how many.
    pub(crate) fn fill_what_is_there(&mut self, what: &'static str, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(what, source)),
            }
        }
        Ok(filled)
    }

    /// Reads a number that belongs to no message: the length of a frame.
    pub(crate) fn raw_word(&mut self, what: &'static str) -> Result<u64> {
        let mut bytes = [0; 8];
        self.exactly(what, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn string_into(&mut self, what: &'static str, limit: usize, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        let found = self.number(what)?;
        let length = match usize::try_from(found) {
            Ok(length) if length <= limit => length,
            _ => {
                return Err(Error::TooLong {
                    what,
                    limit: limit as u64,
                    found,
                });
            }
        };
        let padded = length + padding(length);
        self.charge(padded as u64)?;
        while bytes.len() < padded {
            let start = bytes.len();
            bytes.resize(padded.min(start + STEP), 0);
            self.exactly(what, &mut bytes[start..])?;
        }
        if bytes[length..].iter().any(|&byte| byte != 0) {
            return Err(Error::Padding { what });
        }
        bytes.truncate(length);
        Ok(())
    }

    fn exactly(&mut self, what: &'static str, buffer: &mut [u8]) -> Result<()> {
        self.input
            .read_exact(buffer)
            .map_err(|source| failed(what, source))
    }

    fn charge(&mut self, bytes: u64) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::TooLong {
                what: "the message",
                limit: self.limits.message,
                found: self.limits.message - self.left + bytes,
            }),
        }
    }
}

/// What a failure of the source means. One of this crate's own errors may come out of a framed stream.
pub(crate) fn failed(what: &'static str, source: io::Error) -> Error {
    match source.downcast::<Error>() {
        Ok(error) => error,
        Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Error::UnexpectedEnd { what },
        Err(source) => Error::Read { what, source },
    }
}

/// An error about a field that was read.
pub(crate) fn bad_value(what: &'static str, expected: &'static str, found: &[u8]) -> Error {
    Error::Value {
        what,
        expected,
        found: excerpt(found),
    }
}
