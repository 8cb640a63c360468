// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets to listen at: of a name of our own, or handed over by a service manager.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use crate::error::{Error, Result};

/// Connections that wait to be taken, as in Nix.
const BACKLOG: i32 = 100;

/// Who may connect is decided by who he is, as in Nix.
const MODE: u32 = 0o666;

/// The first descriptor that a service manager hands over.
const FIRST: i32 = 3;

/// Most sockets that a service manager hands over.
const MOST: i32 = 16;

/// Longest path that fits into the address of a socket, with its NUL.
const PATH_MAX: usize = 107;

/// How long the directory of a socket may be locked by somebody else. A server that starts has it for a moment, but whoever may
/// open it can lock it for ever.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Pause before it is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The name that goes when this is dropped; a socket that was handed over keeps its own.
    name: Option<Name>,
}

/// A name that was made here, and which file it is.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    directory: OwnedFd,
    base: OsString,
    identity: (u64, u64),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Listens at a name of the file system. Missing directories are made; a socket that was left behind, at which nobody
    /// listens, is replaced. Everybody may connect: a server decides by who it is.
    ///
    /// # Errors
    /// [`Error::SocketTaken`] if somebody listens there already, or something else has the name: his clients would lose
    /// their server. [`Error::DirectoryLocked`] if somebody keeps the directory locked. If the socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self> {
        let fail = |error: Errno| Error::io("listen at", path, error);
        let path = std::path::absolute(path).map_err(|error| Error::io("listen at", path, error))?;
        let (Some(parent), Some(base)) = (path.parent(), path.file_name()) else {
            return Err(Error::SocketTaken {
                path,
                found: "a directory",
            });
        };
        fs::create_dir_all(parent).map_err(|error| Error::io("create the directory", parent, error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())
            .map_err(|error| Error::io("open the directory", parent, error))?;
        // Of two servers that start at once the second finds the first one listening.
        lock(&directory, parent, &path)?;
        let address = SocketAddrUnix::new(address(&path, &directory, base)).map_err(fail)?;
        make_room(&directory, base, &path, &address)?;
        let fd = stream_socket().map_err(fail)?;
        rustix::net::bind(&fd, &address).map_err(fail)?;
        let stat = rustix::fs::statat(&directory, base, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let name = Name {
            path: path.clone(),
            base: base.to_owned(),
            identity: (stat.st_dev, stat.st_ino),
            directory,
        };
        let socket = Self { fd, name: Some(name) };
        // Nobody can connect before it listens.
        let name = socket.name.as_ref().expect("given just now");
        rustix::fs::chmodat(
            &name.directory,
            &name.base,
            Mode::from_raw_mode(MODE),
            AtFlags::empty(),
        )
        .map_err(fail)?;
        rustix::net::listen(&socket.fd, BACKLOG).map_err(fail)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&name.directory, FlockOperation::Unlock))
            .map_err(fail)?;
        Ok(socket)
    }

    /// Takes the sockets that a service manager hands over, as systemd does: `pid` and `count` are its variables
    /// `LISTEN_PID` and `LISTEN_FDS`. None if they are not meant for this process.
    ///
    /// # Errors
    /// If what it says is no number, or what it handed over is no listening Unix socket.
    pub fn activated(pid: Option<&OsStr>, count: Option<&OsStr>) -> Result<Vec<Self>> {
        let (Some(pid), Some(count)) = (pid, count) else {
            return Ok(Vec::new());
        };
        let number = |name: &str, text: &OsStr| {
            let parsed = text.to_str().and_then(|text| text.parse::<i32>().ok());
            parsed.ok_or_else(|| Error::Activation {
                problem: format!("{name} is `{}`: expected a number", text.display()),
            })
        };
        let own = rustix::process::getpid();
        if number("LISTEN_PID", pid)? != own.as_raw_nonzero().get() {
            return Ok(Vec::new());
        }
        let count = number("LISTEN_FDS", count)?;
        if !(1..=MOST).contains(&count) {
            return Err(Error::Activation {
                problem: format!("LISTEN_FDS is {count}: expected 1 to {MOST}"),
            });
        }
        let fail = |error: Errno| Error::io("take over", "the sockets of the service manager", error);
        // By way of the process itself, which needs no promise that a number is an open descriptor.
        let process = rustix::process::pidfd_open(own, PidfdFlags::empty()).map_err(fail)?;
        let taken = (FIRST..FIRST + count).map(|number| {
            let fd =
                rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).map_err(fail)?;
            require_listening(&fd, number)?;
            // Several servers may share it, and another one may be quicker.
            rustix::io::ioctl_fionbio(&fd, true).map_err(fail)?;
            Ok(Self { fd, name: None })
        });
        taken.collect()
    }
}

impl Socket {
    /// Returns where it is; `None` for one that was handed over.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.name.as_ref().map(|name| &*name.path)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(name) = &self.name else {
            return;
        };
        // Somebody else may have the name by now.
        let found = rustix::fs::statat(&name.directory, &name.base, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == name.identity)
            && let Err(error) = rustix::fs::unlinkat(&name.directory, &name.base, AtFlags::empty())
        {
            tracing::warn!(socket = %name.base.display(), %error, "a socket stays behind");
        }
    }
}

/// Locks the directory of a socket, which others may have locked for a while.
fn lock(directory: &OwnedFd, name: &Path, socket: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_WAIT => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::DirectoryLocked {
                    path: socket.to_owned(),
                    directory: name.to_owned(),
                    waited: LOCK_WAIT,
                });
            }
            Err(error) => return Err(Error::io("lock the directory", name, error)),
        }
    }
}

/// A path of the socket that is short enough for an address.
fn address(path: &Path, directory: &OwnedFd, base: &OsStr) -> PathBuf {
    if path.as_os_str().len() <= PATH_MAX {
        return path.to_owned();
    }
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(base)
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes a socket at which nobody listens; refuses anything else.
fn make_room(directory: &OwnedFd, base: &OsStr, path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let fail = |error: Errno| Error::io("listen at", path, error);
    let taken = |found| {
        Err(Error::SocketTaken {
            path: path.to_owned(),
            found,
        })
    };
    match rustix::fs::statat(directory, base, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => {}
            FileType::Directory => return taken("a directory"),
            FileType::Symlink => return taken("a symbolic link"),
            _ => return taken("a file"),
        },
    }
    let probe = stream_socket().map_err(fail)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => rustix::fs::unlinkat(directory, base, AtFlags::empty()).map_err(fail),
        // It answers, or would if its queue were not full.
        Ok(()) | Err(Errno::AGAIN) => taken("a server that listens there"),
        Err(error) => Err(fail(error)),
    }
}

fn require_listening(fd: &OwnedFd, number: i32) -> Result<()> {
    use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
    let is_right = socket_domain(fd) == Ok(AddressFamily::UNIX)
        && socket_type(fd) == Ok(SocketType::STREAM)
        && socket_acceptconn(fd) == Ok(true);
    if is_right {
        return Ok(());
    }
    Err(Error::Activation {
        problem: format!("descriptor {number} is no Unix stream socket that listens"),
    })
}
