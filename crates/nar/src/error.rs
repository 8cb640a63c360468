// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::{MAX_DEPTH, MAX_NAME, MAX_TAG, MAX_TARGET};

/// The result of this crate's fallible operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an archive could not be read or written, or a tree not be made, mended or removed.
///
/// Paths are relative to the directory that the caller passed: they begin with the name of the object. Inside
/// [`Error::Malformed`] the path is the one within the archive, empty for the object itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation on a file, directory or symbolic link.
    #[error("cannot {operation} {path:?}")]
    System {
        /// What was being done, as it reads after "cannot".
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The answer of the system.
        #[source]
        source: io::Error,
    },
    /// The source of an archive failed.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// How many bytes of the archive had been read.
        offset: u64,
        /// The error of the source.
        #[source]
        source: io::Error,
    },
    /// The receiver of an archive, or a tap on it, failed.
    #[error("cannot pass on the archive of {path:?}")]
    Write {
        /// The object, or the part of it, that was being archived.
        path: PathBuf,
        /// The error of the receiver.
        #[source]
        source: io::Error,
    },
    /// The bytes are not an archive that Nix would accept.
    #[error("malformed archive at byte {offset}, in {}: {problem}", place(path))]
    Malformed {
        /// Where in the archive, in bytes from its beginning.
        offset: u64,
        /// The node that was being read, as a path within the archive; empty for the root.
        path: PathBuf,
        /// What is wrong.
        problem: Malformed,
    },
    /// A file is neither a regular file nor a directory nor a symbolic link, so no archive can hold it.
    #[error("{path:?} has an unsupported type: expected a file, directory or symbolic link, found a {found}")]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// Its type in words.
        found: &'static str,
    },
    /// A tree is nested more deeply than an archive may be.
    #[error("{path:?} is inside {MAX_DEPTH} directories: an archive may hold at most {}", MAX_DEPTH - 1)]
    TooDeep {
        /// The first node that is too deep.
        path: PathBuf,
    },
    /// A file name or link target is longer than an archive may hold.
    #[error("{path:?} has a {what} of {found} bytes: an archive may hold at most {limit}")]
    TooLong {
        /// The file or link.
        path: PathBuf,
        /// `name` or `target`.
        what: &'static str,
        /// The length found, in bytes.
        found: usize,
        /// The longest allowed, in bytes.
        limit: usize,
    },
    /// A file had another size when it was read than when it was opened, so that its archive would have been wrong.
    #[error(
        "{path:?} changed while it was read: expected {expected} bytes, found {found}; try again when it is at rest"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its size when it was opened.
        expected: u64,
        /// How many bytes were read; when the file grew, only so many that the growth showed.
        found: String,
    },
    /// The name of an object is not a single file name.
    #[error("{name:?} is not a file name: expected one path component other than `.` and `..`")]
    ObjectName {
        /// What was given.
        name: PathBuf,
    },
    /// A directory is not where it was a moment ago; going on would have left the tree.
    #[error(
        "{path:?} was moved or replaced while its tree was being removed; try again when nobody else changes it"
    )]
    Moved {
        /// The directory.
        path: PathBuf,
    },
    /// A directory of a tree is a mount point; going on would have removed what another file system holds.
    #[error("{path:?} is on another file system than its parent: unmount it first")]
    MountPoint {
        /// The directory.
        path: PathBuf,
    },
    /// An object could not be made, and what had been made of it could not be removed again.
    #[error(
        "{path:?} could not be made and is left incomplete, as it could not be removed ({cleanup}): remove it by hand"
    )]
    LeftBehind {
        /// The object.
        path: PathBuf,
        /// Why it could not be removed.
        cleanup: Box<Error>,
        /// Why it could not be made.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    /// The kind of the underlying system error, where there is one: tells `NotFound`, `AlreadyExists` or
    /// `StorageFull` from the rest.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::System { source, .. } | Self::Read { source, .. } | Self::Write { source, .. } => {
                Some(source.kind())
            }
            Self::LeftBehind { source, .. } => source.io_kind(),
            _ => None,
        }
    }
}

/// A path within an archive, in words.
fn place(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        "its root".to_owned()
    } else {
        format!("{path:?}")
    }
}

/// What is wrong with an archive.
///
/// Foreign bytes are quoted in escaped form; their length is bounded by the limits of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The source ended inside the archive.
    #[error("the archive ends too early")]
    UnexpectedEnd,
    /// A keyword is not the one that has to follow.
    #[error("expected {expected}, found \"{found}\"")]
    Keyword {
        /// What had to follow.
        expected: &'static str,
        /// What followed, escaped.
        found: String,
    },
    /// A keyword is longer than any that exists.
    #[error("expected {expected}, found a string of {length} bytes, more than the {MAX_TAG} of any keyword")]
    KeywordLength {
        /// What had to follow.
        expected: &'static str,
        /// The length of what followed, in bytes.
        length: u64,
    },
    /// The marker of an executable file has a value; it has to be an empty string.
    #[error("the `executable` marker has a value of {length} bytes, expected none")]
    ExecutableValue {
        /// Its length in bytes.
        length: u64,
    },
    /// The bytes that fill a string up to a multiple of eight are not all zero.
    #[error("the padding of a string is not zero")]
    Padding,
    /// The name of a directory entry is empty or longer than a file system takes.
    #[error("an entry has a name of {length} bytes, expected 1 to {MAX_NAME}")]
    NameLength {
        /// Its length in bytes.
        length: u64,
    },
    /// The name of a directory entry is `.`, `..`, or holds a slash or NUL: it could lead out of the tree.
    #[error("\"{name}\" is not the name of a directory entry")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// The entries of a directory are not in strictly increasing byte order.
    #[error("entry \"{name}\" follows \"{previous}\", expected strictly increasing names")]
    Order {
        /// The name of the entry before, escaped.
        previous: String,
        /// The name of the entry, escaped.
        name: String,
    },
    /// The target of a symbolic link is empty or longer than the system takes.
    #[error("a symbolic link has a target of {length} bytes, expected 1 to {MAX_TARGET}")]
    TargetLength {
        /// Its length in bytes.
        length: u64,
    },
    /// The target of a symbolic link holds a NUL; the system would cut it there.
    #[error("the target of a symbolic link holds a NUL byte")]
    TargetNul,
    /// A file claims to be larger than any file can be.
    #[error("a file has contents of {length} bytes, more than any file can have")]
    ContentsLength {
        /// Its length in bytes.
        length: u64,
    },
    /// A node is nested too deeply.
    #[error("a node is inside {MAX_DEPTH} directories: an archive may hold at most {}", MAX_DEPTH - 1)]
    TooDeep,
    /// The reader was asked to go on after it had reported an error.
    #[error("reading went on after an error")]
    AfterError,
}
