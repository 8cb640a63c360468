// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both directions of a socket at once, on one thread: while a reply is waited for, requests go out.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The reading end of a connection, which also holds what is still to be sent.
///
/// A burst of requests may be larger than what the socket and the daemon hold, and its replies, too: whoever only wrote
/// would wait for a daemon that waits for its replies to be read. So neither direction is ever waited for alone.
#[derive(Debug)]
pub(super) struct Link {
    stream: Arc<UnixStream>,
    outgoing: Vec<u8>,
    sent: usize,
    /// How long nothing may move in either direction.
    limit: Duration,
}

impl Link {
    /// Takes over a socket that does not block.
    pub(super) fn new(stream: Arc<UnixStream>, limit: Duration) -> Self {
        Self {
            stream,
            outgoing: Vec::new(),
            sent: 0,
            limit,
        }
    }

    /// Has bytes sent behind those that wait already, while something is read.
    pub(super) fn queue(&mut self, bytes: Vec<u8>) {
        if self.sent == self.outgoing.len() {
            self.outgoing = bytes;
            self.sent = 0;
        } else {
            self.outgoing.extend(bytes);
        }
    }

    /// Sends as much as goes without waiting.
    fn push(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match (&*self.stream).write(&self.outgoing[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if has_gone(&error) => {
                    // What it said before it went is still to be read, and says why.
                    self.outgoing.clear();
                    self.sent = 0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.push()?;
            match (&*self.stream).read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut wanted = PollFlags::IN;
                    if self.sent < self.outgoing.len() {
                        wanted |= PollFlags::OUT;
                    }
                    wait(&self.stream, wanted, self.limit)?;
                }
                other => return other,
            }
        }
    }
}

/// The writing end for the handshake, in which each side waits for the other: it waits until all is sent.
#[derive(Debug)]
pub(super) struct Sender {
    stream: Arc<UnixStream>,
    limit: Duration,
}

impl Sender {
    pub(super) fn new(stream: Arc<UnixStream>, limit: Duration) -> Self {
        Self { stream, limit }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&*self.stream).write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.stream, PollFlags::OUT, self.limit)?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an error of writing means that nobody reads any more.
fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Waits until a socket is ready, or its peer is gone.
fn wait(stream: &UnixStream, wanted: PollFlags, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(stream, wanted)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
