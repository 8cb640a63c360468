// SPDX-License-Identifier: MIT OR Apache-2.0
//! The walk over a tree that puts its archive together, and mirrors it elsewhere if asked to.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, fstat, readlinkat_raw, statat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::format::{
    CLOSE, DIRECTORY, ENTRY, EXECUTABLE, FILE, MAX_DEPTH, MAX_NAME, MAX_TARGET, NODE, START, SYMLINK,
};
use crate::kind::{ObjectKind, TreeStats, describe};
use crate::listing::{Listing, Scratch};
use crate::open;
use crate::path::Trail;
use crate::stream::{Drain, Stream};

/// The owner's permission to execute; the only bit of a mode that an archive knows.
pub(crate) const OWNER_EXECUTE: u32 = 0o100;

/// Where the nodes of a walk are made again, if anywhere.
pub(crate) trait Mirror {
    /// A directory that can be filled.
    type Directory;
    /// A file that can be written.
    type File: AsFd;

    fn directory(&mut self, parent: &Self::Directory, name: &CStr, trail: &Trail) -> Result<Self::Directory>;
    fn finish_directory(&mut self, directory: Self::Directory, trail: &Trail) -> Result<()>;
    fn symlink(&mut self, parent: &Self::Directory, name: &CStr, target: &[u8], trail: &Trail) -> Result<()>;

    /// Makes a file; `None` when nothing is to be written.
    fn file(
        &mut self,
        parent: &Self::Directory,
        name: &CStr,
        executable: bool,
        trail: &Trail,
    ) -> Result<Option<Self::File>>;
    /// Tries to share the contents of the source with the file. When it did, the walk reads them from there.
    fn share(&mut self, file: &Self::File, source: BorrowedFd<'_>, size: u64) -> bool;
    fn write(&mut self, file: &Self::File, bytes: &[u8], trail: &Trail) -> Result<()>;
    fn finish_file(&mut self, file: Self::File, trail: &Trail) -> Result<()>;
}

/// One walk. Everything is opened relative to its directory and never through a link.
pub(crate) struct Walk<D, M> {
    stream: Stream<D>,
    mirror: M,
    trail: Trail,
    scratch: Scratch,
    target: Box<[u8]>,
    stats: TreeStats,
}

impl<D: Drain, M: Mirror> Walk<D, M> {
    pub(crate) fn new(stream: Stream<D>, mirror: M, trail: Trail) -> Self {
        Self {
            stream,
            mirror,
            trail,
            scratch: Scratch::new(),
            target: vec![0; MAX_TARGET + 1].into_boxed_slice(),
            stats: TreeStats::new(),
        }
    }

    /// Archives the object `name`, and mirrors it as `mirror_name`.
    ///
    /// Gives back the stream, of which the last part has not been drained.
    pub(crate) fn run(
        mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        mirror_directory: &M::Directory,
        mirror_name: &CStr,
    ) -> (Result<TreeStats>, Stream<D>, M) {
        let result = self.put(&START).and_then(|()| {
            self.node(
                (directory, name),
                FileType::Unknown,
                0,
                (mirror_directory, mirror_name),
            )
        });
        self.stats.nar_size = self.stream.offset();
        (result.map(|()| self.stats), self.stream, self.mirror)
    }

    fn node(
        &mut self,
        (parent, name): (BorrowedFd<'_>, &CStr),
        kind: FileType,
        depth: usize,
        mirror: (&M::Directory, &CStr),
    ) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::TooDeep {
                path: self.trail.to_path(),
            });
        }
        let kind = match kind {
            FileType::Unknown => {
                let stat =
                    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.trail.failed("examine"))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::RegularFile => self.file(parent, name, mirror),
            FileType::Directory => self.directory(parent, name, depth, mirror),
            FileType::Symlink => self.symlink(parent, name, mirror),
            other => Err(self.unsupported(other)),
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
        (mirror_parent, mirror_name): (&M::Directory, &CStr),
    ) -> Result<()> {
        let directory = open::directory(parent, name).map_err(self.trail.failed("open the directory"))?;
        let mut listing = Listing::read(directory.as_fd(), &mut self.scratch)
            .map_err(self.trail.failed("read the directory"))?;
        listing.sort();
        let mirrored = self.mirror.directory(mirror_parent, mirror_name, &self.trail)?;
        self.stats.count(ObjectKind::Directory);
        self.put(&DIRECTORY)?;
        for (child, kind) in listing.iter() {
            let bytes = child.to_bytes();
            let mark = self.trail.enter(bytes);
            if bytes.len() > MAX_NAME {
                return Err(self.too_long("name", bytes.len(), MAX_NAME));
            }
            self.put(&ENTRY)?;
            self.put_string(bytes)?;
            self.put(&NODE)?;
            self.node((directory.as_fd(), child), kind, depth + 1, (&mirrored, child))?;
            self.put(&CLOSE)?;
            self.trail.leave(&mark);
        }
        self.put(&CLOSE)?;
        self.mirror.finish_directory(mirrored, &self.trail)
    }

    fn symlink(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        (mirror_parent, mirror_name): (&M::Directory, &CStr),
    ) -> Result<()> {
        let length = readlinkat_raw(parent, name, &mut *self.target)
            .map_err(self.trail.failed("read the symbolic link"))?;
        if length == 0 || length > MAX_TARGET {
            return Err(self.too_long("target", length, MAX_TARGET));
        }
        let target = &self.target[..length];
        self.stats.count(ObjectKind::Symlink);
        self.stream
            .put(&SYMLINK)
            .and_then(|()| self.stream.put_string(target))
            .and_then(|()| self.stream.put(&CLOSE))
            .map_err(|source| Error::Write {
                path: self.trail.to_path(),
                source,
            })?;
        self.mirror
            .symlink(mirror_parent, mirror_name, target, &self.trail)
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        (mirror_parent, mirror_name): (&M::Directory, &CStr),
    ) -> Result<()> {
        let source = self.open_file(parent, name)?;
        let stat = fstat(&source).map_err(self.trail.failed("examine"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            // It was something else a moment ago.
            other => return Err(self.unsupported(other)),
        }
        let size = u64::try_from(stat.st_size).map_err(|_| self.failed_with("examine", Errno::OVERFLOW))?;
        let executable = stat.st_mode & OWNER_EXECUTE != 0;
        self.stats.count(ObjectKind::File);
        self.stats.content_bytes = self.stats.content_bytes.saturating_add(size);

        self.put(if executable { &EXECUTABLE } else { &FILE })?;
        self.put(&size.to_le_bytes())?;
        let copy = self
            .mirror
            .file(mirror_parent, mirror_name, executable, &self.trail)?;
        match &copy {
            Some(copy) if self.mirror.share(copy, source.as_fd(), size) => {
                self.contents(copy.as_fd(), size, None)?;
            }
            _ => self.contents(source.as_fd(), size, copy.as_ref())?,
        }
        if let Some(copy) = copy {
            self.mirror.finish_file(copy, &self.trail)?;
        }
        self.stream
            .put_padding(size)
            .and_then(|()| self.stream.put(&CLOSE))
            .map_err(|source| Error::Write {
                path: self.trail.to_path(),
                source,
            })
    }

    fn open_file(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
        open::file(parent, name).map_err(self.trail.failed("open the file"))
    }

    /// Reads a file into the stream, and writes what was read to its copy.
    fn contents(&mut self, source: BorrowedFd<'_>, size: u64, copy: Option<&M::File>) -> Result<()> {
        let mut left = size;
        loop {
            // One byte more than expected: so the read that ends the file also shows that it has not grown.
            let room = self
                .stream
                .room(left.saturating_add(1))
                .map_err(|source| Error::Write {
                    path: self.trail.to_path(),
                    source,
                })?;
            let read = rustix::io::retry_on_intr(|| rustix::io::read(source, &mut *room))
                .map_err(self.trail.failed("read the file"))?;
            if read as u64 > left || (read == 0 && left > 0) {
                return Err(self.changed(size, size - left + read as u64));
            }
            if let Some(copy) = copy {
                self.mirror.write(copy, &room[..read], &self.trail)?;
            }
            let asked = room.len();
            self.stream.advance(read);
            left -= read as u64;
            if left == 0 && read < asked {
                return Ok(());
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.put(bytes).map_err(|source| Error::Write {
            path: self.trail.to_path(),
            source,
        })
    }

    fn put_string(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.put_string(bytes).map_err(|source| Error::Write {
            path: self.trail.to_path(),
            source,
        })
    }

    fn changed(&self, expected: u64, found: u64) -> Error {
        let found = if found > expected {
            format!("at least {found}")
        } else {
            found.to_string()
        };
        Error::Changed {
            path: self.trail.to_path(),
            expected,
            found,
        }
    }

    fn unsupported(&self, kind: FileType) -> Error {
        Error::UnsupportedType {
            path: self.trail.to_path(),
            found: describe(kind),
        }
    }

    fn too_long(&self, what: &'static str, found: usize, limit: usize) -> Error {
        Error::TooLong {
            path: self.trail.to_path(),
            what,
            found,
            limit,
        }
    }

    fn failed_with(&self, operation: &'static str, errno: Errno) -> Error {
        self.trail.failed(operation)(errno)
    }
}
