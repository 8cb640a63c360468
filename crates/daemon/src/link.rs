// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket of a connection as all its users share it, and whether it may be closed.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendFlags, Shutdown, send, shutdown};

/// Nothing is asked: the connection may be closed at any time.
const IDLE: u8 = 0;
/// A request is in work.
const BUSY: u8 = 1;
/// It was idle when the server was stopped.
const CLOSING: u8 = 2;

/// The socket of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    state: AtomicU8,
    stall_limit: Duration,
}

impl Link {
    /// Takes a socket. Whatever waits at it wakes up every `tick` to look at the clock.
    pub(crate) fn new(socket: OwnedFd, tick: Duration, stall_limit: Duration) -> io::Result<Self> {
        set_socket_timeout(&socket, Timeout::Recv, Some(tick))?;
        set_socket_timeout(&socket, Timeout::Send, Some(tick))?;
        Ok(Self {
            socket,
            state: AtomicU8::new(IDLE),
            stall_limit,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next byte would begin a request.
    pub(crate) fn rest(&self) {
        self.state
            .compare_exchange(BUSY, IDLE, Ordering::SeqCst, Ordering::SeqCst)
            .ok();
    }

    /// A request begins; `false` if the server was stopped before.
    pub(crate) fn begin(&self) -> bool {
        self.state
            .compare_exchange(IDLE, BUSY, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Ends the connection unless a request is in work.
    pub(crate) fn close_if_idle(&self) {
        let was_idle = self
            .state
            .compare_exchange(IDLE, CLOSING, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if was_idle {
            // It fails only when the other side has gone already.
            shutdown(&self.socket, Shutdown::Read).ok();
        }
    }

    /// Ends the connection whatever is in work.
    pub(crate) fn cut(&self) {
        shutdown(&self.socket, Shutdown::Both).ok();
    }

    /// Whether the client has gone altogether. One that only has nothing more to ask still waits for answers.
    pub(crate) fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Whether most of what the socket holds for the client was taken.
    pub(crate) fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Sends some bytes, and waits as long as the client may take.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if begun.elapsed() < self.stall_limit => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
