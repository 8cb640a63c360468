// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serves a Nix store to stock Nix clients over Unix sockets, and copies objects to and from the store of another daemon.
//!
//! A [`Server`] has a store, a local one or an overlay store, and [`ServeOptions`]. Each connection gets a thread; what a
//! client may do follows from who it is, by the kernel's word ([`UserList`]). An opened store is lent to a connection for
//! the time of one request: one that is idle holds no lock and no database. What has to be built or fetched goes to the program of
//! [`Delegate`], if there is one.
//!
//! [`remote`] is the client's side: objects are brought from a daemon's store, and to it.
//!
//! The crate deliberately does not build or substitute, print, read the environment, handle signals, or speak TCP.
//!
//! ```
//! use superpose_daemon::{ServeOptions, Server, Socket};
//! use superpose_overlay::store_path::{Defaults, StoreReference};
//! use superpose_overlay::{Layout, OpenOptions};
//!
//! let top = tempfile::tempdir()?;
//! let (layout, _) = Layout::resolve(&StoreReference::local(top.path()), &Defaults::default())?;
//! let server = Server::new(layout, OpenOptions::default(), ServeOptions::default())?;
//! let sockets = [Socket::bind(&top.path().join("socket"))?];
//! let stop = server.stop_handle();
//! std::thread::scope(|scope| {
//!     let running = scope.spawn(|| server.run(&sockets));
//!     stop.stop();
//!     running.join().expect("it does not panic")
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod ahead;
mod budget;
mod connection;
mod context;
mod delegate;
mod error;
mod link;
mod logger;
mod operations;
mod options;
mod peer;
mod pool;
mod refusal;
pub mod remote;
mod server;
mod socket;
mod stream;
mod watch;

pub use delegate::Delegate;
pub use error::{Error, Result};
pub use options::{Access, MAX_CONNECTIONS, ServeOptions};
pub use peer::{Peer, UserList};
pub use server::{Server, StopHandle};
pub use socket::Socket;
