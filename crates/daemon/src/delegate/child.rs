// SPDX-License-Identifier: MIT OR Apache-2.0
//! The child of a connection.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};
use superpose_overlay::store_path::StoreDir;
use superpose_worker_protocol::{ClientOptions, LogFrame, RemoteError, Reply, Request, Trust};

use super::Delegate;
use crate::remote::{Connection, Error, Result};

/// How often it is looked whether the client is still there.
const TICK: Duration = Duration::from_millis(200);

/// How long a child has to end by itself when its connection is closed: it ends its builders first.
const GRACE: Duration = Duration::from_secs(5);

/// Without them a stock Nix refuses the stores that this server has, and to be told whom to trust.
const FEATURES: &str = "local-overlay-store read-only-local-store daemon-trust-override";

/// A Nix that does for a client what this server does not. Ended when dropped, and so are its builders.
#[derive(Debug)]
pub(crate) struct Delegated {
    connection: Connection,
    /// A second handle of the socket: closing both directions is what a stock Nix notices in the middle of a build.
    line: UnixStream,
    child: Reaped,
    /// What the client wanted when it was told last.
    options: Option<ClientOptions>,
}

impl Delegated {
    /// Starts the program on the store of a URL, for a client that is trusted or not: it does what depends on that.
    pub(crate) fn start(delegate: &Delegate, url: &str, store_dir: StoreDir, trust: Trust) -> Result<Self> {
        let trusting = match trust {
            Trust::Trusted => "--force-trusted",
            Trust::NotTrusted | Trust::Unknown => "--force-untrusted",
        };
        let peer = delegate.program.display().to_string();
        let unreachable = |source| Error::NotStarted {
            program: peer.clone(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(unreachable)?;
        let input = theirs.try_clone().map_err(unreachable)?;
        let child = Command::new(&delegate.program)
            // The features first: of what comes before them it is asked whether it is allowed.
            .args(["--extra-experimental-features", FEATURES])
            .args(["--stdio", trusting, "--store", url])
            // The sockets of this server are none of the child's.
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .stdin(Stdio::from(OwnedFd::from(input)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(unreachable)?;
        let child = Reaped(child);
        let out = ours.try_clone().map_err(unreachable)?;
        let line = ours.try_clone().map_err(unreachable)?;
        let connection = Connection::to_child(ours, out, peer, store_dir)?;
        Ok(Self {
            connection,
            line,
            child,
            options: None,
        })
    }

    /// Passes a request on, and what the program says while it works. If `is_over` says so it is ended in the middle, with
    /// all that it started. The inner error is the program's.
    pub(crate) fn forward(
        &mut self,
        request: &Request,
        options: &ClientOptions,
        on_log: impl FnMut(LogFrame),
        is_over: impl Fn() -> bool + Sync,
    ) -> Result<Result<Reply, RemoteError>> {
        if self.options.as_ref() != Some(options) {
            self.connection.set_options(options)?;
            self.options = Some(options.clone());
        }
        let (connection, line) = (&mut self.connection, &self.line);
        let is_done = (Mutex::new(false), Condvar::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut done = is_done.0.lock().unwrap_or_else(PoisonError::into_inner);
                while !*done {
                    if is_over() {
                        hang_up(line);
                        return;
                    }
                    let waited = is_done.1.wait_timeout(done, TICK);
                    done = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            });
            let answer = connection.forward(request, on_log);
            *is_done.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            is_done.1.notify_all();
            answer
        })
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        hang_up(&self.line);
        self.child.wait_a_while();
    }
}

fn hang_up(line: &UnixStream) {
    shutdown(line, Shutdown::Both).ok();
}

/// A child that is waited for, and killed if it does not end.
#[derive(Debug)]
struct Reaped(Child);

impl Reaped {
    fn wait_a_while(&mut self) {
        let end = Instant::now() + GRACE;
        let mut pause = Duration::from_millis(1);
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(pause);
            pause = (pause * 2).min(TICK);
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // It has ended, or has had its time.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
