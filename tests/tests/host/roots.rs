// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots that are made while somebody collects.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use superpose_tests::{Layers, Suite, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        a_collector_hears_of_a_root_again_when_the_link_is_there,
        a_root_that_came_too_late_is_none,
        a_root_that_came_too_late_leaves_the_one_before
    );
}

/// Longer than a program needs to come to a root on a loaded machine.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A collector that has only just begun, whatever was done before: it holds the lock, and hears of roots.
struct Collector {
    _lock: File,
    _state: File,
    listener: UnixListener,
}

impl Collector {
    fn begin(layers: &Layers) -> Result<Self> {
        let dir = layers.lower().join("nix/var/nix");
        let lock = File::create(dir.join("gc.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        fs::create_dir_all(dir.join("gc-socket"))?;
        let state = File::open(&dir)?;
        // However long the path is.
        let socket = format!("/proc/self/fd/{}/gc-socket/socket", state.as_raw_fd());
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            _lock: lock,
            _state: state,
            listener,
        })
    }

    fn accept(&self) -> Result<Client> {
        let started = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Client::new(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(started.elapsed() < TIME_LIMIT, "nobody came");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Who hands over roots.
struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Client {
    fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(TIME_LIMIT))?;
        Ok(Self {
            lines: BufReader::new(stream.try_clone()?),
            stream,
        })
    }

    /// Waits for one root, and acknowledges it when `before` is done.
    fn hear(&mut self, before: impl FnOnce() -> Result<()>) -> Result<String> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .context("nobody handed over a root")?;
        before()?;
        self.stream.write_all(b"1")?;
        Ok(line.trim_end().to_owned())
    }
}

fn a_collector_hears_of_a_root_again_when_the_link_is_there() -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let link = layers.join("result");
    let collector = Collector::begin(&layers)?;
    let adding = layers.below()?.arg("add-root").arg(&link).arg(&path).start()?;
    // This one looks for links now, and finds none.
    let mut client = collector.accept()?;
    let first = client.hear(|| {
        ensure!(!link.exists() && fs::symlink_metadata(&link).is_err());
        Ok(())
    })?;
    // On the same connection: Nix's collector may end by itself when there are many in a row.
    let second = client.hear(|| {
        ensure!(fs::read_link(&link)?.as_os_str() == path.as_str());
        Ok(())
    })?;
    ensure!(first == path && second == path, "{first}, {second}");
    let added = adding.finish()?;
    ensure!(added.code() == Some(0), "{added}");
    Ok(())
}

fn a_root_that_came_too_late_is_none() -> Result<()> {
    come_too_late(None)
}

fn a_root_that_came_too_late_leaves_the_one_before() -> Result<()> {
    come_too_late(Some("before"))
}

/// Adds a root while a collector is at work that has decided already; the link leads to an object of the name `before` then,
/// if there is one.
fn come_too_late(before: Option<&str>) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let link = layers.join("result");
    let before = before
        .map(|name| layers.add_below(name, "before\n", &[]))
        .transpose()?;
    if let Some(before) = &before {
        layers.below()?.arg("add-root").arg(&link).arg(before).succeed()?;
    }
    let collector = Collector::begin(&layers)?;
    let adding = layers.below()?.arg("add-root").arg(&link).arg(&path).start()?;
    let mut client = collector.accept()?;
    client.hear(|| Ok(()))?;
    // It had decided before; the answer comes when the path is gone.
    client.hear(|| {
        let database = Connection::open(layers.lower_database())?;
        database.execute("delete from ValidPaths where path = ?", [&path])?;
        Ok(())
    })?;
    let added = adding.finish()?;
    ensure!(
        added.code() == Some(1) && added.errors().contains("is not valid"),
        "{added}"
    );
    let left = fs::read_link(&link).ok();
    ensure!(left == before.map(Into::into), "the link leads to {left:?}");
    Ok(())
}
