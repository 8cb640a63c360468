// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reaching a daemon's socket.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};

/// Longest path in the address of a socket, in bytes.
const MAX_PATH: usize = 107;

/// Connects to a socket, however long its path is.
pub(super) fn reach(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= MAX_PATH {
        return UnixStream::connect(path);
    }
    let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Held until the connection is made: it is what the short name leads through.
    let directory = fs::open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    UnixStream::connect(short.join(name.unwrap_or(OsStr::new(""))))
}
