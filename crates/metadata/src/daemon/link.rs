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

    /// Sends what goes without waiting, before something is read. What goes wrong is seen when it is.
    pub(super) fn begin(&mut self) {
        if let Err(error) = self.push() {
            tracing::trace!(%error, "sending to the Nix daemon");
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

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

    use super::*;

    fn narrow_pair() -> (Link, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        for socket in [&near, &far] {
            set_socket_send_buffer_size(socket, 1).unwrap();
            set_socket_recv_buffer_size(socket, 1).unwrap();
        }
        near.set_nonblocking(true).unwrap();
        (Link::new(Arc::new(near), Duration::from_secs(60)), far)
    }

    /// Whoever wrote all of it first, or in a turn of its own, would never come to the first reply.
    #[test]
    fn what_goes_out_never_waits_for_what_comes_in() {
        const QUESTIONS: usize = 1000;
        const ANSWER: usize = 10_000;
        let (mut link, mut far) = narrow_pair();
        let peer = thread::spawn(move || {
            for number in 0..QUESTIONS {
                let mut question = [0; 1000];
                far.read_exact(&mut question).unwrap();
                assert_eq!(question, [u8::try_from(number % 256).unwrap(); 1000]);
                // Nothing more is read before all of it is taken.
                far.write_all(&[question[0]; ANSWER]).unwrap();
            }
        });
        for half in [0..QUESTIONS / 2, QUESTIONS / 2..QUESTIONS] {
            let questions = half.flat_map(|number| [u8::try_from(number % 256).unwrap(); 1000]);
            link.queue(questions.collect());
        }
        let mut answers = vec![0; QUESTIONS * ANSWER];
        link.read_exact(&mut answers).unwrap();
        peer.join().unwrap();
        assert_eq!(
            answers[answers.len() - 1],
            u8::try_from((QUESTIONS - 1) % 256).unwrap()
        );
    }

    /// Until all of it has come nothing is answered, so nothing but room to write can be waited for.
    #[test]
    fn everything_goes_out_before_anything_comes_in() {
        const LENGTH: usize = 1 << 20;
        let (mut link, mut far) = narrow_pair();
        link.limit = Duration::from_secs(5);
        let peer = thread::spawn(move || {
            far.read_exact(&mut vec![0; LENGTH]).unwrap();
            far.write_all(b"all").unwrap();
        });
        link.queue(vec![0; LENGTH]);
        let mut answer = [0; 3];
        link.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"all");
        peer.join().unwrap();
    }

    #[test]
    fn last_words_are_heard_though_nobody_listens() {
        let (mut link, mut far) = narrow_pair();
        far.write_all(b"no").unwrap();
        drop(far);
        link.queue(vec![0; 1 << 20]);
        let mut said = Vec::new();
        // What was never read on the other side makes the kernel say that the connection was reset.
        match link.read_to_end(&mut said) {
            Ok(_) => {}
            Err(error) => assert!(has_gone(&error), "{error}"),
        }
        assert_eq!(said, b"no");
    }

    #[test]
    fn silence_ends() {
        let (mut link, _far) = narrow_pair();
        link.limit = Duration::from_millis(20);
        assert_eq!(link.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
