// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose serve`: the store for Nix clients.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use superpose_daemon::{
    Access, Delegate, MAX_CONNECTIONS, ServeOptions, Server, Socket, StopHandle, UserList,
};

use super::Done;
use crate::context::Context;
use crate::environment;
use crate::error::{Error, Result};
use crate::trust::TrustArguments;

/// Serve the store to Nix clients over a Unix socket, as nix-daemon does
///
/// Clients use it as unix://SOCKET?root=DIR, or with real=DIR, which say where they see the store's files. Sockets that a service
/// manager hands over are served instead of --socket. SIGINT and SIGTERM end it when requests in work have ended.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose serve --socket /run/superpose/socket
  superpose serve --socket /run/superpose/socket --delegate nix-daemon")]
pub(crate) struct Args {
    /// Where to listen; a socket that nobody listens at is replaced
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Answer questions only; the store is opened for reading
    #[arg(long)]
    read_only: bool,
    /// Connections at once; further ones wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=MAX_CONNECTIONS as i64))]
    max_connections: u16,
    /// Who may do everything: names, @groups, *, separated by blanks [default: root, and whoever starts this]
    #[arg(long, value_name = "USERS")]
    trusted_users: Option<String>,
    /// Who else may connect
    #[arg(long, value_name = "USERS", default_value = "*")]
    allowed_users: String,
    /// A nix-daemon that builds and fetches for clients, started on this store where that is needed
    #[arg(long, value_name = "PROGRAM", conflicts_with = "read_only")]
    delegate: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArguments,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let layout = context.layout()?;
        if self.delegate.is_some() && layout.settings().read_only {
            return Err(Error::usage(format!(
                "--delegate is for a store that may be written, which '{}' may not be: leave out --delegate, \
                 or read-only=true",
                layout.reference()
            )));
        }
        let mut options = ServeOptions::default();
        if self.read_only || layout.settings().read_only {
            options.access = Access::ReadOnly;
        }
        options.max_connections = self.max_connections.into();
        options.allowed_users = UserList::parse(&self.allowed_users);
        if let Some(users) = &self.trusted_users {
            options.trusted_users = UserList::parse(users);
        }
        options.delegate = self.delegate.clone().map(Delegate::new);
        let mut open = context.open_options()?;
        open.trusted_keys = self.trust.keys()?;
        let mut sockets = environment::activated_sockets()?;
        if sockets.is_empty() {
            let Some(path) = &self.socket else {
                return Err(Error::usage(
                    "no socket: give --socket PATH, or hand one over as systemd does",
                ));
            };
            sockets.push(Socket::bind(path)?);
        }
        allow_many_descriptors();
        let server = Server::new(layout, open, options)?;
        stop_on_signals(server.stop_handle())?;
        for socket in &sockets {
            if let Some(path) = socket.path() {
                context.note(format_args!("serving at '{}'", path.display()));
            }
        }
        server.run(&sockets)?;
        Ok(Done::Fine)
    }
}

/// Each connection needs a few descriptors, and what most systems allow at first is for a program with one user.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Lets the first SIGINT or SIGTERM end the server; a second one ends the process.
fn stop_on_signals(stop: StopHandle) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let fail = |error| Error::failed(format!("cannot listen to signals: {error}"));
    let (mut signals, told) = UnixStream::pair().map_err(fail)?;
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal finds the flag set, and ends the process as if nobody listened.
        signal_hook::flag::register_conditional_default(signal, std::sync::Arc::clone(&asked))
            .map_err(fail)?;
        signal_hook::flag::register(signal, std::sync::Arc::clone(&asked)).map_err(fail)?;
        let told = told.try_clone().map_err(fail)?;
        signal_hook::low_level::pipe::register(signal, told).map_err(fail)?;
    }
    thread::spawn(move || {
        if signals.read_exact(&mut [0]).is_ok() {
            stop.stop();
        }
    });
    Ok(())
}
