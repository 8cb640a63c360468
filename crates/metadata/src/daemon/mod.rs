// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store of a Nix daemon, asked over its socket.
//!
//! A batch is one burst: all its requests go out while the replies come in, on one thread and at any size of the
//! socket's buffers ([`link`]). So a batch costs one round trip, and a closure as many as it has levels.
//!
//! What the daemon is asked is listed in `source.rs`. It is never asked for anything that changes its store: no temporary
//! root, no substitution.

mod connection;
mod link;
mod options;
mod socket;
mod source;
mod walk;
mod wire;

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use superpose_store_path::StorePath;
use superpose_worker_protocol::{Body, Cause, GcRoot, Request};

use self::connection::{Answer, Broken, Connection, burst};
pub use self::options::OpenDaemon;
use self::socket::Absent;
use crate::Result;

/// How long a daemon that was there a moment ago is waited for: longer than one takes to start anew.
const RESTART_LIMIT: Duration = Duration::from_secs(2);

/// From how many questions on a batch is worth more than one connection.
const SPREAD_FROM: usize = 512;

/// Most connections at once, whatever is wanted.
const MAX_CONNECTIONS: usize = 16;

/// What a Nix daemon says of its store: 2.26 to 2.36, from protocol version 1.18 on, and everything that speaks like one.
///
/// The connection is made by the first question and kept. If it breaks before everything is answered, as when the daemon is
/// started anew, the rest of the questions is asked again on a new one: once in a batch, never twice.
///
/// # Limitations
/// A closure is walked level by level, and the daemon has no transactions: what changes meanwhile is seen as it changes.
/// Listing all paths holds them in memory, since the daemon sends them in one piece. A daemon does not say which realisations
/// lead to a path, and those of Nix 2.35 and newer (`BuildTrace`) have a form of their own that is not asked for.
pub struct DaemonSource {
    options: OpenDaemon,
    /// Connections that nobody is using.
    idle: Cell<Vec<Connection>>,
}

impl fmt::Debug for DaemonSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonSource")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What holds of a path as the daemon tells it: a root, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonRoot {
    /// Where it is: the path of a link, or something in braces.
    pub link: Vec<u8>,
    /// What it keeps.
    pub path: StorePath,
}

impl DaemonSource {
    /// Prepares to ask a daemon. Nothing is connected yet.
    #[must_use]
    pub fn new(options: OpenDaemon) -> Self {
        Self {
            options,
            idle: Cell::default(),
        }
    }

    /// Connects, unless there is a connection that was not found to be broken: to find out whether anybody answers.
    ///
    /// # Errors
    /// If the daemon cannot be reached, or is none.
    pub fn connect(&self) -> Result<()> {
        let connections = self.connections(1)?;
        self.idle.set(connections);
        Ok(())
    }

    /// Returns the roots that the daemon knows of.
    ///
    /// # Errors
    /// If the daemon cannot be asked.
    pub fn roots(&self) -> Result<Vec<DaemonRoot>> {
        let roots: Vec<GcRoot> = self.ask_one(Request::FindRoots, "the roots")?;
        Ok(roots
            .into_iter()
            .map(|root| DaemonRoot {
                link: root.link,
                path: root.path,
            })
            .collect())
    }

    /// Takes the idle connections, and makes more if there are fewer than wanted. One is enough.
    fn connections(&self, wanted: usize) -> Result<Vec<Connection>> {
        let mut connections = self.idle.take();
        while connections.len() < wanted {
            match Connection::open(&self.options, Absent::Refused) {
                Ok(connection) => connections.push(connection),
                Err(error) if connections.is_empty() => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "no further connection to the Nix daemon");
                    break;
                }
            }
        }
        Ok(connections)
    }

    /// Asks many questions in one burst; the answers are in the order of the questions.
    fn ask<T: Body>(&self, requests: &[Request]) -> Result<Vec<Answer<T>>> {
        let mut answers = Vec::with_capacity(requests.len());
        if requests.is_empty() {
            return Ok(answers);
        }
        let wanted = if requests.len() < SPREAD_FROM {
            1
        } else {
            self.options.connections.clamp(1, MAX_CONNECTIONS)
        };
        let mut connections = self.connections(wanted)?;
        let used = wanted.min(connections.len());
        if let Err(error) = burst(&mut connections[..used], requests, &mut answers) {
            if !is_worth_repeating(&error) {
                return Err(self.options.broken(error));
            }
            tracing::debug!(%error, answered = answers.len(), "connecting to the Nix daemon again");
            // Those that were answered are not asked again: nothing may come twice.
            let rest = &requests[answers.len()..];
            connections = vec![Connection::open(&self.options, Absent::Awaited(RESTART_LIMIT))?];
            burst(&mut connections, rest, &mut answers).map_err(|error| self.options.broken(error))?;
        }
        self.idle.set(connections);
        Ok(answers)
    }

    /// Asks one question that has no other answer than its reply.
    fn ask_one<T: Body>(&self, request: Request, what: &str) -> Result<T> {
        let answer = self.ask(&[request])?.into_iter().next();
        answer
            .expect("every question has an answer")
            .map_err(|report| self.options.refused(what.to_owned(), &report))
    }

    /// Asks many questions of which none may fail.
    fn ask_all<T: Body>(&self, requests: &[Request], name: impl Fn(usize) -> String) -> Result<Vec<T>> {
        let answers = self.ask(requests)?.into_iter().enumerate();
        answers
            .map(|(number, answer)| answer.map_err(|report| self.options.refused(name(number), &report)))
            .collect()
    }
}

/// Whether another connection may do better: this one ended, and nobody was only slow.
fn is_worth_repeating(error: &Broken) -> bool {
    error.cause() == Cause::Transport && error.io_kind() != Some(ErrorKind::TimedOut)
}
