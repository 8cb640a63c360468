// SPDX-License-Identifier: MIT OR Apache-2.0
//! The protocol between Nix clients and the Nix daemon, as a codec over any `Read` and `Write`, for both roles.
//!
//! | to | a client uses | a server uses |
//! |---|---|---|
//! | begin | [`connect`] | [`accept`], then [`admit`] or [`refuse`] |
//! | ask, be asked | [`Request::write`] | [`Request::read`] |
//! | upload | [`FramedWriter`], inside it [`AddMultipleWriter`] | [`FramedReader`], inside it [`AddMultipleReader`] |
//! | tell what goes on | – | [`LogFrame::write`] |
//! | answer | [`read_reply`] | [`write_reply`], or an error: [`Frame::write`] |
//!
//! What both sides agreed on is a value, [`Dialect`], and decides every shape after the handshake. Versions from
//! [`Version::MINIMUM`] to [`Version::CURRENT`] are spoken: clients and daemons of Nix 2.26 to 2.36, and older ones but for
//! their uploads.
//!
//! Writing needs no reading: any number of requests can be written, into a buffer too, before the first reply is read.
//! Between two requests a server may write log frames at any time. All lengths are bounded, by [`Limits`], before anything
//! is allocated; every other input ends in a value or an [`Error`], never in a panic.
//!
//! The crate deliberately opens no socket and no file, starts no thread, knows no timeouts, looks into no archive, decides
//! nobody's trust, and keeps no state of a connection. It is synchronous. After an error of reading a connection cannot be
//! mended, as nobody knows where the next message begins: close it.
//!
//! # Example
//!
//! Two requests in one burst, answered one after the other. What goes through two buffers here goes through the two halves
//! of a socket elsewhere, each in a `BufReader` or `BufWriter`.
//!
//! ```
//! use superpose_worker_protocol::{
//!     Dialect, Frame, Limits, LogFrame, RemoteError, Request, UnkeyedValidPathInfo, WireReader, WireWriter, read_reply,
//!     write_reply,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What `connect` and `accept` would have agreed on.
//! let dialect = Dialect::default();
//! let path = dialect.store_dir.parse_path(b"/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-c")?;
//!
//! // The client writes without waiting.
//! let requests = [Request::IsValidPath(path.clone()), Request::QueryPathInfo(path)];
//! let mut to_server = WireWriter::new(Vec::new());
//! for request in &requests {
//!     request.write(&mut to_server, &dialect)?;
//! }
//!
//! // The server: a loop for each connection, until the client has gone.
//! let asked = to_server.into_inner();
//! let mut input = WireReader::new(&asked[..], Limits::for_requests());
//! let mut to_client = WireWriter::new(Vec::new());
//! while let Some(request) = Request::read(&mut input, &dialect)? {
//!     LogFrame::Next(b"looking\n".to_vec()).write(&mut to_client, dialect.version)?;
//!     match &request {
//!         Request::IsValidPath(_) => write_reply(&mut to_client, request.operation(), &dialect, &false)?,
//!         _ => {
//!             let report = RemoteError::new("not today");
//!             Frame::Error(report).write(&mut to_client, dialect.version)?;
//!         }
//!     }
//! }
//!
//! // The client reads the replies in the order of its requests.
//! let answered = to_client.into_inner();
//! let mut input = WireReader::new(&answered[..], Limits::for_replies());
//! let mut said = 0;
//! let valid: bool = read_reply(&mut input, requests[0].operation(), &dialect, |_| said += 1)??;
//! let info = read_reply::<Option<UnkeyedValidPathInfo>, _>(&mut input, requests[1].operation(), &dialect, |_| said += 1)?;
//! assert!(!valid);
//! assert_eq!(info, Err(RemoteError::new("not today")));
//! assert_eq!(said, 2);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod codec;
mod dialect;
mod error;
mod feature;
mod frame;
mod handshake;
mod limits;
mod numbered;
mod operation;
mod plain;
mod reply;
mod request;
mod stream;
mod value;
mod version;

pub use codec::{WireReader, WireWriter};
pub use dialect::Dialect;
pub use error::{Cause, Error, Result};
pub use feature::{Feature, Features};
pub use frame::{
    Activity, ActivityResult, ActivityType, Ending, Field, Frame, Level, LogFrame, RemoteError, ResultType,
    read_until_end,
};
pub use handshake::{ClientOffer, ServerOffer, Session, Trust, accept, admit, connect, refuse};
pub use limits::{Limits, MAX_SIGNATURES};
pub use operation::Operation;
pub use plain::plain;
pub use reply::{
    Body, Done, GcRoot, Missing, OutputNames, RawNar, Reply, RootPath, Shape, read_reply, write_reply,
};
pub use request::{AddFlags, AddToStore, Request};
pub use stream::{AddMultipleReader, AddMultipleWriter, FramedReader, FramedWriter, UploadStopped};
pub use value::{
    BasicDerivation, BuildMode, BuildResult, BuildStatus, BuiltOutput, ClientOptions, CollectGarbage,
    Collected, DerivedPath, DrvOutput, GcAction, GcTarget, KeyedBuildResult, MethodAlgorithm, OutputsSpec,
    Realisation, RealisationAnswer, SingleDerivedPath, SubstitutablePathInfo, UnkeyedRealisation,
    UnkeyedValidPathInfo, ValidPathInfo,
};
pub use version::Version;
