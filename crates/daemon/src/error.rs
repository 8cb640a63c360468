// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error type of the crate.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use superpose_worker_protocol::{Operation, RemoteError};

/// The result of this crate's fallible operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server does not start, or a client does not get what it asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the store says.
    #[error(transparent)]
    Store(#[from] superpose_overlay::Error),
    /// What the protocol says.
    #[error(transparent)]
    Protocol(#[from] superpose_worker_protocol::Error),
    /// A system call failed.
    #[error("cannot {operation} '{}'", path.display())]
    Io {
        /// What was attempted; fits between "cannot" and the path.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something of the name of the socket is there and is not ours to replace.
    #[error("cannot listen at '{}': expected nothing or a socket that nobody listens at, found {found}", path.display())]
    SocketTaken {
        /// The name.
        path: PathBuf,
        /// What has it.
        found: &'static str,
    },
    /// The directory of the socket stays locked: servers that start in it take turns.
    #[error(
        "cannot listen at '{}': expected the directory '{}' to be free to lock, found it locked by another process for {} s; \
         `lslocks` shows which one, and in a directory that others cannot open nobody else can lock it",
        path.display(), directory.display(), waited.as_secs()
    )]
    DirectoryLocked {
        /// The name of the socket.
        path: PathBuf,
        /// The directory that it is in.
        directory: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// What a service manager hands over is not as agreed.
    #[error("cannot use the sockets that the service manager handed over: {problem}")]
    Activation {
        /// What is wrong.
        problem: String,
    },
    /// The server only answers questions. To do it all the same would change what others rely on not to change.
    #[error("{operation} would change the store: this server only answers questions (`--read-only`)")]
    ReadOnly {
        /// What was asked.
        operation: Operation,
    },
    /// Only trusted clients may do it. To let others do it would let them decide what all users run.
    #[error("{what} is for trusted users only: see `--trusted-users` of the server")]
    NotTrusted {
        /// What was asked.
        what: &'static str,
    },
    /// This server has no such operation.
    #[error("this server does not serve {operation}")]
    NotServed {
        /// The operation.
        operation: Operation,
    },
    /// A path that the question is about is not valid.
    #[error("path '{path}' is not valid")]
    NotValid {
        /// The path.
        path: String,
    },
    /// A path is not valid here, and nobody here can build or fetch it.
    #[error(
        "'{path}' would have to be built or fetched, which this server does not do by itself: start it with \
         `--delegate nix-daemon` to have an installed Nix do it"
    )]
    CannotMake {
        /// The path.
        path: String,
    },
    /// An upload is to replace what is valid and damaged. To do so would take away what is in use.
    #[error(
        "'{path}' is not what was registered, and is not repaired by an upload: see `superpose verify --repair --from STORE`"
    )]
    RepairByUpload {
        /// The path.
        path: String,
    },
    /// Objects are to be hashed as git does, which this server cannot do.
    #[error(
        "experimental Nix feature 'git-hashing' is disabled: this server hashes archives and contents of files only"
    )]
    GitHashing,
    /// An object is announced without the length of its archive, so that it would have no end.
    #[error("the archive of '{path}' is announced without its length: expected its size in bytes, found 0")]
    NoSize {
        /// The path.
        path: String,
    },
    /// The Nix that builds and fetches.
    #[error(transparent)]
    Delegate(Box<crate::remote::Error>),
    /// What the Nix that builds and fetches says, as it says it.
    #[error("{}", String::from_utf8_lossy(&.0.message))]
    Delegated(Box<RemoteError>),
    /// Large requests and replies of all clients together are bounded.
    #[error(
        "the server is busy with other large requests: expected at most {limit} bytes of them at once; try again"
    )]
    Busy {
        /// The bound.
        limit: u64,
    },
    /// What is registered cannot be said in the protocol.
    #[error(
        "the archive of '{path}' is registered with a hash that the protocol has no form for: expected sha256, found {found}"
    )]
    NarHash {
        /// The path.
        path: String,
        /// The hash.
        found: String,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            operation,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }

    /// The error as a client is told it: one line, causes behind colons.
    pub(crate) fn report(&self) -> RemoteError {
        if let Self::Delegated(report) = self {
            return RemoteError::clone(report);
        }
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        RemoteError::new(text)
    }
}

impl From<superpose_overlay::metadata::Error> for Error {
    fn from(error: superpose_overlay::metadata::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<superpose_overlay::nar::Error> for Error {
    fn from(error: superpose_overlay::nar::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<crate::remote::Error> for Error {
    fn from(error: crate::remote::Error) -> Self {
        Self::Delegate(Box::new(error))
    }
}
