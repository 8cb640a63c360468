// SPDX-License-Identifier: MIT OR Apache-2.0
//! Temporary roots as a collector reads them.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use superpose_store_path::{StoreDir, StorePath};

use super::records::{self, RecordError};
use super::remove_if_current;
use crate::error::{Error, Result};
use crate::flock::{self, LockMode};
use crate::roots::Stale;
use crate::state_dir::{Directory, StateDir, describe_type};

/// An object that a running process is about to use.
///
/// Objects with the same hash part and another name are meant too: `<path>.lock`, `<path>.chroot`, `<path>.check`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TempRoot {
    /// Name of the file; with Nix, the process id of its owner.
    pub(crate) owner: String,
    /// The object.
    pub(crate) path: StorePath,
}

/// What is found below `temproots`.
#[derive(Debug, Default)]
pub(crate) struct TempRootScan {
    /// The roots of all living processes, sorted.
    pub(crate) roots: Vec<TempRoot>,
    /// The files whose owners are dead.
    pub(crate) stale: Vec<PathBuf>,
}

/// Reads the temporary roots of all living processes.
///
/// A collector must hold its lock before: later roots are not in what is returned.
///
/// # Errors
/// If a file cannot be read, is no regular file, or holds what is not a path of this store. To go on could remove what
/// is in use.
///
/// # Deviation
/// Nix before 2.35 fails on a file whose name is not a number, and every Nix removes stale files even in a dry run.
pub(crate) fn scan(state: &StateDir, store_dir: &StoreDir, stale: Stale) -> Result<TempRootScan> {
    let mut found = TempRootScan::default();
    let Some(directory) = state.temp_roots()? else {
        return Ok(found);
    };
    if stale == Stale::Remove {
        state.ensure_writable("remove stale temporary roots")?;
    }
    let fail = |error: Errno| Error::io("read the directory", directory.path(), error);
    for entry in Dir::read_from(directory.fd()).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy();
        if !name.starts_with('.') {
            read_file(&directory, entry.file_name(), &name, store_dir, stale, &mut found)?;
        }
    }
    found.roots.sort_unstable();
    found.roots.dedup();
    found.stale.sort_unstable();
    Ok(found)
}

fn read_file(
    directory: &Directory,
    name: &std::ffi::CStr,
    owner: &str,
    store_dir: &StoreDir,
    stale: Stale,
    found: &mut TempRootScan,
) -> Result<()> {
    let path = directory.path().join(owner);
    let Some(file) = open(directory, name, &path, stale)? else {
        return Ok(());
    };
    let abandoned = flock::try_acquire(file.as_fd(), LockMode::Exclusive)
        .map_err(|error| Error::io("lock the temporary roots", &path, error))?;
    if abandoned {
        if stale == Stale::Remove {
            tracing::info!(path = %path.display(), "removing stale temporary roots file");
            remove_if_current(directory, name, file.as_fd())
                .map_err(|error| Error::io("remove the stale temporary roots", &path, error))?;
        }
        found.stale.push(path);
        return Ok(());
    }
    let mut input = BufReader::new(File::from(file));
    let roots = &mut found.roots;
    records::read(&mut input, store_dir, |path| {
        roots.push(TempRoot {
            owner: owner.to_owned(),
            path,
        })
    })
    .map_err(|error| match error {
        RecordError::Io(source) => Error::io("read the temporary roots", path, source),
        RecordError::NotAPath { offset, source } => Error::TempRootRecord {
            path,
            offset,
            source: Box::new(source),
        },
    })
}

/// Opens a file of temporary roots; `None` if its owner has removed it meanwhile.
fn open(
    directory: &Directory,
    name: &std::ffi::CStr,
    path: &std::path::Path,
    stale: Stale,
) -> Result<Option<OwnedFd>> {
    // What is only reported is not written, and may be on a file system that cannot be.
    let access = match stale {
        Stale::Report => OFlags::RDONLY,
        Stale::Remove => OFlags::RDWR,
    };
    let wrong = |found| Error::WrongFileType {
        path: path.to_owned(),
        expected: "a regular file",
        found,
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory.fd(), name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(wrong("a symbolic link")),
        Err(Errno::ISDIR) => return Err(wrong("a directory")),
        Err(Errno::NXIO) => return Err(wrong("a socket")),
        Err(error) => return Err(Error::io("open the temporary roots", path, error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| Error::io("examine", path, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Some(file)),
        other => Err(wrong(describe_type(other))),
    }
}
