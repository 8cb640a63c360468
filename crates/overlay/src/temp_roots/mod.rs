// SPDX-License-Identifier: MIT OR Apache-2.0
//! Temporary roots: what a running process is about to use, in a file of its own below `temproots`.
//!
//! The file holds full store paths, each followed by a NUL, and its owner keeps it locked for life; a file that can be
//! locked has lost its owner. A collector holds `gc.lock` for itself. It reads the files once, at its beginning, and
//! later roots are handed to it through a socket; so a root is in force when it was written while no collector ran, or
//! when the collector has acknowledged it. A root must be in force before the question whether its object exists.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::path::Arg;
use superpose_store_path::{StoreDir, StorePath};

use crate::error::{Error, Result};
use crate::flock::{self, LockMode, LockWait};
use crate::gc_lock;
use crate::path_lock::{is_current, remove_marked};
use crate::state_dir::{Directory, GC_SOCKET, StateDir};

mod abandoned;
mod listen;
mod records;
mod scan;

pub(crate) use abandoned::{Abandoned, take_up};
pub(crate) use listen::Listener;
pub(crate) use scan::scan;

/// Process ids of Linux are smaller than this, whatever `/proc/sys/kernel/pid_max` says.
const PID_LIMIT: u32 = 1 << 22;

/// How many names there are for one process id: what a number of 31 bits leaves.
const NAMES_PER_PID: u32 = 1 << 9;

/// Pause before a collector that does not listen is asked again; the same as in Nix.
const COLLECTOR_PAUSE: Duration = Duration::from_millis(100);

/// What a collector answers to each root.
const ACKNOWLEDGED: u8 = b'1';

/// Longest path that fits into the address of a socket, with its NUL.
const SOCKET_PATH_MAX: usize = 107;

/// The temporary roots of one open store. Can be used by several threads.
///
/// The file is made with the first root and removed when this is dropped.
///
/// # Deviation
/// Nix names the file by its process id and removes what has that name. Two processes with the same id in two PID
/// namespaces, or two open stores in one process, would remove each other's file, and with it their roots. Here the
/// name is a number beyond all process ids (the process id plus a multiple of 2^22) that no living process uses. It
/// stays below 2^31, as Nix before 2.35 needs it.
#[derive(Debug)]
pub(crate) struct TempRoots {
    state: StateDir,
    store_dir: StoreDir,
    /// How many there may be.
    limit: usize,
    own: Mutex<Option<OwnFile>>,
}

/// The file of this store, and what is in it.
#[derive(Debug)]
struct OwnFile {
    directory: Directory,
    name: String,
    file: OwnedFd,
    gc_lock: OwnedFd,
    size: u64,
    /// How many roots were written: those of a wait that ended too early, too.
    written: usize,
    /// Roots that are in force.
    roots: HashSet<StorePath>,
    /// The collector that was asked last. It is kept: Nix's (2.34 at least) ends by itself when one connection is closed
    /// and another one made while it is still busy with the first.
    collector: Option<UnixStream>,
}

impl TempRoots {
    /// Prepares for roots of the given store. Nothing is written yet.
    pub(crate) fn new(state: &StateDir, store_dir: &StoreDir) -> Self {
        Self::of_at_most(usize::MAX, state, store_dir)
    }

    /// The same for somebody who may not have more than so many.
    pub(crate) fn of_at_most(limit: usize, state: &StateDir, store_dir: &StoreDir) -> Self {
        Self {
            state: state.clone(),
            store_dir: store_dir.clone(),
            limit,
            own: Mutex::new(None),
        }
    }

    /// Puts roots in force, many at the price of one. A collector that is running is waited for.
    ///
    /// Must not be called with a path lock held, which a collector could wait for; nor by a collector, who would wait
    /// for himself. `on_wait` is called once, with the path of the lock, if a collector runs.
    ///
    /// # Errors
    /// [`Error::LockHeld`] if `wait` ended before all roots were in force; [`Error::TooManyTempRoots`], and none is added then; if
    /// the file cannot be made or written.
    pub(crate) fn add<'path>(
        &self,
        paths: impl IntoIterator<Item = &'path StorePath>,
        wait: LockWait,
        on_wait: &mut dyn FnMut(&Path),
    ) -> Result<()> {
        // The state behind a poisoned lock is sound: roots are remembered only after they are in force.
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashSet::new();
        let paths: Vec<StorePath> = paths
            .into_iter()
            .filter(|path| own.as_ref().is_none_or(|own| !own.roots.contains(*path)) && seen.insert(*path))
            .cloned()
            .collect();
        if paths.is_empty() {
            return Ok(());
        }
        let found = own.as_ref().map_or(0, |own| own.written) + paths.len();
        if found > self.limit {
            let limit = self.limit;
            return Err(Error::TooManyTempRoots { limit, found });
        }
        if own.is_none() {
            *own = Some(OwnFile::create(&self.state)?);
        }
        let own = own.as_mut().expect("made just now");
        own.put_in_force(
            &self.state,
            &self.store_dir,
            &paths,
            Written::NotYet,
            wait,
            on_wait,
        )?;
        own.roots.extend(paths);
        Ok(())
    }

    /// Makes sure that a collector which began since they were added knows these roots, without waiting for its end.
    ///
    /// Nix's collector looks for links first and reads temporary roots much later. A process that made a link in between
    /// and ended would be missed by both; it must not end before the collector has heard of the root, or none runs.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn confirm(
        &self,
        paths: &[StorePath],
        wait: LockWait,
        on_wait: &mut dyn FnMut(&Path),
    ) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match own.as_mut() {
            Some(own) => own.put_in_force(
                &self.state,
                &self.store_dir,
                paths,
                Written::Already,
                wait,
                on_wait,
            ),
            None => Ok(()),
        }
    }
}

/// Whether roots are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Already,
    NotYet,
}

impl OwnFile {
    /// Makes and locks a file whose name nobody uses.
    fn create(state: &StateDir) -> Result<Self> {
        let gc_lock = gc_lock::open(state, "add temporary roots")?;
        let directory = state.temp_roots()?.ok_or_else(|| {
            Error::io(
                "open the directory",
                state.path().join("temproots"),
                io::Error::from(Errno::NOENT),
            )
        })?;
        let pid = std::process::id() % PID_LIMIT;
        for number in 1..NAMES_PER_PID {
            let name = (pid + number * PID_LIMIT).to_string();
            let path = directory.path().join(&name);
            let fail = |error: io::Error| Error::io("create the temporary roots", &path, error);
            if let Some(file) = claim(&directory, &name).map_err(fail)? {
                return Ok(Self {
                    directory,
                    name,
                    file,
                    gc_lock,
                    size: 0,
                    written: 0,
                    roots: HashSet::new(),
                    collector: None,
                });
            }
        }
        Err(Error::io(
            "create the temporary roots",
            directory.path(),
            io::Error::from(Errno::EXIST),
        ))
    }

    fn put_in_force(
        &mut self,
        state: &StateDir,
        store_dir: &StoreDir,
        paths: &[StorePath],
        mut written: Written,
        wait: LockWait,
        on_wait: &mut dyn FnMut(&Path),
    ) -> Result<()> {
        let lock_path = state.gc_lock_path();
        let begin = Instant::now();
        let deadline = wait.deadline();
        let mut is_first = true;
        loop {
            let free = flock::try_acquire(self.gc_lock.as_fd(), LockMode::Shared)
                .map_err(|error| Error::io("lock", &lock_path, error))?;
            if free {
                let result = match written {
                    Written::Already => Ok(()),
                    Written::NotYet => self.write(store_dir, paths),
                };
                flock::release(self.gc_lock.as_fd())
                    .map_err(|error| Error::io("unlock", &lock_path, error))?;
                return result;
            }
            // Written before the collector is asked: the next one may start as soon as this one has answered, and it
            // only reads the file.
            if written == Written::NotYet {
                self.write(store_dir, paths)?;
                written = Written::Already;
            }
            if std::mem::take(&mut is_first) && wait != LockWait::Never {
                on_wait(&lock_path);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::LockHeld {
                    path: lock_path,
                    waited: begin.elapsed(),
                });
            }
            match ask_collector(&mut self.collector, state, store_dir, paths, deadline) {
                Ok(Answer::Acknowledged) => return Ok(()),
                Ok(Answer::Gone) => {}
                Ok(Answer::NotListening) => {
                    thread::sleep(left.unwrap_or(COLLECTOR_PAUSE).min(COLLECTOR_PAUSE))
                }
                Err(error) => {
                    return Err(Error::io(
                        "hand temporary roots to",
                        state.path().join(GC_SOCKET),
                        error,
                    ));
                }
            }
        }
    }

    /// Appends the paths in one write. Of a failed write nothing stays: what the next one would leave of it could be
    /// half a path, and a collector fails on that.
    fn write(&mut self, store_dir: &StoreDir, paths: &[StorePath]) -> Result<()> {
        let mut text = String::new();
        for path in paths {
            store_dir.push(path, &mut text);
            text.push('\0');
        }
        let fail = |error: io::Error| Error::io("write", self.directory.path().join(&self.name), error);
        match write_at(&self.file, text.as_bytes(), self.size) {
            Ok(()) => {
                self.size += text.len() as u64;
                self.written += paths.len();
                Ok(())
            }
            Err(error) => {
                rustix::fs::ftruncate(&self.file, self.size).map_err(|error| fail(error.into()))?;
                Err(fail(error))
            }
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Nobody else removes a file that is locked, so the name is still ours.
        if let Err(error) = rustix::fs::unlinkat(self.directory.fd(), &self.name, AtFlags::empty()) {
            tracing::debug!(name = self.name, %error, "a file of temporary roots stays behind");
        }
    }
}

/// Writes all of `text` at `offset`.
fn write_at(file: &OwnedFd, mut text: &[u8], mut offset: u64) -> io::Result<()> {
    while !text.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, text, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                text = &text[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Makes and locks the file `name`; `None` if it belongs to a living process. A file without an owner is replaced.
fn claim(directory: &Directory, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    loop {
        match rustix::fs::openat(directory.fd(), name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => {
                // Until it is locked it looks abandoned, and may be removed.
                rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
                let marked = rustix::fs::fstat(&file)?.st_size != 0;
                if !marked && is_current(directory.fd(), name, file.as_fd())? {
                    return Ok(Some(file));
                }
            }
            Err(Errno::EXIST) => {
                let file = match rustix::fs::openat(directory.fd(), name, flags, Mode::empty()) {
                    Ok(file) => file,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                };
                if !flock::try_acquire(file.as_fd(), LockMode::Exclusive)? {
                    return Ok(None);
                }
                remove_if_current(directory, name, file.as_fd())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a locked file whose owner is dead, unless the name belongs to another file by now.
fn remove_if_current(directory: &Directory, name: impl Arg + Copy, file: BorrowedFd<'_>) -> io::Result<()> {
    let ours = rustix::fs::fstat(file)?;
    match rustix::fs::statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {
            remove_marked(directory.fd(), name, file)
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What came of asking a running collector.
enum Answer {
    /// It knows all roots now.
    Acknowledged,
    /// It ended before it knew them all.
    Gone,
    /// It does not listen, or not yet.
    NotListening,
}

/// Hands the roots to the collector that runs: one line each, one byte in return. The connection is kept unless it has
/// ended or is in the middle of something.
fn ask_collector(
    kept: &mut Option<UnixStream>,
    state: &StateDir,
    store_dir: &StoreDir,
    paths: &[StorePath],
    deadline: Option<Instant>,
) -> io::Result<Answer> {
    let mut stream = match kept
        .take()
        .map_or_else(|| UnixStream::connect(socket_path(state)), Ok)
    {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Ok(Answer::NotListening);
        }
        Err(error) => return Err(error),
    };
    for path in paths {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Answer::Gone);
        }
        stream.set_read_timeout(left)?;
        stream.set_write_timeout(left)?;
        let mut answer = [0];
        let exchanged = send_all(&stream, format!("{}\n", store_dir.display(path)).as_bytes())
            .and_then(|()| stream.read_exact(&mut answer));
        match exchanged {
            Ok(()) if answer[0] == ACKNOWLEDGED => {}
            Ok(()) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the answer is not the expected `1`",
                ));
            }
            // The time is over, or the collector is: the caller finds out which.
            Err(error) if is_end(&error) => return Ok(Answer::Gone),
            Err(error) => return Err(error),
        }
    }
    *kept = Some(stream);
    Ok(Answer::Acknowledged)
}

/// Sends all of `text`. A collector that has ended is an error, and not a signal that ends this process too.
fn send_all(stream: &UnixStream, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::net::send(stream, text, SendFlags::NOSIGNAL))?;
        text = &text[count..];
    }
    Ok(())
}

/// Tells whether the other side is gone, or the time is over.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | UnexpectedEof | WouldBlock | TimedOut
    )
}

/// Returns a path of the collector's socket that is short enough for an address.
fn socket_path(state: &StateDir) -> PathBuf {
    let path = state.path().join(GC_SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return path;
    }
    PathBuf::from(format!("/proc/self/fd/{}", state.fd().as_raw_fd())).join(GC_SOCKET)
}

#[cfg(test)]
mod listen_tests;
#[cfg(test)]
mod tests;
