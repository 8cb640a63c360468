// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing two trees as archives would: without hashing, and up to the first difference.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat, fstat, readlinkat_raw, statat};
use rustix::io::Errno;

use crate::error::Error;
use crate::format::{MAX_DEPTH, MAX_TARGET};
use crate::kind::describe;
use crate::listing::{Listing, Scratch};
use crate::open;
use crate::path::{Trail, object_name};
use crate::walk::OWNER_EXECUTE;

/// How much of each file is read at once, in bytes, at most.
const BUFFER: usize = 128 * 1024;

/// Which of two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first one given.
    One,
    /// The second one given.
    Other,
}

/// What a comparison of two trees found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Their archives are the same.
    Same {
        /// The sizes of all regular files of one tree together, in bytes.
        content_bytes: u64,
    },
    /// Their archives differ.
    Different(Difference),
}

/// The first difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where it is within the trees; empty for the objects themselves. Names are bytes.
    pub path: PathBuf,
    /// What the first tree has there.
    pub one: Found,
    /// What the second tree has there.
    pub other: Found,
}

/// What a tree has in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// Nothing of that name.
    Nothing,
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Its size in bytes.
        size: u64,
    },
    /// A byte of a regular file, where both files have the same size and the same bytes before it.
    Byte {
        /// Where in the file.
        offset: u64,
        /// The byte.
        value: u8,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: OsString,
    },
    /// A directory.
    Directory,
    /// Something that no archive can hold, in words.
    Unsupported(&'static str),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::File { executable, size } => {
                let article = if *executable { "an executable" } else { "a" };
                write!(f, "{article} file of {size} bytes")
            }
            Self::Byte { offset, value } => write!(f, "the byte {value:#04x} at offset {offset}"),
            Self::Symlink { target } => {
                write!(f, "a symbolic link to '{}'", Path::new(target).display())
            }
            Self::Directory => f.write_str("a directory"),
            Self::Unsupported(kind) => write!(f, "a {kind}"),
        }
    }
}

/// A tree that could not be read to the end, or to the first difference.
#[derive(Debug)]
pub struct Unreadable {
    /// Which one.
    pub side: Side,
    /// Why.
    pub error: Error,
}

/// An object to compare: a name in an open directory.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    kind: FileType,
}

impl<'a> Compared<'a> {
    /// The object of this name in this directory.
    #[must_use]
    pub fn new(directory: BorrowedFd<'a>, name: &'a OsStr) -> Self {
        let kind = FileType::Unknown;
        Compared {
            directory,
            name,
            kind,
        }
    }

    /// The same, which was examined a moment ago: its mode, type and all, as `stat(2)` tells it. It saves examining it again; if
    /// something else has taken its place, that is an error of the comparison.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.kind = FileType::from_raw_mode(mode);
        self
    }
}

impl<'a, D: AsFd, N: AsRef<OsStr> + ?Sized> From<(&'a D, &'a N)> for Compared<'a> {
    fn from((directory, name): (&'a D, &'a N)) -> Self {
        Self::new(directory.as_fd(), name.as_ref())
    }
}

/// Compares two objects in open directories: are they the same store object?
///
/// Compared is what an archive holds: types, names, the executable bit, contents and link targets. Other modes, owners,
/// times and attributes are not looked at. Contents are read, but not hashed; two names of one file are the same without being
/// read. Links are never followed, and names are bytes.
///
/// # Errors
/// [`Unreadable`] with the side that cannot be read; [`Error::Changed`] in it when a file changed its size meanwhile. Where the
/// two differ in what can be seen without reading, that is a difference and no error.
pub fn compare_trees<'a>(
    one: impl Into<Compared<'a>>,
    other: impl Into<Compared<'a>>,
) -> Result<Comparison, Unreadable> {
    let (one, other) = (one.into(), other.into());
    let name = |side, name: &OsStr| object_name(name).map_err(|error| Unreadable { side, error });
    let names = Pair {
        one: name(Side::One, one.name)?,
        other: name(Side::Other, other.name)?,
    };
    let mut walk = Walk {
        names: &names,
        trail: Trail::new(b""),
        scratch: Scratch::new(),
        buffers: Pair {
            one: Vec::new(),
            other: Vec::new(),
        },
        content_bytes: 0,
    };
    let node = Pair {
        one: (one.directory, names.one.as_c_str(), one.kind),
        other: (other.directory, names.other.as_c_str(), other.kind),
    };
    match walk.node(&node, 0) {
        Ok(()) => Ok(Comparison::Same {
            content_bytes: walk.content_bytes,
        }),
        Err(Stop::Different(difference)) => Ok(Comparison::Different(*difference)),
        Err(Stop::Unreadable(unreadable)) => Err(*unreadable),
    }
}

/// Something of either tree.
struct Pair<T> {
    one: T,
    other: T,
}

/// A name in a directory, with the type that the directory told.
type Node<'a> = (BorrowedFd<'a>, &'a CStr, FileType);

/// Why the walk ends early.
enum Stop {
    Different(Box<Difference>),
    Unreadable(Box<Unreadable>),
}

type Walked<T = ()> = Result<T, Stop>;

struct Walk<'n> {
    names: &'n Pair<CString>,
    /// The path within the trees.
    trail: Trail,
    scratch: Scratch,
    buffers: Pair<Vec<u8>>,
    content_bytes: u64,
}

impl Walk<'_> {
    fn node(&mut self, node: &Pair<Node<'_>>, depth: usize) -> Walked {
        if depth >= MAX_DEPTH {
            let path = self.named(Side::One);
            return Err(self.unreadable(Side::One, Error::TooDeep { path }));
        }
        let kinds = Pair {
            one: self.kind(Side::One, node.one)?,
            other: self.kind(Side::Other, node.other)?,
        };
        if kinds.one != kinds.other {
            return Err(self.differ(node));
        }
        match kinds.one {
            FileType::RegularFile => self.files(node),
            FileType::Directory => self.directories(node, depth),
            FileType::Symlink => self.symlinks(node),
            other => {
                let error = Error::UnsupportedType {
                    path: self.named(Side::One),
                    found: describe(other),
                };
                Err(self.unreadable(Side::One, error))
            }
        }
    }

    fn kind(&self, side: Side, (directory, name, kind): Node<'_>) -> Walked<FileType> {
        if kind != FileType::Unknown {
            return Ok(kind);
        }
        self.stat(side, directory, name)
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    fn directories(&mut self, node: &Pair<Node<'_>>, depth: usize) -> Walked {
        let one = self.directory(Side::One, node.one)?;
        let other = self.directory(Side::Other, node.other)?;
        let (mut ours, mut theirs) = (one.1.iter(), other.1.iter());
        loop {
            let (next_one, next_other) = (ours.next(), theirs.next());
            let (Some(entry_one), Some(entry_other)) = (next_one, next_other) else {
                let Some((name, kind)) = next_one.or(next_other) else {
                    return Ok(());
                };
                let side = if next_one.is_some() {
                    Side::One
                } else {
                    Side::Other
                };
                return Err(self.only_in(side, (one.0.as_fd(), other.0.as_fd()), name, kind));
            };
            match entry_one.0.cmp(entry_other.0) {
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Less => {
                    let directories = (one.0.as_fd(), other.0.as_fd());
                    return Err(self.only_in(Side::One, directories, entry_one.0, entry_one.1));
                }
                std::cmp::Ordering::Greater => {
                    let directories = (one.0.as_fd(), other.0.as_fd());
                    return Err(self.only_in(Side::Other, directories, entry_other.0, entry_other.1));
                }
            }
            let mark = self.trail.enter(entry_one.0.to_bytes());
            let child = Pair {
                one: (one.0.as_fd(), entry_one.0, entry_one.1),
                other: (other.0.as_fd(), entry_other.0, entry_other.1),
            };
            self.node(&child, depth + 1)?;
            self.trail.leave(&mark);
        }
    }

    fn directory(&mut self, side: Side, (parent, name, _): Node<'_>) -> Walked<(OwnedFd, Listing)> {
        let directory =
            open::directory(parent, name).map_err(|errno| self.failed(side, "open the directory", errno))?;
        let listing = Listing::read(directory.as_fd(), &mut self.scratch);
        let mut listing = listing.map_err(|errno| self.failed(side, "read the directory", errno))?;
        listing.sort();
        Ok((directory, listing))
    }

    fn symlinks(&mut self, node: &Pair<Node<'_>>) -> Walked {
        let one = self.target(Side::One, node.one)?;
        let other = self.target(Side::Other, node.other)?;
        if one == other {
            return Ok(());
        }
        Err(self.different(Found::Symlink { target: one }, Found::Symlink { target: other }))
    }

    fn target(&self, side: Side, (directory, name, _): Node<'_>) -> Walked<OsString> {
        let mut target = vec![0; MAX_TARGET + 1];
        let length = readlinkat_raw(directory, name, &mut *target)
            .map_err(|errno| self.failed(side, "read the symbolic link", errno))?;
        if length > MAX_TARGET {
            let error = Error::TooLong {
                path: self.named(side),
                what: "target",
                found: length,
                limit: MAX_TARGET,
            };
            return Err(self.unreadable(side, error));
        }
        target.truncate(length);
        Ok(OsString::from_vec(target))
    }

    fn files(&mut self, node: &Pair<Node<'_>>) -> Walked {
        let (one, stat_one) = self.file(Side::One, node.one)?;
        let (other, stat_other) = self.file(Side::Other, node.other)?;
        let found = (found_file(&stat_one), found_file(&stat_other));
        if found.0 != found.1 {
            return Err(self.different(found.0, found.1));
        }
        let size = size_of(&stat_one);
        self.content_bytes = self.content_bytes.saturating_add(size);
        if (stat_one.st_dev, stat_one.st_ino) == (stat_other.st_dev, stat_other.st_ino) {
            return Ok(());
        }
        self.contents(one.as_fd(), other.as_fd(), size)
    }

    fn file(&self, side: Side, (directory, name, _): Node<'_>) -> Walked<(OwnedFd, Stat)> {
        let file = open::file(directory, name).map_err(|errno| self.failed(side, "open the file", errno))?;
        let stat = fstat(&file).map_err(|errno| self.failed(side, "examine", errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            // It was a file a moment ago.
            other => {
                let error = Error::UnsupportedType {
                    path: self.named(side),
                    found: describe(other),
                };
                Err(self.unreadable(side, error))
            }
        }
    }

    fn contents(&mut self, one: BorrowedFd<'_>, other: BorrowedFd<'_>, size: u64) -> Walked {
        let mut offset = 0;
        loop {
            // One byte more than is left: so the last read shows that neither has grown.
            let room = usize::try_from(size - offset)
                .unwrap_or(BUFFER)
                .saturating_add(1)
                .min(BUFFER);
            let mut buffers = Pair {
                one: std::mem::take(&mut self.buffers.one),
                other: std::mem::take(&mut self.buffers.other),
            };
            let read_one = self.fill(Side::One, one, &mut buffers.one, room, (offset, size))?;
            let read_other = self.fill(Side::Other, other, &mut buffers.other, room, (offset, size))?;
            let (piece_one, piece_other) = (&buffers.one[..read_one], &buffers.other[..read_other]);
            if piece_one != piece_other {
                let at = piece_one.iter().zip(piece_other).position(|(a, b)| a != b);
                let at = at.unwrap_or(read_one.min(read_other).saturating_sub(1));
                let byte = |piece: &[u8]| Found::Byte {
                    offset: offset + at as u64,
                    value: piece.get(at).copied().unwrap_or_default(),
                };
                return Err(self.different(byte(piece_one), byte(piece_other)));
            }
            offset += read_one as u64;
            self.buffers = buffers;
            if offset == size && read_one < room {
                return Ok(());
            }
        }
    }

    /// Reads until there is no more room or no more file, and checks that the file is as long as it was. (What a regular
    /// file gives at once is all that it has, if that is less than was asked for.)
    fn fill(
        &self,
        side: Side,
        file: BorrowedFd<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
        (offset, size): (u64, u64),
    ) -> Walked<usize> {
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let mut filled = 0;
        while filled < room {
            let read = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut buffer[filled..room]))
                .map_err(|errno| self.failed(side, "read the file", errno))?;
            filled += read;
            if read == 0 || (filled < room && offset + filled as u64 == size) {
                break;
            }
        }
        let end = offset + filled as u64;
        if end > size || (filled < room && end < size) {
            let found = if end > size {
                format!("at least {end}")
            } else {
                end.to_string()
            };
            let error = Error::Changed {
                path: self.named(side),
                expected: size,
                found,
            };
            return Err(self.unreadable(side, error));
        }
        Ok(filled)
    }

    /// A difference in what two nodes of one name are.
    fn differ(&self, node: &Pair<Node<'_>>) -> Stop {
        let found = |side, (directory, name, kind): Node<'_>| self.describe(side, directory, name, kind);
        match (found(Side::One, node.one), found(Side::Other, node.other)) {
            (Ok(one), Ok(other)) => self.different(one, other),
            (Err(stop), _) | (_, Err(stop)) => stop,
        }
    }

    /// A name that only one of two directories has.
    fn only_in(
        &mut self,
        side: Side,
        (one, other): (BorrowedFd<'_>, BorrowedFd<'_>),
        name: &CStr,
        kind: FileType,
    ) -> Stop {
        self.trail.enter(name.to_bytes());
        let directory = match side {
            Side::One => one,
            Side::Other => other,
        };
        match (side, self.describe(side, directory, name, kind)) {
            (Side::One, Ok(found)) => self.different(found, Found::Nothing),
            (Side::Other, Ok(found)) => self.different(Found::Nothing, found),
            (_, Err(stop)) => stop,
        }
    }

    fn describe(&self, side: Side, directory: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Walked<Found> {
        let stat = self.stat(side, directory, name)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => found_file(&stat),
            FileType::Directory => Found::Directory,
            FileType::Symlink => Found::Symlink {
                target: self.target(side, (directory, name, kind))?,
            },
            other => Found::Unsupported(describe(other)),
        })
    }

    fn stat(&self, side: Side, directory: BorrowedFd<'_>, name: &CStr) -> Walked<Stat> {
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed(side, "examine", errno))
    }

    fn different(&self, one: Found, other: Found) -> Stop {
        Stop::Different(Box::new(Difference {
            path: self.within(),
            one,
            other,
        }))
    }

    fn unreadable(&self, side: Side, error: Error) -> Stop {
        Stop::Unreadable(Box::new(Unreadable { side, error }))
    }

    fn failed(&self, side: Side, operation: &'static str, errno: Errno) -> Stop {
        let error = Error::System {
            operation,
            path: self.named(side),
            source: errno.into(),
        };
        self.unreadable(side, error)
    }

    /// The path within the trees.
    fn within(&self) -> PathBuf {
        let path = self.trail.to_path();
        path.strip_prefix("/").map(Path::to_path_buf).unwrap_or(path)
    }

    /// The path as errors have it: beginning with the name of the object.
    fn named(&self, side: Side) -> PathBuf {
        let name = match side {
            Side::One => &self.names.one,
            Side::Other => &self.names.other,
        };
        let mut path = OsString::from(OsStr::from_bytes(name.to_bytes()));
        path.push(self.trail.to_path());
        path.into()
    }
}

fn found_file(stat: &Stat) -> Found {
    Found::File {
        executable: stat.st_mode & OWNER_EXECUTE != 0,
        size: size_of(stat),
    }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}
