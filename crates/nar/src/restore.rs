// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making an object from its archive.

use std::ffi::{CStr, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::create::{Builder, RestoreOptions};
use crate::dump::Hashed;
use crate::error::{Error, Result};
use crate::kind::{ObjectKind, TreeStats};
use crate::path::{Trail, object_name};
use crate::pipeline::{Pipeline, Taps, hashed};
use crate::reader::{Event, Reader};
use crate::remove::remove_tree;
use crate::stream::Stream;

/// Makes the object `name` in an open directory from an archive, with canonical metadata.
///
/// Files are 0444 or 0555, directories 0555; everything belongs to the effective user and group of the process, was
/// modified one second past the epoch, and has no extended attributes. All of it is set while unpacking; there is no
/// second pass. The name must not exist; nothing outside it is touched, whatever the archive says. The archive is read
/// up to its end and not further. When the call fails, what had been made is removed.
///
/// # Errors
/// [`Error::Malformed`] or [`Error::Read`] for the archive, [`Error::System`] for the file system (a name that exists
/// has the kind `AlreadyExists`), [`Error::LeftBehind`] if cleaning up failed as well.
///
/// # Deviation
/// Nix up to 2.35 leaves the metadata to a second pass, and leaves the files behind when it fails.
pub fn restore(
    nar: &mut impl Read,
    directory: impl AsFd,
    name: impl AsRef<OsStr>,
    options: &RestoreOptions,
) -> Result<TreeStats> {
    let name = object_name(name.as_ref())?;
    let mut builder = Builder::new();
    let result = unpack(&mut builder, nar, directory.as_fd(), &name, options);
    match result {
        Err(error) if builder.has_root() => Err(undo(directory.as_fd(), &name, error)),
        result => result,
    }
}

/// As [`restore`], and hashes the archive (SHA-256) on a thread of its own meanwhile.
///
/// # Errors
/// As [`restore`]; and when a tap fails.
pub fn restore_hashed(
    nar: &mut impl Read,
    directory: impl AsFd,
    name: impl AsRef<OsStr>,
    options: &RestoreOptions,
    taps: Taps<'_>,
) -> Result<Hashed> {
    let name = object_name(name.as_ref())?;
    let mut builder = Builder::new();
    let result = hashed(name.to_bytes(), taps, |stream| {
        let mut tee = Tee {
            source: nar,
            stream,
            failed: None,
        };
        let result = unpack(&mut builder, &mut tee, directory.as_fd(), &name, options);
        match tee.failed {
            Some(source) => Err(Error::Write {
                path: Trail::new(name.to_bytes()).to_path(),
                source,
            }),
            None => Ok((result?, tee.stream)),
        }
    });
    match result {
        Ok((tree, nar)) => Ok(Hashed { nar, tree }),
        Err(error) if builder.has_root() => Err(undo(directory.as_fd(), &name, error)),
        Err(error) => Err(error),
    }
}

/// Removes what was made of an object before the error.
pub(crate) fn undo(directory: BorrowedFd<'_>, name: &CStr, error: Error) -> Error {
    match remove_tree(directory, OsStr::from_bytes(name.to_bytes())) {
        Ok(_) => error,
        Err(gone) if gone.io_kind() == Some(io::ErrorKind::NotFound) => error,
        Err(cleanup) => Error::LeftBehind {
            path: Trail::new(name.to_bytes()).to_path(),
            cleanup: Box::new(cleanup),
            source: Box::new(error),
        },
    }
}

/// Passes on what is read to the hashing thread.
struct Tee<'r, 'scope, 'env, R> {
    source: &'r mut R,
    stream: Stream<Pipeline<'scope, 'env>>,
    /// The error of a tap, which is no error of the source.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<'_, '_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if let Err(error) = self.stream.put(buffer.get(..read).unwrap_or_default()) {
            self.failed = Some(error);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(read)
    }
}

fn unpack(
    builder: &mut Builder,
    nar: &mut impl Read,
    directory: BorrowedFd<'_>,
    name: &CStr,
    options: &RestoreOptions,
) -> Result<TreeStats> {
    let mut reader = Reader::new(nar);
    let mut stats = TreeStats::new();
    let mut trail = Trail::new(name.to_bytes());
    let root = name;
    let mut name = EntryName(root.to_bytes_with_nul().to_vec());
    let mut open: Vec<OwnedFd> = Vec::new();
    loop {
        let parent = open.last().map_or(directory, AsFd::as_fd);
        match reader.next_event()? {
            Event::Entry(entry) => {
                trail.enter(entry);
                name.set(entry);
            }
            Event::Directory => {
                let made = builder.directory(parent, name.get(), &trail)?;
                stats.count(ObjectKind::Directory);
                open.push(made);
                continue;
            }
            Event::Symlink(target) => {
                builder.symlink(parent, name.get(), target, &trail)?;
                stats.count(ObjectKind::Symlink);
                trail.leave_last();
            }
            Event::File { executable, size } => {
                let file = builder.file(parent, name.get(), executable, &trail)?;
                loop {
                    let chunk = reader.next_chunk()?;
                    if chunk.is_empty() {
                        break;
                    }
                    builder.write(file.as_fd(), chunk, &trail)?;
                }
                builder.finish_file(file, &trail)?;
                stats.count(ObjectKind::File);
                stats.content_bytes = stats.content_bytes.saturating_add(size);
                trail.leave_last();
            }
            Event::EndDirectory => {
                if let Some(directory) = open.pop() {
                    builder.finish_directory(directory, &trail)?;
                }
                trail.leave_last();
            }
            Event::End => break,
        }
    }
    stats.nar_size = reader.offset();
    builder.sync(directory, root, options.sync, &trail)?;
    Ok(stats)
}

/// The name of the entry at hand, with the closing NUL that the system wants.
struct EntryName(Vec<u8>);

impl EntryName {
    fn set(&mut self, name: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(name);
        self.0.push(0);
    }

    fn get(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("the reader lets no name with a NUL pass")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_removed_is_named() {
        // Below a file there is nothing that could be removed, so that cleaning up fails.
        let file = tempfile::tempfile().unwrap();
        let first = Error::ObjectName { name: "first".into() };
        let found = undo(file.as_fd(), c"x", first);
        let Error::LeftBehind {
            path,
            cleanup,
            source,
        } = &found
        else {
            panic!("{found:?}")
        };
        assert_eq!(path.as_os_str(), "x");
        assert_eq!(cleanup.io_kind(), Some(io::ErrorKind::NotADirectory));
        assert!(matches!(**source, Error::ObjectName { .. }));
    }
}
