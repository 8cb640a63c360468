// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error type of the crate.

use std::io;

use crate::frame::RemoteError;
use crate::{Feature, Operation, Version};

/// The result of this crate's fallible operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be said to the peer, or what the peer said not be understood.
///
/// [`Error::cause`] tells whose fault it was. After any error but [`Cause::Caller`] the connection is out of step: close
/// it. What the peer says with an error frame is not an error of this type but a [`RemoteError`], and the connection
/// stays usable.
///
/// Texts of the peer are quoted in escaped and shortened form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport failed while something was read.
    #[error("cannot read {what} from the peer")]
    Read {
        /// What was being read.
        what: &'static str,
        /// The error of the transport.
        #[source]
        source: io::Error,
    },
    /// The transport failed while something was written.
    #[error("cannot write to the peer")]
    Write {
        /// The error of the transport.
        #[source]
        source: io::Error,
    },
    /// The peer closed the connection in the middle of something.
    #[error("the peer closed the connection within {what}")]
    UnexpectedEnd {
        /// What was being read.
        what: &'static str,
    },
    /// The peer announced more than this side is willing to take.
    #[error("{what} is too long: expected at most {limit}, found {found}; see the limits of this side")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The bound, in bytes or elements.
        limit: u64,
        /// What was announced; of a whole message, what it had come to when it was refused.
        found: u64,
    },
    /// The bytes that fill a string up to a multiple of eight are not all zero.
    #[error("the padding after {what} is not zero: the peer is out of step")]
    Padding {
        /// The string before.
        what: &'static str,
    },
    /// A field holds something that is not of its type.
    #[error("{what} is `{found}`: expected {expected}")]
    Value {
        /// The field.
        what: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds, shortened.
        found: String,
    },
    /// A field holds something that is not the store path, hash or the like that it should be.
    #[error("{what} is not valid")]
    Malformed {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: superpose_store_path::Error,
    },
    /// The peer does not begin as one that speaks this protocol does; a wrapper that failed says why in plain text.
    #[error("protocol mismatch: expected the greeting of a {expected}, found `{found}`")]
    Greeting {
        /// Which role the peer should have.
        expected: &'static str,
        /// What it said, shortened.
        found: String,
    },
    /// The peer speaks a version that is too old, or of another kind.
    #[error("the peer speaks protocol version {found}: expected {expected}")]
    PeerVersion {
        /// What it announced.
        found: Version,
        /// What would do.
        expected: &'static str,
    },
    /// The daemon refused the client at the end of the handshake.
    #[error("the daemon refused the connection")]
    Refused {
        /// What it said.
        #[source]
        report: RemoteError,
    },
    /// A request has a number that is not known here, or no longer. How long it is cannot be known.
    #[error("unknown operation {number}")]
    UnknownOperation {
        /// The number.
        number: u64,
    },
    /// A word that begins no frame that may come here.
    #[error("unexpected frame {word:#x} ({found}): expected a log frame, success or an error")]
    Frame {
        /// The word.
        word: u64,
        /// What it would mean, or that it means nothing.
        found: &'static str,
    },
    /// An operation does not exist, or has a form that is not known here, in the version that was agreed on.
    #[error("{operation} needs protocol version {needs}: this connection agreed on {agreed}")]
    NeedsVersion {
        /// The operation.
        operation: Operation,
        /// From which version on it can be used.
        needs: Version,
        /// The version of the connection.
        agreed: Version,
    },
    /// An operation, or something that it was asked to do, exists only with a feature that was not agreed on.
    #[error("{operation} needs the protocol feature `{needs}`, which this connection did not agree on")]
    NeedsFeature {
        /// The operation.
        operation: Operation,
        /// The feature.
        needs: Feature,
    },
    /// A request came that does not exist, or has a form that is not known here, in what was agreed on.
    #[error(
        "{operation} came on a connection that agreed on version {agreed}, which has it not in this form"
    )]
    NotAgreed {
        /// The operation.
        operation: Operation,
        /// The version of the connection.
        agreed: Version,
    },
    /// A value cannot be written as this connection would have to write it.
    #[error("{what} cannot be sent: {problem}")]
    NotExpressible {
        /// The value.
        what: &'static str,
        /// Why not.
        problem: &'static str,
    },
    /// The reply that was asked for is not the one that an operation has.
    #[error("{operation} is not answered with {asked}")]
    WrongReply {
        /// The operation.
        operation: Operation,
        /// What was asked for.
        asked: &'static str,
    },
    /// Other than the announced amount of something was written.
    #[error("{what}: {expected} were announced, {found} were written")]
    Amount {
        /// What was announced.
        what: &'static str,
        /// How much was announced.
        expected: u64,
        /// How much was written; of too much, only so much that it shows.
        found: u64,
    },
}

/// Whose fault an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The transport failed or ended: another connection may do better.
    Transport,
    /// The peer sent what it may not send, or more than this side takes.
    Peer,
    /// This side asked for what cannot be said. Of a request or a reply that fails so at once nothing was sent.
    Caller,
}

impl Error {
    /// Tells whose fault it is.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::UnexpectedEnd { .. } => Cause::Transport,
            Self::NeedsVersion { .. }
            | Self::NeedsFeature { .. }
            | Self::NotExpressible { .. }
            | Self::WrongReply { .. }
            | Self::Amount { .. } => Cause::Caller,
            Self::TooLong { .. }
            | Self::Padding { .. }
            | Self::Value { .. }
            | Self::Malformed { .. }
            | Self::Greeting { .. }
            | Self::PeerVersion { .. }
            | Self::Refused { .. }
            | Self::UnknownOperation { .. }
            | Self::NotAgreed { .. }
            | Self::Frame { .. } => Cause::Peer,
        }
    }

    /// The kind of the transport's error, where there is one: tells `WouldBlock` or `TimedOut` from the rest.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Read { source, .. } | Self::Write { source } => Some(source.kind()),
            _ => None,
        }
    }
}

/// Longest excerpt of foreign bytes inside an error.
const EXCERPT: usize = 160;

/// Renders foreign bytes for an error: escaped, and of bounded length.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let mut text = bytes[..bytes.len().min(EXCERPT)].escape_ascii().to_string();
    if bytes.len() > EXCERPT {
        text.push('…');
    }
    text
}
