// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock daemons for trials: one for each connection, as `nix-daemon --stdio` on the two ends of a socket.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};
use superpose_tests::StockNix;

/// Stock daemons that serve a store at a socket until this is dropped.
#[derive(Debug)]
pub(crate) struct StockDaemon {
    /// The socket that it listens at.
    ear: UnixListener,
    stopped: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Child>>>,
    listener: Option<JoinHandle<()>>,
}

impl StockDaemon {
    /// Serves the store of a URL.
    pub(crate) fn start(stock: StockNix, socket: &Path, store: impl Into<OsString>) -> Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("binding {}", socket.display()))?;
        let ear = listener.try_clone()?;
        let (stopped, children) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<Mutex<Vec<Child>>>::default(),
        );
        let (is_over, born, store) = (Arc::clone(&stopped), Arc::clone(&children), store.into());
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let child = stream.and_then(|stream| daemon_of(stock, &store, &stream));
                let child = child.expect("a stock daemon can be started");
                born.lock().unwrap_or_else(PoisonError::into_inner).push(child);
            }
        });
        Ok(StockDaemon {
            ear,
            stopped,
            children,
            listener: Some(listener),
        })
    }
}

fn daemon_of(stock: StockNix, store: &OsString, stream: &UnixStream) -> std::io::Result<Child> {
    let mut command = stock.program("nix-daemon").into_command();
    command
        .args(["--stdio", "--store"])
        .arg(store)
        .stdin(Stdio::from(OwnedFd::from(stream.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(stream.try_clone()?)))
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for StockDaemon {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It wakes up, whether or not the name of the socket is still there.
        shutdown(&self.ear, Shutdown::Both).ok();
        if let Some(listener) = self.listener.take() {
            listener.join().ok();
        }
        for child in self
            .children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter_mut()
        {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
