// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two directions of a connection: what comes in within its time, and what goes out.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use superpose_worker_protocol::{WireReader, WireWriter};

use crate::budget::{Budget, Share};
use crate::link::Link;

/// Bytes that are read and written at once. Some hundred requests of one path fit.
pub(crate) const BUFFER: usize = 64 << 10;

/// What comes in, as the protocol reads it.
pub(crate) type Input = WireReader<BufReader<Incoming>>;

/// What goes out.
pub(crate) type Out = WireWriter<BufWriter<Outgoing>>;

/// What goes out, for all who have something to say: the handler of a request, and whoever tells how far it is.
#[derive(Debug, Clone)]
pub(crate) struct SharedOut(Arc<Mutex<Out>>);

impl SharedOut {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let out = BufWriter::with_capacity(BUFFER, Outgoing { link });
        Self(Arc::new(Mutex::new(WireWriter::new(out))))
    }

    /// What was written by somebody who panicked in the middle is out of step; his connection ends with his thread.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Out> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outgoing direction.
#[derive(Debug)]
pub(crate) struct Outgoing {
    link: Arc<Link>,
}

impl Outgoing {
    /// Whether something small can be sent without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.link.has_room()
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.link.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long things may take to come in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) greeting: Duration,
    pub(crate) request: Duration,
    pub(crate) stall: Duration,
}

/// What is expected to come in.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The introduction of the client.
    Greeting { until: Instant },
    /// Nothing, or the first byte of a request.
    Between,
    /// The rest of a request.
    Request { until: Instant },
    /// A stream behind a request, of which something came at that time.
    Stream { last: Instant },
}

/// The incoming direction. Whenever it has to ask the socket for more, everything that was answered goes out first: so it
/// goes out as late as possible, and never too late.
#[derive(Debug)]
pub(crate) struct Incoming {
    link: Arc<Link>,
    out: SharedOut,
    stopping: Arc<AtomicBool>,
    patience: Patience,
    phase: Phase,
    large: Share,
}

impl Incoming {
    pub(crate) fn new(
        link: Arc<Link>,
        out: SharedOut,
        stopping: Arc<AtomicBool>,
        patience: Patience,
        budget: Arc<Budget>,
    ) -> Self {
        let until = Instant::now() + patience.greeting;
        Self {
            link,
            out,
            stopping,
            patience,
            phase: Phase::Greeting { until },
            large: Share::new(budget),
        }
    }

    /// A request was read and answered. If more was sent already, the next one has begun.
    fn end_message(&mut self, more_is_there: bool) {
        self.large.give_back();
        self.phase = if more_is_there {
            Phase::Request {
                until: Instant::now() + self.patience.request,
            }
        } else {
            Phase::Between
        };
    }

    /// What comes now is a stream, which is not held in memory.
    fn begin_stream(&mut self) {
        self.phase = Phase::Stream { last: Instant::now() };
    }

    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Greeting { until } | Phase::Request { until } => Instant::now() >= until,
            Phase::Between => false,
            Phase::Stream { last } => last.elapsed() >= self.patience.stall,
        }
    }

    fn arrived(&mut self, bytes: usize) -> io::Result<()> {
        match &mut self.phase {
            Phase::Between => {
                self.phase = Phase::Request {
                    until: Instant::now() + self.patience.request,
                };
            }
            Phase::Stream { last } => {
                *last = Instant::now();
                return Ok(());
            }
            Phase::Greeting { .. } | Phase::Request { .. } => {}
        }
        if self.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.large.take(bytes as u64).map_err(io::Error::other)
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.lock().get_mut().flush()?;
        let is_between = matches!(self.phase, Phase::Between);
        if is_between {
            self.link.rest();
            if self.stopping.load(Ordering::SeqCst) {
                return Ok(0);
            }
        }
        loop {
            match rustix::io::read(self.link.fd(), &mut *buffer) {
                Ok(0) => return Ok(0),
                Ok(read) => {
                    if is_between && !self.link.begin() {
                        return Ok(0);
                    }
                    self.arrived(read)?;
                    return Ok(read);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.is_over() => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A request was read and answered.
pub(crate) fn end_message(input: &mut Input) {
    let reader = input.get_mut();
    let more_is_there = !reader.buffer().is_empty();
    reader.get_mut().end_message(more_is_there);
}

/// What comes next is a stream.
pub(crate) fn begin_stream(input: &mut Input) {
    input.get_mut().get_mut().begin_stream();
}
