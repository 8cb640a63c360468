// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reaching a daemon's socket.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Longest path in the address of a socket, in bytes.
const MAX_PATH: usize = 107;

/// How often a daemon is tried whose queue of clients is full, or that is not there yet.
const PAUSE: Duration = Duration::from_millis(10);

/// What becomes of a daemon that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// An error at once.
    Refused,
    /// It was there a moment ago, so it may be starting anew: it is waited for.
    Awaited(Duration),
}

/// Connects to a socket; what comes back does not block.
pub(super) fn reach(path: &Path, limit: Duration, absent: Absent) -> io::Result<UnixStream> {
    let started = Instant::now();
    loop {
        let patience = match attempt(path) {
            Ok(stream) => return Ok(stream),
            // Too many others are waiting to be let in.
            Err(error) if error.kind() == ErrorKind::WouldBlock => (limit, ErrorKind::TimedOut.into()),
            Err(error) => match (error.kind(), absent) {
                (ErrorKind::NotFound | ErrorKind::ConnectionRefused, Absent::Awaited(limit)) => {
                    (limit, error)
                }
                _ => return Err(error),
            },
        };
        if started.elapsed() >= patience.0 {
            return Err(patience.1);
        }
        thread::sleep(PAUSE);
    }
}

fn attempt(path: &Path) -> io::Result<UnixStream> {
    // Held until the connection is made: it is what a short name leads through.
    let directory;
    let short: PathBuf;
    let address = if path.as_os_str().len() <= MAX_PATH {
        path
    } else {
        let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory = fs::open(parent, flags, Mode::empty())?;
        short = Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(name.unwrap_or(OsStr::new("")));
        &short
    };
    let address = SocketAddrUnix::new(address)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, &address) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(socket.into()),
        }
    }
}
