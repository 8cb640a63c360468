// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store of a daemon, as a client has it: objects are brought from it and to it.
//!
//! Questions and archives are pipelined: many requests are on their way before the first reply is read. Nothing here holds
//! more than a batch of them in memory.

mod connection;
mod error;
mod patience;
mod pull;
mod push;
mod socket;

use std::path::PathBuf;
use std::time::Duration;

use superpose_overlay::metadata::PathInfo;
use superpose_overlay::store_path::{StoreDir, StorePath};
use superpose_worker_protocol::{Done, Request, Trust, UnkeyedValidPathInfo};

pub(crate) use connection::Connection;
pub use error::{Error, Result};
pub(crate) use superpose_worker_protocol::plain;

/// How long a daemon may be silent, as with questions: five minutes.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// How many requests are sent in one burst.
const BURST: usize = 4096;

/// A connection to the daemon of a store.
#[derive(Debug)]
pub struct Remote {
    connection: Connection,
    options: RemoteOptions,
}

/// Which daemon it is, and how long it is waited for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// The socket that it listens on. The path may be longer than an address can be.
    pub socket: PathBuf,
    /// The logical store directory.
    pub store_dir: StoreDir,
    /// How long it may neither say nor take anything while something is due. It may have to wait for a lock, or write much at
    /// once.
    pub silence_limit: Duration,
}

impl RemoteOptions {
    /// The daemon that listens on a socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, store_dir: StoreDir) -> Self {
        Self {
            socket: socket.into(),
            store_dir,
            silence_limit: SILENCE_LIMIT,
        }
    }
}

impl Remote {
    /// Connects to a daemon, and introduces itself.
    ///
    /// # Errors
    /// If nobody listens, or whoever does is no Nix daemon, or wants no client.
    pub fn connect(options: RemoteOptions) -> Result<Self> {
        Ok(Remote {
            connection: Connection::to_socket(
                &options.socket,
                options.store_dir.clone(),
                options.silence_limit,
            )?,
            options,
        })
    }

    /// Whether the daemon trusts this client.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.connection.trust()
    }

    /// Protects paths there for as long as the connection lasts. They need not be valid.
    fn protect(&mut self, paths: &[StorePath]) -> Result<()> {
        for paths in paths.chunks(BURST) {
            let requests: Vec<Request> = paths.iter().cloned().map(Request::AddTempRoot).collect();
            for answer in self.connection.burst::<Done>(&requests)? {
                answer.map_err(|report| self.connection.said(&report))?;
            }
        }
        Ok(())
    }

    /// Tells which paths are valid there, in the order of the question.
    ///
    /// # Errors
    /// If the daemon fails, or the connection does.
    pub fn are_valid(&mut self, paths: &[StorePath]) -> Result<Vec<bool>> {
        let mut valid = Vec::with_capacity(paths.len());
        for paths in paths.chunks(BURST) {
            let answer = self.connection.ask(&Request::QueryValidPaths {
                paths: paths.iter().cloned().collect(),
                substitute: false,
            })?;
            let found: std::collections::BTreeSet<StorePath> = answer;
            valid.extend(paths.iter().map(|path| found.contains(path)));
        }
        Ok(valid)
    }

    /// Says what is known there of paths, in the order of the question; `None` of those that are not valid.
    ///
    /// # Errors
    /// If the daemon fails, or the connection does.
    pub fn path_infos(&mut self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        let mut infos = Vec::with_capacity(paths.len());
        for paths in paths.chunks(BURST) {
            let requests: Vec<Request> = paths.iter().cloned().map(Request::QueryPathInfo).collect();
            let answers = self.connection.burst::<Option<UnkeyedValidPathInfo>>(&requests)?;
            for (path, answer) in paths.iter().zip(answers) {
                infos.push(match answer {
                    Ok(info) => info.map(|info| PathInfo::from_wire(path.clone(), info)),
                    // Daemons of some releases answer so for every path that is not valid.
                    Err(report) if plain(&report.message).contains("is not valid") => None,
                    Err(report) => return Err(self.connection.said(&report)),
                });
            }
        }
        Ok(infos)
    }
}
