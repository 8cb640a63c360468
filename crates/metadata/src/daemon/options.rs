// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which daemon is asked, and how long it is waited for.

use std::path::PathBuf;
use std::time::Duration;

use superpose_store_path::StoreDir;
use superpose_worker_protocol::{RemoteError, plain};

use super::connection::Broken;
use crate::Error;

/// How long a daemon that has no room for another client is waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a daemon may be silent over a question. It may have to wait for a database that is busy.
const REPLY_LIMIT: Duration = Duration::from_secs(300);

/// How a daemon's store is to be opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenDaemon {
    /// The socket that the daemon listens on. The path may be longer than an address can be.
    pub socket: PathBuf,
    /// The logical store directory.
    pub store_dir: StoreDir,
    /// How many connections a large batch is spread over; at least one. A daemon serves each by a process of its own.
    pub connections: usize,
    /// How long a daemon that has no room for another client is waited for.
    pub connect_limit: Duration,
    /// How long nothing may come from the daemon, nor be taken by it, while an answer is due.
    pub reply_limit: Duration,
}

impl OpenDaemon {
    /// Asks the daemon that listens on a socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, store_dir: StoreDir) -> Self {
        Self {
            socket: socket.into(),
            store_dir,
            connections: 1,
            connect_limit: CONNECT_LIMIT,
            reply_limit: REPLY_LIMIT,
        }
    }

    /// Makes the error of a connection that broke.
    pub(super) fn broken(&self, error: Broken) -> Error {
        if error.io_kind() == Some(std::io::ErrorKind::TimedOut) {
            return Error::DaemonSilent {
                socket: self.socket.clone(),
                waited: self.reply_limit,
            };
        }
        Error::Daemon {
            socket: self.socket.clone(),
            source: Box::new(error),
        }
    }

    /// Makes the error of a question that the daemon answers with one.
    pub(super) fn refused(&self, question: String, report: &RemoteError) -> Error {
        Error::DaemonReport {
            socket: self.socket.clone(),
            question,
            found: plain(&report.message),
        }
    }
}
