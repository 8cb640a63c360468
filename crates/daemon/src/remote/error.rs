// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong between this side and a daemon.

use std::io;
use std::time::Duration;

use superpose_overlay::store_path::StoreDir;

/// The result of what is done with a daemon.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done with a daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers where the daemon should be.
    #[error("cannot reach the Nix daemon at '{peer}': is it running, and may this user connect?")]
    Unreachable {
        /// Its socket, or the program.
        peer: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A program that is to do what this one does not cannot be started.
    #[error("cannot start '{program}' (see `--delegate`)")]
    NotStarted {
        /// The program.
        program: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came was not understood.
    #[error("the connection to the Nix daemon at '{peer}' failed")]
    Broken {
        /// Its socket, or the program.
        peer: String,
        /// What happened.
        #[source]
        source: Box<superpose_worker_protocol::Error>,
    },
    /// Nothing came from the daemon for a long time, nor did it take anything.
    #[error(
        "the Nix daemon at '{peer}' has neither said nor taken anything for {} seconds: expected a sign of life. See what it \
         waits for (a lock, a full disk), or start it anew",
        waited.as_secs()
    )]
    Silent {
        /// Its socket.
        peer: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A copy ended in the middle. What arrived before stays.
    #[error(
        "the copy between this store and that of the daemon at '{peer}' broke off: {}; the same command goes on with the rest",
        how_much(*there, *all)
    )]
    BrokenOff {
        /// The socket of the daemon.
        peer: String,
        /// How many of the objects are valid where they were to go, if that is known.
        there: Option<usize>,
        /// How many were to be copied.
        all: usize,
        /// What happened.
        #[source]
        source: Box<Error>,
    },
    /// The daemon did not do what it was asked to do.
    #[error("the Nix daemon at '{peer}' says: {message}")]
    Refused {
        /// Its socket, or the program.
        peer: String,
        /// What it says, without colours.
        message: String,
    },
    /// The paths of two stores begin differently, so that objects of the one are none of the other.
    #[error(
        "the store of the daemon at '{peer}' has the store directory '{found}': expected '{expected}', that of the other store"
    )]
    ForeignStore {
        /// The socket of the daemon.
        peer: String,
        /// The store directory of the other store.
        expected: StoreDir,
        /// That of the daemon's.
        found: StoreDir,
    },
    /// A path is not valid in the store that it should come from.
    #[error("path '{path}' is not valid in the store of the daemon at '{peer}'")]
    NotValid {
        /// The path.
        path: String,
        /// The socket of the daemon.
        peer: String,
    },
    /// What the daemon knows of a path does not suffice to copy it.
    #[error(
        "the daemon at '{peer}' does not know how long the archive of '{path}' is: verify its store there first"
    )]
    NoSize {
        /// The path.
        path: String,
        /// The socket of the daemon.
        peer: String,
    },
    /// What the store on this side says.
    #[error(transparent)]
    Store(#[from] superpose_overlay::Error),
}

fn how_much(there: Option<usize>, all: usize) -> String {
    match there {
        Some(there) => format!("{there} of {all} paths are valid there now"),
        None => format!("nobody can say how many of {all} paths are valid there now"),
    }
}

impl From<superpose_overlay::metadata::Error> for Error {
    fn from(error: superpose_overlay::metadata::Error) -> Self {
        Error::Store(error.into())
    }
}
