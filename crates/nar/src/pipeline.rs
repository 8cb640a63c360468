// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashing on a thread of its own, beside the reading and writing of files.
//!
//! The archive is put together in large buffers; a full one goes to the hashing thread, and an empty one comes back.
//! Small files therefore cost no hand-over of their own, and an object that fits one buffer starts no thread at all.

use std::fmt;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use crate::error::Result;
use crate::format::{EXECUTABLE, FILE, START};
use crate::hashing::{Meter, NarHash};
use crate::path::Trail;
use crate::stream::{Drain, Stream};

/// Size of one buffer in bytes: large enough that hand-overs do not count, small enough for a second-level cache.
pub(crate) const BUFFER: usize = 256 * 1024;

/// How many full buffers may wait, so that neither side stops for a short pause of the other.
const WAITING: usize = 6;

/// Further receivers of an archive while it is being hashed: other hashes, a [`crate::ReferenceScanner`], a file.
///
/// They are written to on the hashing thread, in order, in pieces of any size. What they receive is what was read: the
/// same bytes that are hashed, and, when copying, written.
#[derive(Default)]
pub struct Taps<'a> {
    archive: Vec<&'a mut (dyn Write + Send)>,
    contents: Vec<&'a mut (dyn Write + Send)>,
}

impl<'a> Taps<'a> {
    /// No further receivers.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            archive: Vec::new(),
            contents: Vec::new(),
        }
    }

    /// Adds a receiver of the whole archive.
    #[must_use]
    pub fn archive(mut self, tap: &'a mut (dyn Write + Send)) -> Self {
        self.archive.push(tap);
        self
    }

    /// Adds a receiver of the bare contents of an object that is a regular file. It receives nothing of an object of
    /// another kind; the caller tells by [`crate::TreeStats::kind`].
    #[must_use]
    pub fn contents(mut self, tap: &'a mut (dyn Write + Send)) -> Self {
        self.contents.push(tap);
        self
    }
}

impl fmt::Debug for Taps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taps")
            .field("archive", &self.archive.len())
            .field("contents", &self.contents.len())
            .finish()
    }
}

/// What is done to each piece of the archive.
struct Consumer<'a> {
    meter: Meter,
    taps: Taps<'a>,
    /// Where in the archive the contents of a lone file begin and end.
    contents: (u64, u64),
    offset: u64,
}

impl<'a> Consumer<'a> {
    fn new(taps: Taps<'a>) -> Self {
        Self {
            meter: Meter::new(),
            taps,
            contents: (0, 0),
            offset: 0,
        }
    }

    fn consume(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.offset == 0 {
            self.contents = lone_contents(bytes);
        }
        self.meter.update(bytes);
        for tap in &mut self.taps.archive {
            tap.write_all(bytes)?;
        }
        let end = self.offset + bytes.len() as u64;
        let (from, to) = (self.contents.0.max(self.offset), self.contents.1.min(end));
        if from < to {
            // Both are within `bytes`, so the differences fit.
            let contents = &bytes[(from - self.offset) as usize..(to - self.offset) as usize];
            for tap in &mut self.taps.contents {
                tap.write_all(contents)?;
            }
        }
        self.offset = end;
        Ok(())
    }
}

/// Where the contents are, if an archive that begins so holds a lone file. The first buffer always holds the whole head.
fn lone_contents(head: &[u8]) -> (u64, u64) {
    let Some(node) = head.strip_prefix(&START) else {
        return (0, 0);
    };
    let rest = node
        .strip_prefix(&FILE)
        .or_else(|| node.strip_prefix(&EXECUTABLE));
    let Some((size, contents)) = rest.and_then(<[u8]>::split_first_chunk) else {
        return (0, 0);
    };
    let start = (head.len() - contents.len()) as u64;
    (start, start.saturating_add(u64::from_le_bytes(*size)))
}

struct Full {
    buffer: Box<[u8]>,
    filled: usize,
}

struct Worker<'scope> {
    full: SyncSender<Full>,
    empty: Receiver<Box<[u8]>>,
    /// Buffers made so far, up to the number that can be on their way at once.
    made: usize,
    handle: ScopedJoinHandle<'scope, io::Result<NarHash>>,
}

enum Side<'scope, 'env> {
    /// Nothing has been handed over; the thread starts with the first full buffer.
    Waiting(Consumer<'env>),
    Running(Worker<'scope>),
    /// No thread could be had: hashing happens in between.
    Alone(Consumer<'env>),
    Failed,
}

/// Hands buffers to the hashing thread.
pub(crate) struct Pipeline<'scope, 'env: 'scope> {
    scope: &'scope Scope<'scope, 'env>,
    side: Side<'scope, 'env>,
}

impl<'scope, 'env> Pipeline<'scope, 'env> {
    fn start(&self, consumer: Consumer<'env>) -> Side<'scope, 'env> {
        let (full, incoming) = sync_channel::<Full>(WAITING);
        let (outgoing, empty) = sync_channel(WAITING + 2);
        // The consumer travels by channel, so that it is still here when no thread can be started.
        let (hire, hired) = sync_channel::<Consumer<'env>>(1);
        let work = move || {
            let Ok(mut consumer) = hired.recv() else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            for Full { buffer, filled } in incoming {
                consumer.consume(&buffer[..filled])?;
                // Towards the end nobody takes the empty buffers any more.
                if outgoing.try_send(buffer).is_err() {
                    continue;
                }
            }
            Ok(consumer.meter.finish())
        };
        match Builder::new()
            .name("nar-hash".into())
            .spawn_scoped(self.scope, work)
        {
            Ok(handle) => {
                if let Err(refused) = hire.send(consumer) {
                    return Side::Alone(refused.0);
                }
                Side::Running(Worker {
                    full,
                    empty,
                    made: 1,
                    handle,
                })
            }
            Err(_) => Side::Alone(consumer),
        }
    }

    fn finish(self) -> io::Result<NarHash> {
        match self.side {
            Side::Waiting(consumer) | Side::Alone(consumer) => Ok(consumer.meter.finish()),
            Side::Running(worker) => worker.finish(),
            Side::Failed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Worker<'_> {
    fn finish(self) -> io::Result<NarHash> {
        drop(self.full);
        self.handle.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Exchanges a full buffer for an empty one; false when the thread has ended early.
    fn exchange(&mut self, buffer: &mut Box<[u8]>, filled: usize) -> bool {
        let spare = if let Ok(empty) = self.empty.try_recv() {
            empty
        } else if self.made < WAITING + 2 {
            self.made += 1;
            vec![0; buffer.len()].into_boxed_slice()
        } else if let Ok(empty) = self.empty.recv() {
            empty
        } else {
            return false;
        };
        let full = Full {
            buffer: std::mem::replace(buffer, spare),
            filled,
        };
        self.full.send(full).is_ok()
    }
}

impl Drain for Pipeline<'_, '_> {
    fn drain(&mut self, buffer: &mut Box<[u8]>, filled: usize) -> io::Result<()> {
        self.side = match std::mem::replace(&mut self.side, Side::Failed) {
            Side::Waiting(consumer) => self.start(consumer),
            side => side,
        };
        match &mut self.side {
            Side::Waiting(consumer) | Side::Alone(consumer) => consumer.consume(&buffer[..filled]),
            Side::Running(worker) => {
                if worker.exchange(buffer, filled) {
                    return Ok(());
                }
                // The thread ends early only when a tap failed; its result says how.
                match std::mem::replace(&mut self.side, Side::Failed) {
                    Side::Running(worker) => worker.finish().and(Err(io::ErrorKind::BrokenPipe.into())),
                    _ => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
            Side::Failed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn drain_last(&mut self, mut buffer: Box<[u8]>, filled: usize) -> io::Result<()> {
        if let Side::Waiting(consumer) = &mut self.side {
            // Everything fits one buffer: a thread would only cost time.
            return consumer.consume(&buffer[..filled]);
        }
        self.drain(&mut buffer, filled)
    }
}

/// Runs something that writes an archive, and hashes the archive meanwhile.
///
/// `name` is the object, for errors of the taps.
pub(crate) fn hashed<'env, T>(
    name: &[u8],
    taps: Taps<'env>,
    body: impl for<'scope> FnOnce(Stream<Pipeline<'scope, 'env>>) -> Result<(T, Stream<Pipeline<'scope, 'env>>)>,
) -> Result<(T, NarHash)> {
    scope(|scope| {
        let pipeline = Pipeline {
            scope,
            side: Side::Waiting(Consumer::new(taps)),
        };
        let (value, stream) = body(Stream::new(BUFFER, pipeline))?;
        let hash = stream
            .finish()
            .and_then(|(pipeline, _)| pipeline.finish())
            .map_err(|source| crate::Error::Write {
                path: Trail::new(name).to_path(),
                source,
            })?;
        Ok((value, hash))
    })
}
