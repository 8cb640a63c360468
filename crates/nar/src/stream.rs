// SPDX-License-Identifier: MIT OR Apache-2.0
//! The buffer in which an archive is put together.

use std::io::{self, Write};

use crate::format::padding;

/// Below this, what is left of the buffer is not worth a read of its own while a large file is copied, in bytes.
const SMALL: usize = 16 * 1024;

/// Where full buffers go.
pub(crate) trait Drain {
    /// Takes the first `filled` bytes of the buffer, and leaves a buffer of the same size in its place.
    fn drain(&mut self, buffer: &mut Box<[u8]>, filled: usize) -> io::Result<()>;

    /// Takes the rest; nothing follows.
    fn drain_last(&mut self, mut buffer: Box<[u8]>, filled: usize) -> io::Result<()> {
        self.drain(&mut buffer, filled)
    }
}

/// Passes buffers on to a writer.
pub(crate) struct WriteDrain<W>(pub(crate) W);

impl<W: Write> Drain for WriteDrain<W> {
    fn drain(&mut self, buffer: &mut Box<[u8]>, filled: usize) -> io::Result<()> {
        self.0.write_all(&buffer[..filled])
    }
}

/// Gathers keywords and contents in a buffer; contents are read straight into it.
pub(crate) struct Stream<D> {
    buffer: Box<[u8]>,
    filled: usize,
    /// How many bytes went before what the buffer holds.
    drained: u64,
    drain: D,
}

impl<D: Drain> Stream<D> {
    pub(crate) fn new(size: usize, drain: D) -> Self {
        Self {
            buffer: vec![0; size].into_boxed_slice(),
            filled: 0,
            drained: 0,
            drain,
        }
    }

    /// How many bytes have been put in.
    pub(crate) fn offset(&self) -> u64 {
        self.drained + self.filled as u64
    }

    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.filled == self.buffer.len() {
                self.drain()?;
            }
            let room = &mut self.buffer[self.filled..];
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    pub(crate) fn put_number(&mut self, number: u64) -> io::Result<()> {
        self.put(&number.to_le_bytes())
    }

    pub(crate) fn put_padding(&mut self, length: u64) -> io::Result<()> {
        self.put(&[0; 8][..padding(length)])
    }

    pub(crate) fn put_string(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put_number(bytes.len() as u64)?;
        self.put(bytes)?;
        self.put_padding(bytes.len() as u64)
    }

    /// Lends room for up to `wanted` bytes, never empty; [`Stream::advance`] says how many of them were filled.
    pub(crate) fn room(&mut self, wanted: u64) -> io::Result<&mut [u8]> {
        let left = self.buffer.len() - self.filled;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if left < wanted.min(SMALL) || left == 0 {
            self.drain()?;
        }
        let end = self.filled.saturating_add(wanted.max(1)).min(self.buffer.len());
        Ok(&mut self.buffer[self.filled..end])
    }

    pub(crate) fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn drain(&mut self) -> io::Result<()> {
        self.drained += self.filled as u64;
        let filled = std::mem::take(&mut self.filled);
        self.drain.drain(&mut self.buffer, filled)
    }

    /// Drains what is left; gives back the drain and the size of the whole stream.
    pub(crate) fn finish(mut self) -> io::Result<(D, u64)> {
        let size = self.offset();
        if self.filled > 0 {
            self.drain.drain_last(self.buffer, self.filled)?;
        }
        Ok((self.drain, size))
    }
}
