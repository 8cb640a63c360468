// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permanent roots: the links below `gcroots` and `profiles` in the state directory.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use superpose_store_path::{StoreDir, StorePath};

use super::{Root, Stale, link};
use crate::error::{Error, Result};
use crate::state_dir::{Directory, StateDir};

/// What is found below `gcroots` and `profiles`.
#[derive(Debug, Default)]
pub(crate) struct PermanentRoots {
    /// The roots, sorted; an indirect one under the name of the link that it leads to.
    pub(crate) roots: Vec<Root>,
    /// Links in `gcroots/auto` to what is no longer there.
    pub(crate) stale: Vec<PathBuf>,
    /// What could not be read, and keeps nothing therefore; perhaps with more privileges it would.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// A link or directory that could not be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The path that could not be read.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) error: io::Error,
}

/// Finds the permanent roots of a store.
///
/// Links to directories are not followed into them, and chains of links are followed for one step: from a link to the
/// user's link, and from that into the store.
///
/// # Errors
/// If a directory cannot be read for another reason than that it is gone or not readable for us. To go on could
/// remove what is in use.
///
/// # Deviation
/// Nix removes stale links in `gcroots/auto` even in a dry run; here the caller says whether. Nix takes the text of a
/// user's link as it is; here a relative one that leads into the store counts too.
pub(crate) fn scan(state: &StateDir, store_dir: &StoreDir, stale: Stale) -> Result<PermanentRoots> {
    if stale == Stale::Remove {
        state.ensure_writable("remove stale roots")?;
    }
    let mut scan = Scan {
        store_dir,
        auto: state.auto_roots_path(),
        stale,
        roots: BTreeSet::new(),
        found: PermanentRoots::default(),
        pending: Vec::new(),
    };
    for top in [state.gc_roots(), state.profiles()] {
        match top {
            Ok(None) => {}
            Ok(Some(top)) => scan.tree(&top)?,
            Err(Error::Io { path, source, .. }) if is_unreadable(&source) => {
                scan.found.unreadable.push(Unreadable { path, error: source });
            }
            Err(error) => return Err(error),
        }
    }
    let mut found = scan.found;
    found.roots = scan.roots.into_iter().collect();
    found.stale.sort_unstable();
    Ok(found)
}

/// Tells whether a file is gone, not for us, or not what it was a moment ago. Everything else, as too many open files
/// or a broken disk, says nothing about the file, and stops the scan.
fn is_unreadable(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
    )
}

/// A scan under way.
struct Scan<'a> {
    store_dir: &'a StoreDir,
    auto: PathBuf,
    stale: Stale,
    /// Roots so far; a profile's generation is found both by itself and through the profile's link.
    roots: BTreeSet<Root>,
    found: PermanentRoots,
    /// Directories to be read.
    pending: Vec<Pending>,
}

/// A directory that is to be read.
struct Pending {
    parent: Rc<OwnedFd>,
    name: Vec<u8>,
    path: PathBuf,
}

impl Scan<'_> {
    /// Scans a directory and all below it.
    fn tree(&mut self, top: &Directory) -> Result<()> {
        let fd = top
            .fd()
            .try_clone_to_owned()
            .map_err(|error| Error::io("open", top.path(), error))?;
        self.directory(Rc::new(fd), top.path())?;
        while let Some(next) = self.pending.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&*next.parent, OsStr::from_bytes(&next.name), flags, Mode::empty()) {
                Ok(fd) => self.directory(Rc::new(fd), &next.path)?,
                Err(error) => self.unreadable("open the directory", next.path, error.into())?,
            }
        }
        Ok(())
    }

    /// Scans the entries of one directory, and puts off those that are directories.
    fn directory(&mut self, fd: Rc<OwnedFd>, path: &Path) -> Result<()> {
        let fail = |error: Errno| Error::io("read the directory", path, error);
        for entry in Dir::read_from(&*fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let entry_path = path.join(OsStr::from_bytes(name.to_bytes()));
            let file_type = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(error) => {
                        self.unreadable("examine", entry_path, error.into())?;
                        continue;
                    }
                },
                known => known,
            };
            match file_type {
                FileType::Directory => {
                    self.pending.push(Pending {
                        parent: Rc::clone(&fd),
                        name: name.to_bytes().to_vec(),
                        path: entry_path,
                    });
                }
                FileType::Symlink => self.link(fd.as_fd(), name, entry_path)?,
                FileType::RegularFile => {
                    if let Some(object) = link::base_name(OsStr::from_bytes(name.to_bytes())) {
                        self.root(entry_path, object);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Follows a link: into the store, or to a link into the store.
    fn link(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: PathBuf) -> Result<()> {
        let text = match rustix::fs::readlinkat(directory, name, Vec::new()) {
            Ok(text) => text,
            Err(error) => return self.unreadable("read the link", path, error.into()),
        };
        let target = link::resolve(parent(&path), text.to_bytes());
        if link::is_in_store(self.store_dir, &target) {
            self.target_in_store(path, &target);
            return Ok(());
        }
        match self.user_link(&target)? {
            Followed::Missing if path.starts_with(&self.auto) => {
                self.stale_link(directory, name, path, &text, &target)
            }
            Followed::Missing | Followed::Done => Ok(()),
        }
    }

    /// Looks where an indirect root leads to: it keeps something only if that is a link into the store.
    fn user_link(&mut self, target: &Path) -> Result<Followed> {
        match rustix::fs::readlinkat(CWD, target, Vec::new()) {
            Ok(text) => {
                let object = link::resolve(parent(target), text.to_bytes());
                if link::is_in_store(self.store_dir, &object) {
                    self.target_in_store(target.to_owned(), &object);
                }
                Ok(Followed::Done)
            }
            // There is something, but it is no link.
            Err(Errno::INVAL) => Ok(Followed::Done),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Followed::Missing),
            Err(error) => self
                .unreadable("read the link", target.to_owned(), error.into())
                .map(|()| Followed::Done),
        }
    }

    /// Reports and perhaps removes a link to what is no longer there.
    ///
    /// Somebody may make both links anew at this moment, without any lock: first the user's link, then, by a rename,
    /// the one in `gcroots/auto`. It is his link that is removed then; so it is put back if its target is there after
    /// the removal. A target that comes later still has its own link to come.
    fn stale_link(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: PathBuf,
        text: &CStr,
        target: &Path,
    ) -> Result<()> {
        if self.stale == Stale::Remove {
            tracing::info!(link = %path.display(), target = %target.display(), "removing stale link");
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("remove the stale link", path, error)),
            }
            if let Followed::Done = self.user_link(target)? {
                return match rustix::fs::symlinkat(text, directory, name) {
                    Ok(()) | Err(Errno::EXIST) => Ok(()),
                    Err(error) => Err(Error::io("put back the link", path, error)),
                };
            }
        }
        self.found.stale.push(path);
        Ok(())
    }

    /// Takes note of a link into the store, if it leads to an object and not to, say, `.links`.
    fn target_in_store(&mut self, link: PathBuf, target: &Path) {
        match link::object(self.store_dir, target) {
            Some(object) => self.root(link, object),
            None => {
                tracing::debug!(link = %link.display(), target = %target.display(), "no object, so no root")
            }
        }
    }

    fn root(&mut self, link: PathBuf, path: StorePath) {
        self.roots.insert(Root { link, path });
    }

    /// Takes note of what could not be read, or stops.
    fn unreadable(&mut self, operation: &'static str, path: PathBuf, error: io::Error) -> Result<()> {
        if !is_unreadable(&error) {
            return Err(Error::io(operation, path, error));
        }
        self.found.unreadable.push(Unreadable { path, error });
        Ok(())
    }
}

/// What came of following an indirect root.
enum Followed {
    /// Its target does not exist.
    Missing,
    /// Its target exists, or nobody may tell us; if it is a link into the store, it is among the roots.
    Done,
}

/// The directory that a link is in.
fn parent(link: &Path) -> &Path {
    link.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests;
