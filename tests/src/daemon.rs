// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stock daemon in front of a store.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Invocation, Running, StockNix};

/// The shell hands the socket over as service managers do. What the daemon says goes to a file: nobody reads a pipe.
const HAND_OVER: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=nix-daemon.socket
exec "$@" 3<&0 </dev/null >>"$LOG" 2>&1"#;

thread_local! {
    /// Which daemon stands before the lower stores that are made on this thread.
    static FRONT: Cell<Option<StockNix>> = const { Cell::new(None) };
}

/// Runs a trial in which a stock daemon stands before every lower store that it makes.
pub(crate) fn in_front<T>(stock: StockNix, body: impl FnOnce() -> T) -> T {
    let before = FRONT.replace(Some(stock));
    let result = body();
    FRONT.set(before);
    result
}

/// The daemon that stands before the lower stores of this trial, if one does.
pub(crate) fn front() -> Option<StockNix> {
    FRONT.get()
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
        if socket.exists() {
            fs::remove_file(socket)?;
        }
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
        // Every user may ask, as with the daemon's own socket.
        fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
        let daemon = stock.program("nix-daemon");
        let running = Invocation::new("sh")
            .args(["-c", HAND_OVER, "sh"])
            .arg(daemon.program())
            .arg("--store")
            .arg(store)
            .env("LOG", socket.with_extension("log"))
            .start_with_input(OwnedFd::from(listener).into())?;
        Ok(Self {
            running,
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
