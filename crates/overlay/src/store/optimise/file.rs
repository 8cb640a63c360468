// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single files: what their content is, and whether they can become links.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use superpose_nar::FileArchive;
use superpose_store_path::{HashAlgorithm, Hasher};

/// What the system counts disk space in, in bytes.
const BLOCK: u64 = 512;
/// How much of a file is read at once, in bytes.
const BUFFER: usize = 64 << 10;
/// The notes of OverlayFS.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The SHA-256 of the archive of a single file: two files that share an inode then differ in nothing that an archive holds,
/// the executable bit included.
pub(super) type Content = [u8; 32];

/// The content of a file, and what the file was when it was read.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) content: Content,
    pub(super) stat: Stat,
}

/// Why a file has no content that others could share.
#[derive(Debug)]
pub(super) enum Unhashed {
    /// It has notes of OverlayFS: what they say of where it is from is of this name only, and its data may be below.
    CopiedUp,
    /// It changed while it was read.
    Changed,
    /// It cannot be read.
    Unreadable(io::Error),
}

impl From<Errno> for Unhashed {
    fn from(error: Errno) -> Self {
        Unhashed::Unreadable(error.into())
    }
}

/// Opens what a path below a directory names; no component of it may be a link or lead out of the directory.
pub(super) fn open_below(
    directory: BorrowedFd<'_>,
    path: &OsStr,
    flags: OFlags,
) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match fs::openat2(directory, path.as_bytes(), flags, Mode::empty(), within) {
            // Somebody renamed something while the kernel looked.
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

/// Hashes a file below a directory.
pub(super) fn hash(directory: BorrowedFd<'_>, path: &OsStr) -> Result<Hashed, Unhashed> {
    // Not to block on a fifo that took the place of the file.
    let file = File::from(open_below(directory, path, OFlags::NONBLOCK | OFlags::NOCTTY)?);
    let stat = fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unhashed::Changed);
    }
    if is_copied_up(file.as_fd())? {
        return Err(Unhashed::CopiedUp);
    }
    let mut archive = if stat.st_mode & 0o100 == 0 {
        FileArchive::new(&file, size(&stat))
    } else {
        FileArchive::executable(&file, size(&stat))
    };
    let mut hasher = Hasher::new(HashAlgorithm::Sha256);
    // The file and the frame of its archive, which come one after the other.
    let mut buffer = vec![
        0;
        BUFFER
            .min(usize::try_from(size(&stat)).unwrap_or(BUFFER))
            .max(256)
    ];
    loop {
        match archive.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Unhashed::Changed),
            Err(error) => return Err(Unhashed::Unreadable(error)),
        }
    }
    if !is_unchanged(&stat, &fs::fstat(&file)?) {
        return Err(Unhashed::Changed);
    }
    let digest = hasher.finish();
    let content = digest
        .digest()
        .try_into()
        .map_err(|_| Unhashed::Unreadable(io::ErrorKind::InvalidData.into()))?;
    Ok(Hashed { content, stat })
}

/// Whether OverlayFS keeps notes about a file. (In a user namespace only those can be seen that it can make there.)
fn is_copied_up(file: BorrowedFd<'_>) -> Result<bool, Unhashed> {
    let mut list = [0; 512];
    let mut grown;
    let list = match fs::flistxattr(file, &mut list) {
        Ok(length) => &list[..length],
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
        Err(Errno::RANGE) => {
            grown = vec![0; fs::flistxattr_query(file)?];
            let length = fs::flistxattr(file, &mut grown)?;
            &grown[..length]
        }
        Err(error) => return Err(error.into()),
    };
    let mut names = list.split(|byte| *byte == 0);
    Ok(names.any(|name| OVERLAY.iter().any(|prefix| name.starts_with(prefix))))
}

/// Whether a file still is the one that was looked at, and has the same content, as far as can be told without reading. (The
/// time of the last status change moves with every link that is made or removed.)
pub(super) fn is_unchanged(before: &Stat, now: &Stat) -> bool {
    let what = |stat: &Stat| {
        (
            stat.st_ino,
            stat.st_mode,
            stat.st_size,
            stat.st_mtime,
            stat.st_mtime_nsec,
        )
    };
    what(before) == what(now)
}

/// Whether a file has the metadata of store objects, whoever owns it. One that its owner may write is not settled yet, as
/// for stock Nix.
pub(super) fn is_canonical(stat: &Stat) -> bool {
    matches!(stat.st_mode & 0o7777, 0o444 | 0o555) && (stat.st_mtime, stat.st_mtime_nsec as i64) == (1, 0)
}

pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Bytes of disk blocks.
pub(super) fn space(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

/// How many names a file has.
pub(super) fn names(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink as u32)
}
