// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections are taken, counted, and ended.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use superpose_overlay::{Layout, OpenOptions};
use superpose_worker_protocol::Trust;

use crate::budget::Budget;
use crate::connection;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::options::{MAX_CONNECTIONS, ServeOptions};
use crate::peer::{self, Accounts, Peer};
use crate::pool::{self, Pool};
use crate::refusal::Refused;
use crate::socket::Socket;

/// How much stack the thread of a connection may use. Only what is used is ever there.
const STACK: usize = 2 << 20;

/// How many bytes of what a client uploads are held in memory, for each client. More goes to the disk as it comes.
const UPLOAD_MEMORY: usize = 2 << 20;
/// Bytes that answers that nobody has asked for yet may hold, all clients together. What is below 256 KiB is not counted.
const AHEAD: u64 = 16 << 20;

/// How often opened stores that nobody uses are looked for while there are some.
const TIDY: Duration = Duration::from_secs(1);

/// How long requests have to end after their connections were cut. One that waits for a lock of another process, or for a busy
/// database, does not see the cut, and would keep the server for as long as that process likes.
const AFTER_CUT: Duration = Duration::from_secs(10);

/// How long to wait when the system has no descriptor or thread for one more connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// What the threads of all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: ServeOptions,
    pub(crate) pool: Pool,
    pub(crate) budget: Arc<Budget>,
    /// Answers that nobody has asked for yet.
    pub(crate) ahead: Arc<Budget>,
    /// No further requests are taken.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Requests in work have to end too.
    pub(crate) is_cut: AtomicBool,
    accounts: Accounts,
    connections: Mutex<Connections>,
    /// Wakes the loop: something has ended, or everything has to.
    wake: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, (Arc<Link>, u32)>,
}

/// A server of one store.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

/// Ends a server from another thread.
#[derive(Debug, Clone)]
pub struct StopHandle {
    shared: Arc<Shared>,
}

impl StopHandle {
    /// Ends the server: idle connections are closed, requests in work end first.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl Shared {
    fn wake(&self) {
        pool::wake(&self.wake);
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Prepares to serve a store. It is opened once, so that a store that cannot be served is found out now.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub fn new(layout: Layout, mut open: OpenOptions, mut options: ServeOptions) -> Result<Self> {
        open.arriving_memory = open.arriving_memory.min(UPLOAD_MEMORY);
        options.max_connections = options.max_connections.clamp(1, MAX_CONNECTIONS);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::io("make", "an event descriptor", error))?;
        let wake = Arc::new(wake);
        let shared = Shared {
            pool: Pool::new(layout, open, options.access, Arc::clone(&wake)),
            budget: Budget::new(options.large_messages),
            ahead: Budget::new(AHEAD),
            stopping: Arc::default(),
            is_cut: AtomicBool::new(false),
            accounts: Accounts::default(),
            connections: Mutex::default(),
            wake,
            options,
        };
        shared.pool.share_among(0);
        shared.pool.ask(|_| Ok(()))?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns what ends the server.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Tells how many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections().open.len()
    }

    /// Serves until it is stopped, and until the last request in work has ended, or has had its time: what is cut and does not
    /// end within some seconds is left to its thread. With the process it ends as if it were killed, which every store survives.
    ///
    /// # Errors
    /// If the sockets cannot be waited for.
    pub fn run(&self, sockets: &[Socket]) -> Result<()> {
        let mut refused = Refused::default();
        while !self.shared.stopping.load(Ordering::SeqCst) {
            // The next client waits in the socket's queue until one of these goes.
            let is_full = self.connections() >= self.shared.options.max_connections;
            let has_idle = self.shared.pool.close_idle();
            refused.tidy();
            let limit = (has_idle || !refused.is_empty()).then_some(TIDY);
            let ready = self.wait(if is_full { &[] } else { sockets }, limit)?;
            for socket in ready {
                self.take(socket, &mut refused)?;
            }
        }
        self.finish()
    }

    /// Waits for a client, for the end of something, or so long.
    fn wait<'s>(&self, sockets: &'s [Socket], limit: Option<Duration>) -> Result<Vec<&'s Socket>> {
        let mut fds = vec![PollFd::new(self.shared.wake.as_ref(), PollFlags::IN)];
        fds.extend(sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let limit = limit.map(|limit| Timespec {
            // Seconds, not years.
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("wait at", "the socket", error)),
        }
        let ready = fds[1..]
            .iter()
            .map(|fd| !fd.revents().is_empty())
            .collect::<Vec<_>>();
        drop(fds);
        // Whatever woke us is looked at now.
        rustix::io::read(&self.shared.wake, &mut [0; 8]).ok();
        let ready = sockets.iter().zip(ready).filter(|(_, ready)| *ready);
        Ok(ready.map(|(socket, _)| socket).collect())
    }

    /// Takes one client from a socket.
    fn take(&self, socket: &Socket, refused: &mut Refused) -> Result<()> {
        let accepted = match accept_with(socket, SocketFlags::CLOEXEC) {
            Ok(accepted) => accepted,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => {
                tracing::warn!(%error, "cannot take one more connection");
                thread::sleep(SHORTAGE);
                return Ok(());
            }
            Err(error) => return Err(Error::io("accept a connection at", "the socket", error)),
        };
        let peer = Peer::of(&accepted)?;
        let Some(trust) = peer::standing(&self.shared.options, peer, &self.shared.accounts) else {
            refused.tell(
                accepted,
                "you are not allowed to connect: see `--allowed-users` of the server",
            );
            return Ok(());
        };
        if trust != Trust::Trusted && self.count_of(peer.uid) >= self.shared.options.share() {
            refused.tell(
                accepted,
                "you have too many connections already: close some, or wait",
            );
            return Ok(());
        }
        self.start(accepted, peer, trust)
    }

    fn count_of(&self, uid: u32) -> usize {
        let connections = self.shared.connections();
        connections
            .open
            .values()
            .filter(|(_, owner)| *owner == uid)
            .count()
    }

    /// Gives a connection a thread of its own.
    fn start(&self, accepted: OwnedFd, peer: Peer, trust: Trust) -> Result<()> {
        let options = &self.shared.options;
        let link = Link::new(accepted, options.tick(), options.stall_limit)
            .map_err(|error| Error::io("set up", "a connection", error))?;
        let link = Arc::new(link);
        let slot = Slot::take(&self.shared, &link, peer);
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .name(format!("client {}", slot.number))
            .stack_size(STACK)
            .spawn(move || {
                let ended = connection::serve(&shared, &link, trust);
                if let Err(error) = ended {
                    tracing::info!(
                        uid = peer.uid,
                        error = &error as &dyn StdError,
                        "a connection ended early"
                    );
                }
                // Nothing that is held back may hold up its end.
                link.cut();
                drop(slot);
            });
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start a thread for one more connection");
            thread::sleep(SHORTAGE);
        }
        Ok(())
    }

    /// Closes what is idle, waits for what is in work, and ends it when it takes too long.
    fn finish(&self) -> Result<()> {
        let deadline = Instant::now() + self.shared.options.grace;
        let mut end = None;
        for (link, _) in self.shared.connections().open.values() {
            link.close_if_idle();
        }
        while self.connections() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && !self.shared.is_cut.swap(true, Ordering::SeqCst) {
                tracing::warn!("requests in work take too long: their connections are cut");
                for (link, _) in self.shared.connections().open.values() {
                    link.cut();
                }
                end = Some(Instant::now() + AFTER_CUT);
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                let requests = self.connections();
                tracing::warn!(
                    requests,
                    "requests that were cut do not end, as when they wait for a lock of another process: they are left"
                );
                break;
            }
            self.wait(&[], Some(left.min(TIDY).max(SHORTAGE)))?;
        }
        Ok(())
    }
}

/// The place of one connection among the others.
#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    number: u64,
}

impl Slot {
    fn take(shared: &Arc<Shared>, link: &Arc<Link>, peer: Peer) -> Self {
        let mut connections = shared.connections();
        connections.next += 1;
        let number = connections.next;
        connections.open.insert(number, (Arc::clone(link), peer.uid));
        shared.pool.share_among(connections.open.len());
        drop(connections);
        Self {
            shared: Arc::clone(shared),
            number,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        connections.open.remove(&self.number);
        self.shared.pool.share_among(connections.open.len());
        drop(connections);
        self.shared.wake();
    }
}
