// SPDX-License-Identifier: MIT OR Apache-2.0
//! File handles: the kernel's own name for an inode, by which an overlay tells which layer's object it shows.
//!
//! `name_to_handle_at(2)` with `AT_HANDLE_FID` is the usual way to them, but calling it takes unsafe code.
//! The same handle is printed by `/proc/PID/fdinfo` for each inode that an inotify instance watches
//! (documented in `Documentation/filesystems/proc.rst`), so this module watches an object, reads the line,
//! and forgets it again. That needs read permission on the object and no privilege. Without it, or when
//! inotify is used up or missing, there is no handle and the comparison rests on inode numbers and times.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Type of a handle that an overlay made; Linux 6.6 and newer give one without `nfs_export`.
const OVERLAY_HANDLE: u32 = 0xf8;

/// Bytes before the real handle: three of padding, version, magic, length, flags, type, then a UUID of 16.
const OVERLAY_HEADER: usize = 24;

/// Padding that the length field does not count.
const OVERLAY_PADDING: usize = 3;

/// Marks an overlay handle, at [`MAGIC_AT`].
const OVERLAY_MAGIC: u8 = 0xfb;

const MAGIC_AT: usize = 4;
const LENGTH_AT: usize = 5;
const FLAGS_AT: usize = 6;
const TYPE_AT: usize = 7;
const UUID_AT: usize = 8;

/// The flag of a handle taken from the upper layer.
const FROM_UPPER: u8 = 0x04;

/// Reads handles by way of one inotify instance.
#[derive(Debug)]
pub(crate) struct HandleReader {
    inotify: Option<OwnedFd>,
}

/// A file handle: its type and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileHandle {
    kind: u32,
    bytes: Vec<u8>,
}

/// What a handle made by an overlay contains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverlayHandle {
    /// Taken from the upper layer, rather than from a lower directory.
    pub(crate) from_upper: bool,
    /// Does it name the layer's file system? Not every file system has a UUID.
    pub(crate) has_uuid: bool,
    /// The handle of the layer's own object.
    pub(crate) real: FileHandle,
}

impl HandleReader {
    pub(crate) fn new() -> Self {
        // The number of instances per user is limited (128 by default); going without is fine.
        Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok(),
        }
    }

    /// The handle of an open object (opened with `O_PATH` is enough).
    pub(crate) fn read(&self, object: BorrowedFd<'_>) -> Option<FileHandle> {
        let inotify = self.inotify.as_ref()?;
        let link = format!("/proc/thread-self/fd/{}", object.as_raw_fd());
        let watch = inotify::add_watch(inotify, link, WatchFlags::DELETE_SELF).ok()?;
        let info = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", inotify.as_raw_fd()));
        let removed = inotify::remove_watch(inotify, watch);
        let handle = info.ok().and_then(|info| parse_fdinfo(&info, watch));
        // A watch that went away by itself means that the object was deleted meanwhile.
        removed.ok().and(handle)
    }
}

impl FileHandle {
    /// Takes an overlay's handle apart; `None` for any other kind.
    pub(crate) fn as_overlay(&self) -> Option<OverlayHandle> {
        let length = usize::from(*self.bytes.get(LENGTH_AT)?);
        if self.kind != OVERLAY_HANDLE || self.bytes.get(MAGIC_AT) != Some(&OVERLAY_MAGIC) {
            return None;
        }
        let real = self.bytes.get(OVERLAY_HEADER..OVERLAY_PADDING + length)?;
        Some(OverlayHandle {
            from_upper: self.bytes.get(FLAGS_AT)? & FROM_UPPER != 0,
            has_uuid: self
                .bytes
                .get(UUID_AT..OVERLAY_HEADER)?
                .iter()
                .any(|&byte| byte != 0),
            real: Self {
                kind: u32::from(*self.bytes.get(TYPE_AT)?),
                bytes: real.to_vec(),
            },
        })
    }
}

/// Finds the handle of one watch in `inotify wd:1 ino:… fhandle-bytes:20 fhandle-type:f8 f_handle:00…` lines.
fn parse_fdinfo(text: &str, watch: i32) -> Option<FileHandle> {
    text.lines()
        .filter(|line| line.starts_with("inotify "))
        .find_map(|line| {
            let field = |key: &str| {
                line.split(' ')
                    .find_map(|word| word.strip_prefix(key)?.strip_prefix(':'))
            };
            if i32::from_str_radix(field("wd")?, 16).ok()? != watch {
                return None;
            }
            let length = usize::from_str_radix(field("fhandle-bytes")?, 16).ok()?;
            let kind = u32::from_str_radix(field("fhandle-type")?, 16).ok()?;
            let bytes = hex(field("f_handle")?)?;
            (bytes.len() == length && length > 0).then_some(FileHandle { kind, bytes })
        })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(high * 16 + low).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded on Linux 6.18: the root of an overlay on ext4, and its upper layer directory.
    const MERGED: &str = "pos:\t0\nflags:\t02004000\nmnt_id:\t15\nino:\t2077\ninotify wd:1 ino:9c6319 sdev:27 mask:8 ignored_mask:0 fhandle-bytes:20 fhandle-type:f8 f_handle:00000000fb1d04010000000000000000000000000000000019639c00609650d5\n";
    const UPPER: &str = "inotify wd:1 ino:9c6319 sdev:fe00000 mask:8 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:19639c00609650d5";

    #[test]
    fn an_overlay_handle_contains_the_layers_own() {
        let merged = parse_fdinfo(MERGED, 1).unwrap().as_overlay().unwrap();
        let upper = parse_fdinfo(UPPER, 1).unwrap();
        assert!(merged.from_upper && !merged.has_uuid);
        assert_eq!(merged.real, upper);
        assert_eq!(upper.as_overlay(), None);
        assert_eq!(parse_fdinfo(UPPER, 2), None, "another watch");
    }

    #[test]
    fn damaged_lines_give_no_handle() {
        let check = |text: &str| assert_eq!(parse_fdinfo(text, 1), None, "{text}");
        check("");
        check("inotify wd:1 ino:1");
        check("inotify wd:1 fhandle-bytes:8 fhandle-type:1 f_handle:19");
        check("inotify wd:1 fhandle-bytes:1 fhandle-type:1 f_handle:1x");
        check("inotify wd:1 fhandle-bytes:0 fhandle-type:1 f_handle:");
        let short = FileHandle {
            kind: OVERLAY_HANDLE,
            bytes: vec![0, 0, 0, 0, OVERLAY_MAGIC, 200, 0, 0],
        };
        assert_eq!(short.as_overlay(), None);
    }
}
