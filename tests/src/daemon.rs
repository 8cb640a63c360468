// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon in front of a store: that of stock Nix, or superpose itself.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Invocation, Need, Running, StockNix, program_path};

/// The shell hands the socket over as service managers do. What the daemon says goes to a file: nobody reads a pipe.
const HAND_OVER: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=nix-daemon.socket
exec "$@" 3<&0 </dev/null >>"$LOG" 2>&1"#;

thread_local! {
    /// Which daemon stands before the lower stores that are made on this thread.
    static FRONT: Cell<Option<Front>> = const { Cell::new(None) };
}

/// Who stands before a lower store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// The daemon of a stock Nix.
    Stock(StockNix),
    /// `superpose serve --read-only`.
    Superpose,
}

impl Front {
    /// What the names of its trials end with.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stock(_) => "daemon",
            Self::Superpose => "serve",
        }
    }

    /// What it needs of the machine.
    pub(crate) fn need(self) -> Option<Need> {
        match self {
            Self::Stock(stock) => Some(Need::Stock(stock)),
            Self::Superpose => None,
        }
    }

    /// Starts it before the store of a URL.
    pub(crate) fn start(self, store: &OsStr, socket: &Path) -> Result<Daemon> {
        Ok(match self {
            Self::Stock(stock) => Daemon::Stock(StockDaemon::start(stock, store, socket)?),
            Self::Superpose => Daemon::Superpose(SuperposeDaemon::start(store, socket)?),
        })
    }
}

/// Runs a trial in which a daemon stands before every lower store that it makes.
pub(crate) fn in_front<T>(front: Front, body: impl FnOnce() -> T) -> T {
    let before = FRONT.replace(Some(front));
    let result = body();
    FRONT.set(before);
    result
}

/// The daemon that stands before the lower stores of this trial, if one does.
pub(crate) fn front() -> Option<Front> {
    FRONT.get()
}

/// Either of them.
#[derive(Debug)]
pub(crate) enum Daemon {
    Stock(StockDaemon),
    Superpose(SuperposeDaemon),
}

impl Daemon {
    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Stock(daemon) => daemon.socket(),
            Self::Superpose(daemon) => daemon.socket(),
        }
    }
}

/// Starts a program that takes over a socket. The path of the socket is short, and free.
fn start_with_socket(words: &[&OsStr], socket: &Path) -> Result<Running> {
    if socket.exists() {
        fs::remove_file(socket)?;
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
    // Every user may ask, as with the daemon's own socket.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
    Invocation::new("sh")
        .args(["-c", HAND_OVER, "sh"])
        .args(words)
        .env("LOG", socket.with_extension("log"))
        .start_with_input(OwnedFd::from(listener).into())
}

/// A `superpose serve --read-only` that serves a store until this is dropped. Clients can connect as soon as it is there.
#[derive(Debug)]
pub struct SuperposeDaemon {
    /// Ended with this.
    _running: Running,
    socket: PathBuf,
}

impl SuperposeDaemon {
    /// Starts a server for the store of a URL. The path of the socket is short, and free.
    ///
    /// # Errors
    /// If the socket cannot be made, or the program not be started.
    pub fn start(store: impl AsRef<OsStr>, socket: &Path) -> Result<Self> {
        let program = program_path()?;
        let words = [
            "--store".as_ref(),
            store.as_ref(),
            "serve".as_ref(),
            "--read-only".as_ref(),
        ];
        let words: Vec<&OsStr> = [program.as_os_str()].into_iter().chain(words).collect();
        Ok(Self {
            _running: start_with_socket(&words, socket)?,
            socket: socket.to_owned(),
        })
    }

    /// The socket that it listens on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// A stock daemon that serves a store until this is dropped. Clients can connect as soon as it is there.
#[derive(Debug)]
pub struct StockDaemon {
    running: Running,
    socket: PathBuf,
}

impl StockDaemon {
    /// Starts a daemon for the store of a URL. The path of the socket is short, and free.
    ///
    /// # Errors
    /// If the socket cannot be made, or the program not be started.
    pub fn start(stock: StockNix, store: impl AsRef<OsStr>, socket: &Path) -> Result<Self> {
        Self::start_program(stock.program("nix-daemon").program(), store, socket)
    }

    /// The same with the daemon of some other Nix.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_program(
        program: impl AsRef<OsStr>,
        store: impl AsRef<OsStr>,
        socket: &Path,
    ) -> Result<Self> {
        let words = [program.as_ref(), "--store".as_ref(), store.as_ref()];
        Ok(Self {
            running: start_with_socket(&words, socket)?,
            socket: socket.to_owned(),
        })
    }

    /// The socket that it listens on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Kills the processes that serve clients, and leaves the one that listens.
    ///
    /// # Errors
    /// If they cannot be found.
    pub fn kill_conversations(&self) -> Result<usize> {
        let pid = self.running.pid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children: Vec<Pid> = children
            .split_whitespace()
            .filter_map(|child| Pid::from_raw(child.parse().ok()?))
            .collect();
        for &child in &children {
            // One that has just ended needs no killing.
            kill_process(child, Signal::KILL).ok();
        }
        Ok(children.len())
    }
}

impl Drop for StockDaemon {
    fn drop(&mut self) {
        // They are in sessions of their own, and would outlive the one that listens.
        self.kill_conversations().ok();
    }
}
