// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing the archive of an object.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::{Error, Result};
use crate::hashing::NarHash;
use crate::kind::TreeStats;
use crate::path::{Trail, object_name};
use crate::pipeline::{Taps, hashed};
use crate::stream::{Stream, WriteDrain};
use crate::walk::{Mirror, Walk};

/// Size of the buffer in bytes. Writes to the receiver are of about this size.
const BUFFER: usize = 128 * 1024;

/// Writes the archive of the object `name` in an open directory.
///
/// Names are bytes; links are never followed, not even by a race; hard links become separate files; holes become
/// zeros. The receiver gets large writes, and is not flushed. Nothing is held in memory but one buffer and the names in
/// the directories that are being visited.
///
/// # Errors
/// Any [`Error`] but those of reading an archive. [`Error::Changed`] when a file grew or shrank meanwhile. What has
/// been written by then is no archive.
///
/// # Deviation
/// Nix 2.26 writes trees deeper than 63 directories; here, as in newer versions, they are an error.
pub fn dump(directory: impl AsFd, name: impl AsRef<OsStr>, out: &mut impl Write) -> Result<TreeStats> {
    let name = object_name(name.as_ref())?;
    dump_to(directory.as_fd(), &name, Trail::new(name.to_bytes()), out)
}

/// Writes the archive of what a path names; of the link itself, if it is a symbolic link.
///
/// Only the last component is protected against links; those before it are resolved as usual.
///
/// # Errors
/// As [`dump`]; and when the parent directory cannot be opened.
pub fn dump_path(path: impl AsRef<Path>, out: &mut impl Write) -> Result<TreeStats> {
    let path = path.as_ref();
    let (parent, name) = open_parent(path)?;
    dump_to(
        parent.as_fd(),
        &name,
        Trail::new(path.as_os_str().as_bytes()),
        out,
    )
}

/// Hashes the archive of an object (SHA-256) on a thread of its own, beside the reading.
///
/// To hash many objects on several threads, [`dump`] each into a [`crate::HashingWriter`] instead.
///
/// # Errors
/// As [`dump`].
pub fn hash_object(directory: impl AsFd, name: impl AsRef<OsStr>) -> Result<NarHash> {
    hash_object_with(directory, name, Taps::none()).map(|hashed| hashed.nar)
}

/// As [`hash_object`], with further receivers of the archive, and with what was found in it.
///
/// # Errors
/// As [`dump`]; and when a tap fails.
pub fn hash_object_with(directory: impl AsFd, name: impl AsRef<OsStr>, taps: Taps<'_>) -> Result<Hashed> {
    let name = object_name(name.as_ref())?;
    let (tree, nar) = hashed(name.to_bytes(), taps, |stream| {
        let walk = Walk::new(stream, Nowhere, Trail::new(name.to_bytes()));
        let (tree, stream, Nowhere) = walk.run(directory.as_fd(), &name, &(), &name);
        Ok((tree?, stream))
    })?;
    Ok(Hashed { nar, tree })
}

/// The hash of an archive, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// SHA-256 and size of the archive.
    pub nar: NarHash,
    /// What the archive holds.
    pub tree: TreeStats,
}

fn dump_to(directory: BorrowedFd<'_>, name: &CStr, trail: Trail, out: &mut impl Write) -> Result<TreeStats> {
    let path = trail.to_path();
    let stream = Stream::new(BUFFER, WriteDrain(out));
    let (tree, stream, Nowhere) = Walk::new(stream, Nowhere, trail).run(directory, name, &(), name);
    let tree = tree?;
    stream.finish().map_err(|source| Error::Write { path, source })?;
    Ok(tree)
}

/// Opens the directory that holds the last component of a path.
fn open_parent(path: &Path) -> Result<(OwnedFd, CString)> {
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => (Path::new("."), object_name(name)?),
        (Some(parent), Some(name)) => (parent, object_name(name)?),
        // The root directory, `.`, or a path that ends in `..`: a directory that has no name of its own here.
        _ => (path, c".".to_owned()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, parent, flags, Mode::empty())
        .map_err(|errno| Trail::new(parent.as_os_str().as_bytes()).failed("open the directory")(errno))?;
    Ok((directory, name))
}

/// Makes nothing.
struct Nowhere;

/// A file that is never made.
struct NoFile(Infallible);

impl AsFd for NoFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl Mirror for Nowhere {
    type Directory = ();
    type File = NoFile;

    fn directory(&mut self, (): &(), _: &CStr, _: &Trail) -> Result<()> {
        Ok(())
    }

    fn finish_directory(&mut self, (): (), _: &Trail) -> Result<()> {
        Ok(())
    }

    fn symlink(&mut self, (): &(), _: &CStr, _: &[u8], _: &Trail) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, (): &(), _: &CStr, _: bool, _: &Trail) -> Result<Option<NoFile>> {
        Ok(None)
    }

    fn share(&mut self, file: &NoFile, _: BorrowedFd<'_>, _: u64) -> bool {
        match file.0 {}
    }

    fn write(&mut self, file: &NoFile, _: &[u8], _: &Trail) -> Result<()> {
        match file.0 {}
    }

    fn finish_file(&mut self, file: NoFile, _: &Trail) -> Result<()> {
        match file.0 {}
    }
}
