// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a framed stream.

use std::io::{self, Read};

use crate::codec::{WireReader, failed};
use crate::error::{Error, Result};

/// Size of the pieces in which a stream is drained, in bytes.
const DRAIN: usize = 16 << 10;

/// Reads the bytes of a framed stream, up to the frame of length zero that ends it.
///
/// Nothing is held or allocated: bytes go straight from the source to where they are wanted, whatever length a frame
/// claims. Whatever happens to the bytes, the stream has to be read to its end before the connection can be used again:
/// [`FramedReader::drain`].
///
/// An [`Error`] that comes up in [`Read::read`] is inside the [`io::Error`].
#[derive(Debug)]
#[must_use = "a stream that is not read to its end leaves the connection out of step"]
pub struct FramedReader<'a, R> {
    input: &'a mut WireReader<R>,
    /// How much of the current frame is left.
    left: u32,
    is_finished: bool,
}

impl<'a, R: Read> FramedReader<'a, R> {
    const WHAT: &'static str = "a framed stream";

    /// Prepares to read the stream that comes next.
    pub fn new(input: &'a mut WireReader<R>) -> Self {
        Self {
            input,
            left: 0,
            is_finished: false,
        }
    }

    /// Tells whether the end of the stream has been read.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Reads and forgets what is left of the stream, and tells how many bytes that was.
    ///
    /// # Errors
    /// If the source fails or ends, or a frame is longer than any can be.
    pub fn drain(&mut self) -> Result<u64> {
        let mut buffer = [0; DRAIN];
        let mut drained = 0;
        loop {
            match self.read_some(&mut buffer)? {
                0 => return Ok(drained),
                read => drained += read as u64,
            }
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() || self.is_finished {
            return Ok(0);
        }
        if self.left == 0 {
            let length = self.input.raw_word("the length of a frame")?;
            self.left = u32::try_from(length).map_err(|_| Error::TooLong {
                what: "a frame",
                limit: u32::MAX.into(),
                found: length,
            })?;
            if self.left == 0 {
                self.is_finished = true;
                return Ok(0);
            }
        }
        let wanted = buffer.len().min(self.left as usize);
        let read = read_some(self.input.get_mut(), &mut buffer[..wanted], Self::WHAT)?;
        // No more than was left of a number of 32 bits.
        self.left -= read as u32;
        Ok(read)
    }
}

impl<R: Read> Read for FramedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(into_io)
    }
}

/// Reads at least one byte into a buffer that has room.
pub(super) fn read_some(input: &mut impl Read, buffer: &mut [u8], what: &'static str) -> Result<usize> {
    let read = loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other.map_err(|source| failed(what, source))?,
        }
    };
    if read == 0 {
        return Err(Error::UnexpectedEnd { what });
    }
    Ok(read)
}

/// Puts an error into one of the standard library, for [`failed`] to take out again.
pub(super) fn into_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::UnexpectedEnd { .. } => io::ErrorKind::UnexpectedEof,
        Error::Read { source, .. } | Error::Write { source } => source.kind(),
        Error::Amount { .. } => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
