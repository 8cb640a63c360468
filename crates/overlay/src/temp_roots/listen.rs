// SPDX-License-Identifier: MIT OR Apache-2.0
//! The collector's ear: a socket through which temporary roots come while it runs.
//!
//! A client sends full store paths, one line each, and waits for one byte after each of them; a line that is no path of
//! this store gets its byte too. A root that has its byte is in force. The collector decides what goes, and hands the list
//! over ([`Listener::seal`]); from then on a root in the list gets its byte only when the object is out of the way
//! ([`Listener::let_go`]), so that its sender finds it gone, and not half of it there.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::SendFlags;
use superpose_store_path::{HashPart, MAX_BASE_NAME_LEN, StoreDir};

use super::records::SLACK;
use super::{ACKNOWLEDGED, socket_path};
use crate::error::{Error, Result};
use crate::gc_lock::CollectorLock;
use crate::state_dir::{GC_SOCKET, GC_SOCKET_NAME, StateDir};

/// Everybody who may use the store may hand over roots, as with Nix.
const SOCKET_MODE: Mode = Mode::from_raw_mode(0o666);

/// Clients that are listened to at once; others wait in the queue of the socket. A process may have 1,024 files open.
const MAX_CLIENTS: usize = 500;

/// Roots that are kept in mind, at 40 bytes each. Nobody has so many; who sends more is hung up on, and waits for the
/// collection to end.
const MAX_ROOTS: usize = 4_000_000;

/// Pause when a client cannot be accepted, because too many files are open for example.
const PAUSE: Duration = Duration::from_millis(100);

/// A collector that listens. When it is dropped, clients that have no answer find that it is gone, and then its lock is
/// free.
///
/// It has the lock so that nobody can get the order wrong: whoever still listened when the next collector has begun
/// would answer for that one, which never hears of the root.
#[derive(Debug)]
pub(crate) struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _lock: CollectorLock,
}

/// What the listening thread and the collector both know.
#[derive(Debug)]
struct Shared {
    store_dir: StoreDir,
    /// Written to when the thread has to look at the rest.
    wake: OwnedFd,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The hash parts of all roots, in the order in which they came, each once.
    roots: Vec<HashPart>,
    seen: HashSet<HashPart>,
    /// What is being removed right now, sorted.
    going: Vec<HashPart>,
    is_over: bool,
}

/// What is to be done about a root.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Answer,
    /// It is being removed.
    Wait,
    HangUp,
}

impl Listener {
    /// Begins to listen, with the collector's lock: nobody else has the socket.
    ///
    /// # Errors
    /// If the socket cannot be made. To collect all the same would let everybody who adds something wait to the end.
    pub(crate) fn start(lock: CollectorLock, state: &StateDir, store_dir: &StoreDir) -> Result<Self> {
        let fail = |error: io::Error| Error::io("listen on", state.path().join(GC_SOCKET), error);
        let directory = state.create_gc_socket_directory()?;
        // What an earlier collector left. Nobody listens there: we have its lock.
        match rustix::fs::unlinkat(directory.fd(), GC_SOCKET_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(fail(error.into())),
        }
        let listener = UnixListener::bind(socket_path(state)).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        rustix::fs::chmodat(directory.fd(), GC_SOCKET_NAME, SOCKET_MODE, AtFlags::empty())
            .map_err(|error| fail(error.into()))?;
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| fail(error.into()))?;
        let shared = Arc::new(Shared {
            store_dir: store_dir.clone(),
            wake,
            heard: Mutex::default(),
        });
        let ear = Ear {
            shared: Arc::clone(&shared),
            listener,
            clients: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("temporary roots".to_owned())
            .spawn(move || ear.listen())
            .map_err(fail)?;
        Ok(Self {
            shared,
            thread: Some(thread),
            _lock: lock,
        })
    }

    /// The hash parts of the roots that came, but for the first `known`.
    pub(crate) fn heard_since(&self, known: usize) -> Vec<HashPart> {
        self.shared.heard().roots[known..].to_vec()
    }

    /// Hands over what is going to be removed, unless a root in it came after the first `known`: then false, and the
    /// collector has to decide anew.
    #[must_use = "what is false has to be decided anew"]
    pub(crate) fn seal(&self, known: usize, mut going: Vec<HashPart>) -> bool {
        going.sort_unstable();
        let mut heard = self.shared.heard();
        let is_kept = |part: &HashPart| going.binary_search(part).is_ok();
        if heard.roots[known..].iter().any(is_kept) {
            return false;
        }
        heard.going = going;
        true
    }

    /// What was being removed is out of the way.
    pub(crate) fn let_go(&self) {
        self.shared.heard().going = Vec::new();
        self.shared.wake();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.heard().is_over = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that listened for temporary roots panicked");
        }
    }
}

impl Shared {
    /// What is behind the lock is whole at every moment, also when a thread that had it panicked.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when it was woken 2^64 times already.
        if let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            tracing::debug!(%error, "the listening thread is awake already");
        }
    }

    /// Takes note of a line.
    fn hear(&self, line: &[u8]) -> Verdict {
        let Ok(path) = self.store_dir.parse_path(line) else {
            return Verdict::Answer;
        };
        let part = path.hash_part();
        let mut heard = self.heard();
        if !heard.seen.contains(&part) {
            if heard.roots.len() >= MAX_ROOTS {
                return Verdict::HangUp;
            }
            heard.seen.insert(part);
            heard.roots.push(part);
        }
        if heard.going.binary_search(&part).is_ok() {
            Verdict::Wait
        } else {
            Verdict::Answer
        }
    }
}

/// The thread that listens.
struct Ear {
    shared: Arc<Shared>,
    listener: UnixListener,
    clients: Vec<Client>,
}

/// Somebody who hands over roots.
struct Client {
    stream: UnixStream,
    /// What was received and not understood yet.
    received: Vec<u8>,
    /// Whether the beginning of the present line was dropped, because no path is so long.
    is_too_long: bool,
    /// Answers that are not sent yet.
    owed: usize,
    /// Whether the next line is a root that is being removed.
    waits: bool,
    is_gone: bool,
}

impl Ear {
    fn listen(mut self) {
        loop {
            let ready = match self.poll() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::warn!(%error, "cannot wait for temporary roots");
                    thread::sleep(PAUSE);
                    Vec::new()
                }
            };
            // Taken out before the state is looked at: what is set later wakes again.
            rustix::io::read(&self.shared.wake, &mut [0; 8]).ok();
            if self.shared.heard().is_over {
                return;
            }
            for (client, events) in self.clients.iter_mut().zip(ready) {
                client.serve(&self.shared, events);
            }
            self.clients.retain(|client| !client.is_gone);
            self.accept();
        }
    }

    /// Waits until there is something to do, and says what of each client.
    fn poll(&self) -> io::Result<Vec<PollFlags>> {
        let mut files = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        if self.clients.len() < MAX_CLIENTS {
            files.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let others = files.len();
        for client in &self.clients {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, !client.waits && client.owed == 0);
            events.set(PollFlags::OUT, client.owed > 0);
            files.push(PollFd::new(&client.stream, events));
        }
        rustix::io::retry_on_intr(|| poll(&mut files, None))?;
        Ok(files[others..].iter().map(PollFd::revents).collect())
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => match stream.set_nonblocking(true) {
                    Ok(()) => self.clients.push(Client::new(stream)),
                    Err(error) => tracing::debug!(%error, "cannot listen to a client"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a client");
                    thread::sleep(PAUSE);
                    return;
                }
            }
        }
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            is_too_long: false,
            owed: 0,
            waits: false,
            is_gone: false,
        }
    }

    fn serve(&mut self, shared: &Shared, events: PollFlags) {
        if events.intersects(PollFlags::IN) {
            self.receive();
        } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.is_gone = true;
        }
        self.understand(shared);
        self.answer();
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_gone = true,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) => self.failed(&error),
        }
    }

    /// Takes note of all whole lines, up to one that has to wait.
    fn understand(&mut self, shared: &Shared) {
        let mut rest = 0;
        self.waits = false;
        while let Some(end) = self.received[rest..].iter().position(|&byte| byte == b'\n') {
            let line = &self.received[rest..rest + end];
            let verdict = if self.is_too_long {
                Verdict::Answer
            } else {
                shared.hear(line)
            };
            match verdict {
                Verdict::Answer => {
                    self.owed += 1;
                    self.is_too_long = false;
                    rest += end + 1;
                }
                Verdict::Wait => {
                    self.waits = true;
                    break;
                }
                Verdict::HangUp => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        self.received.drain(..rest);
        let longest = shared.store_dir.as_str().len() + 1 + MAX_BASE_NAME_LEN + SLACK;
        if !self.waits && self.received.len() > longest {
            self.received.clear();
            self.is_too_long = true;
        }
    }

    fn answer(&mut self) {
        while self.owed > 0 && !self.is_gone {
            let answers = vec![ACKNOWLEDGED; self.owed];
            match rustix::net::send(self.stream.as_fd(), &answers, SendFlags::NOSIGNAL) {
                Ok(count) => self.owed -= count,
                Err(Errno::WOULDBLOCK) => return,
                Err(error) => self.failed(&error.into()),
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
        ) {
            self.is_gone = true;
        }
    }
}
