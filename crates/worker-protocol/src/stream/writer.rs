// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing a framed stream.

use std::io::{self, Write};
use std::ops::ControlFlow;

use crate::codec::WireWriter;
use crate::error::{Error, Result};

/// Size of a frame in bytes: stock clients send from a few to some tens of KiB.
const FRAME: usize = 64 << 10;

/// Why a stream took no more: what looks for an early answer of the server found one.
///
/// It is inside the [`io::Error`] that [`FramedWriter`] answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server answered before the upload was complete")]
pub struct UploadStopped;

/// Writes bytes as a framed stream.
///
/// Small writes are gathered into frames of 64 KiB. Before each frame the hook is asked: a client lets it look whether the
/// server has said something already, which during an upload can only be an error. Then it stops, ends the stream, and the
/// connection stays usable.
///
/// [`FramedWriter::finish`] has to follow in any case; without it the server waits for ever.
#[derive(Debug)]
#[must_use = "a stream that is not finished leaves the server waiting"]
pub struct FramedWriter<'a, W, H = fn() -> io::Result<ControlFlow<()>>> {
    out: &'a mut WireWriter<W>,
    hook: H,
    buffer: Vec<u8>,
    is_stopped: bool,
}

impl<'a, W: Write> FramedWriter<'a, W> {
    /// Prepares to write a stream without looking for an early answer.
    pub fn new(out: &'a mut WireWriter<W>) -> Self {
        Self::with_hook(out, || Ok(ControlFlow::Continue(())))
    }
}

impl<'a, W: Write, H: FnMut() -> io::Result<ControlFlow<()>>> FramedWriter<'a, W, H> {
    /// Prepares to write a stream; `hook` is asked before each frame but the last, which is empty.
    pub fn with_hook(out: &'a mut WireWriter<W>, hook: H) -> Self {
        Self {
            out,
            hook,
            buffer: Vec::with_capacity(FRAME),
            is_stopped: false,
        }
    }

    /// Tells whether the hook stopped the stream.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Ends the stream, and passes on what the receiver holds back. If the hook stopped the stream, or does so now, what
    /// was not sent is left out: the server does not want it.
    ///
    /// # Errors
    /// If the receiver or the hook fails.
    pub fn finish(mut self) -> Result<()> {
        match self.send_buffer() {
            Err(error) if !self.is_stopped => return Err(Error::Write { source: error }),
            _ => {}
        }
        self.out.number(0)?;
        self.out.flush()
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let sent = if buffer.is_empty() {
            Ok(())
        } else {
            self.send(&buffer)
        };
        self.buffer = buffer;
        self.buffer.clear();
        sent
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if (self.hook)()?.is_break() {
            self.is_stopped = true;
            return Err(io::Error::other(UploadStopped));
        }
        let out = self.out.get_mut();
        out.write_all(&(frame.len() as u64).to_le_bytes())?;
        out.write_all(frame)
    }
}

impl<W: Write, H: FnMut() -> io::Result<ControlFlow<()>>> Write for FramedWriter<'_, W, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_stopped {
            return Err(io::Error::other(UploadStopped));
        }
        if self.buffer.is_empty() && bytes.len() >= FRAME {
            self.send(&bytes[..FRAME])?;
            return Ok(FRAME);
        }
        let taken = bytes.len().min(FRAME - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == FRAME {
            self.send_buffer()?;
        }
        Ok(taken)
    }

    /// Sends what was gathered as a frame of its own.
    fn flush(&mut self) -> io::Result<()> {
        self.send_buffer()?;
        self.out.get_mut().flush()
    }
}
