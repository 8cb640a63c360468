// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can prevent a check from being carried out at all.
//!
//! A mount that is wrong, or that cannot be judged, is not an error: it is an [`Outcome`](crate::Outcome).

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::mountinfo::ParseError;

/// The ways in which looking at a mount can fail.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A directory exists, or may exist, but could not be opened.
    #[error("cannot open the directory {}", crate::quote::path(.path))]
    Open {
        /// The directory as the caller named it.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The kernel did not say which mount an open directory belongs to.
    #[error("cannot learn which mount covers {} ({operation})", crate::quote::path(.path))]
    Inspect {
        /// The directory as the caller named it.
        path: PathBuf,
        /// The system call or file that failed.
        operation: &'static str,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The mount table could not be read.
    #[error("cannot read the mount table /proc/thread-self/mountinfo (is /proc mounted?)")]
    ReadMountTable {
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The mount table is larger than this crate is willing to read.
    #[error("the mount table is larger than {limit} bytes; expected a smaller one, refusing to read on")]
    MountTableTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The mount table has a line that does not follow the documented form.
    #[error("cannot understand the mount table")]
    ParseMountTable {
        /// Which line, and why.
        #[from]
        source: ParseError,
    },
}

/// The result of looking at a mount.
pub type Result<T> = std::result::Result<T, Error>;
