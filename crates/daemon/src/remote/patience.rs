// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two directions of a connection to a daemon, and how long both may stand still.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// How often whoever waits looks at the clock, if the limit is not shorter.
const TICK: Duration = Duration::from_secs(1);

/// When something went through last, in either direction. Who sends much hears nothing meanwhile, and a daemon that takes
/// what it is sent is not silent.
#[derive(Debug)]
struct Clock {
    begun: Instant,
    /// Milliseconds from the beginning to the last sign of life.
    last: AtomicU64,
    limit: Duration,
}

impl Clock {
    fn moved(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(elapsed, Ordering::Relaxed);
    }

    /// Whether somebody who waits since `since` has waited long enough.
    fn is_over(&self, since: Instant) -> bool {
        let last = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed));
        last.max(since).elapsed() >= self.limit
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Half {
    file: File,
    /// None if what is asked may take as long as it takes.
    clock: Option<Arc<Clock>>,
    /// Whether both sides still introduce themselves: somebody who is no daemon and went away may have said what he is.
    greets: bool,
}

impl Half {
    /// Both directions of a socket, of which there are two handles.
    pub(super) fn pair(input: OwnedFd, out: OwnedFd, limit: Option<Duration>) -> io::Result<(Self, Self)> {
        let clock = limit.map(|limit| {
            Arc::new(Clock {
                begun: Instant::now(),
                last: AtomicU64::new(0),
                limit,
            })
        });
        if let Some(limit) = limit {
            let tick = TICK.min(limit).max(Duration::from_millis(1));
            set_socket_timeout(&input, Timeout::Recv, Some(tick))?;
            set_socket_timeout(&out, Timeout::Send, Some(tick))?;
        }
        let half = |fd: OwnedFd| Half {
            file: File::from(fd),
            clock: clock.clone(),
            greets: true,
        };
        Ok((half(input), half(out)))
    }

    /// Both sides know each other: what cannot be sent from now on is an error.
    pub(super) fn end_greeting(&mut self) {
        self.greets = false;
    }

    /// Tries until something went through, or both directions have stood still for too long.
    fn persist(&mut self, mut attempt: impl FnMut(&mut File) -> io::Result<usize>) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            let result = attempt(&mut self.file);
            let Some(clock) = &self.clock else {
                return result;
            };
            match result {
                Ok(count) => {
                    clock.moved();
                    return Ok(count);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if clock.is_over(since) => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
        }
    }
}

impl AsFd for Half {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.persist(|file| file.read(buffer))
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.persist(|file| file.write(bytes)) {
            Err(error) if self.greets && error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn halves(limit: Duration) -> ((Half, Half), UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let out = ours.try_clone().unwrap();
        let halves = Half::pair(ours.into(), out.into(), Some(limit)).unwrap();
        (halves, theirs)
    }

    #[test]
    fn who_neither_sends_nor_takes_anything_is_given_up() {
        let ((mut input, mut out), _theirs) = halves(Duration::from_millis(50));
        let error = input.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = io::copy(&mut io::repeat(1), &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// An upload takes longer than anybody may be silent, and whoever listens hears nothing all the while.
    #[test]
    fn who_takes_what_is_sent_is_not_silent() {
        let limit = Duration::from_secs(2);
        let ((mut input, mut out), mut theirs) = halves(limit);
        std::thread::scope(|scope| {
            let listener = scope.spawn(move || input.read(&mut [0]));
            scope.spawn(move || {
                for _ in 0..12 {
                    theirs.read_exact(&mut [0]).unwrap();
                }
                theirs.write_all(&[1]).unwrap();
            });
            for _ in 0..12 {
                std::thread::sleep(limit / 8);
                out.write_all(&[0]).unwrap();
            }
            assert_eq!(listener.join().unwrap().unwrap(), 1);
        });
    }
}
