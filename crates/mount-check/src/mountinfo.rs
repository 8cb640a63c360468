// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of `/proc/PID/mountinfo`, as bytes and without any I/O.
//!
//! The form is documented in proc_pid_mountinfo(5) and, for the kernel's side, in
//! `Documentation/filesystems/proc.rst`:
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! id parent maj:min root mount-point mount-options optional... - type source super-options
//! ```
//!
//! Columns are separated by exactly one space (an empty source leaves two in a row), and a space, tab,
//! newline, backslash or comma that belongs to a value is written as a backslash with three octal digits.
//! Values are decoded here; options keep their order and may repeat. What an option means is decided by
//! [`crate::options`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use thiserror::Error;

/// One mount, with every value decoded to the bytes the kernel meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountInfo {
    /// The id of the mount, unique at a moment, reused after an unmount.
    pub id: u64,
    /// The id of the mount this one sits on, or of itself at the root of the tree.
    pub parent: u64,
    /// Major and minor number of the file system's device (`st_dev` of its directories).
    pub device: (u32, u32),
    /// The directory of the file system that is the root of this mount: `/`, or a path for a bind mount of a
    /// part.
    pub root: Vec<u8>,
    /// Where it is mounted, as seen from the reader's root directory.
    pub mount_point: Vec<u8>,
    /// Options of this mount alone, in order (`ro` here can stand over a writable file system).
    pub mount_options: Vec<MountOption>,
    /// Propagation tags such as `shared:5`, in order.
    pub tags: Vec<Vec<u8>>,
    /// The file system type, with the subtype of FUSE file systems: `overlay`, `fuse.fuse-overlayfs`.
    pub fs_type: Vec<u8>,
    /// The source: free text, `overlay` only by habit, possibly empty.
    pub source: Vec<u8>,
    /// Options of the file system, in order, repeated ones included.
    pub super_options: Vec<MountOption>,
}

/// One `key` or `key=value` of an option list, octal escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// The part before the first `=`.
    pub key: Vec<u8>,
    /// The part after it, `None` when there is no `=`.
    pub value: Option<Vec<u8>>,
}

/// Why a line is not a line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: expected {expected}, found {}", crate::quote::bytes(.found))]
#[non_exhaustive]
pub struct ParseError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What should be there.
    pub expected: &'static str,
    /// What is there instead (shortened).
    pub found: Vec<u8>,
}

/// How much of an offending text an error carries.
const ERROR_EXCERPT: usize = 80;

/// Parses a whole mount table.
///
/// # Errors
/// A line that does not have the documented form; the error names it.
pub fn parse(text: &[u8]) -> Result<Vec<MountInfo>, ParseError> {
    lines(text).collect()
}

/// Parses a mount table line by line, so that a caller interested in one mount can pass over a line it cannot
/// read.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Result<MountInfo, ParseError>> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| parse_line(line, index + 1))
}

fn parse_line(text: &[u8], line: usize) -> Result<MountInfo, ParseError> {
    let failure = |expected, found: &[u8]| ParseError {
        line,
        expected,
        found: found.get(..ERROR_EXCERPT).unwrap_or(found).to_vec(),
    };
    let mut columns = text.split(|&byte| byte == b' ');
    let mut next = |expected| columns.next().ok_or_else(|| failure(expected, text));

    let id = next("a mount id")?;
    let id = number(id).ok_or_else(|| failure("a mount id", id))?;
    let parent = next("a parent id")?;
    let parent = number(parent).ok_or_else(|| failure("a parent id", parent))?;
    let device_text = next("a device number MAJOR:MINOR")?;
    let device = device(device_text).ok_or_else(|| failure("a device number MAJOR:MINOR", device_text))?;
    let root = unescape_octal(next("the root of the mount")?);
    let mount_point = unescape_octal(next("a mount point")?);
    let mount_options = options(next("mount options")?);
    let mut tags = Vec::new();
    loop {
        match next("the separator \"-\"")? {
            b"-" => break,
            tag => tags.push(unescape_octal(tag)),
        }
    }
    let fs_type = unescape_octal(next("a file system type")?);
    let source = unescape_octal(next("a source")?);
    let first = next("file system options")?;
    // A file system that forgets to escape a space in its options still belongs to one mount.
    let super_text = columns.fold(first.to_vec(), |mut all, more| {
        all.push(b' ');
        all.extend_from_slice(more);
        all
    });
    Ok(MountInfo {
        id,
        parent,
        device,
        root,
        mount_point,
        mount_options,
        tags,
        fs_type,
        source,
        super_options: options(&super_text),
    })
}

impl MountInfo {
    /// The mount point as a path.
    #[must_use]
    pub fn mount_point_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.mount_point))
    }

    /// Is this mount alone read-only, whatever the file system says?
    #[must_use]
    pub fn is_mount_read_only(&self) -> bool {
        self.mount_options.iter().any(|option| option.is_flag(b"ro"))
    }

    /// Is the whole file system read-only?
    #[must_use]
    pub fn is_super_read_only(&self) -> bool {
        self.super_options.iter().any(|option| option.is_flag(b"ro"))
    }

    /// Is it the kernel's own OverlayFS?
    #[must_use]
    pub fn is_overlay(&self) -> bool {
        self.fs_type == b"overlay" || self.fs_type == b"overlayfs"
    }

    /// Is it fuse-overlayfs, which tells nobody its layers?
    #[must_use]
    pub fn is_fuse_overlay(&self) -> bool {
        self.fs_type.starts_with(b"fuse") && self.fs_type.ends_with(b"overlayfs")
    }
}

impl MountOption {
    fn is_flag(&self, key: &[u8]) -> bool {
        self.value.is_none() && self.key == key
    }
}

fn options(text: &[u8]) -> Vec<MountOption> {
    // A comma inside a value is always written `\054`, so a plain one always separates.
    text.split(|&byte| byte == b',')
        .filter(|piece| !piece.is_empty())
        .map(|piece| match piece.iter().position(|&byte| byte == b'=') {
            Some(at) => MountOption {
                key: unescape_octal(&piece[..at]),
                value: Some(unescape_octal(&piece[at + 1..])),
            },
            None => MountOption {
                key: unescape_octal(piece),
                value: None,
            },
        })
        .collect()
}

/// Decodes `\ooo`; a backslash that does not start three octal digits of one byte stands for itself.
#[must_use]
pub fn unescape_octal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    // `from_str` would also take a leading plus sign, which the kernel never writes.
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn device(text: &[u8]) -> Option<(u32, u32)> {
    let at = text.iter().position(|&byte| byte == b':')?;
    Some((number(&text[..at])?, number(&text[at + 1..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_single_spaces() {
        let info =
            parse(b"65 43 0:39 /sub /m\\040p rw,relatime shared:1 master:2 - overlay  rw,lowerdir=a\n")
                .unwrap();
        let [info] = info.as_slice() else {
            panic!("one line")
        };
        assert_eq!((info.id, info.parent, info.device), (65, 43, (0, 39)));
        assert_eq!(info.root, b"/sub");
        assert_eq!(info.mount_point, b"/m p");
        assert_eq!(info.tags, [b"shared:1".to_vec(), b"master:2".to_vec()]);
        assert_eq!(
            info.source, b"",
            "two spaces in a row are an empty source, not a separator"
        );
        assert_eq!(info.super_options.len(), 2);
        assert!(info.is_overlay() && !info.is_fuse_overlay());
    }

    #[test]
    fn read_only_is_told_apart_by_column() {
        let check = |line: &[u8], mount: bool, superblock: bool| {
            let info = parse(line).unwrap().remove(0);
            assert_eq!(
                (info.is_mount_read_only(), info.is_super_read_only()),
                (mount, superblock)
            );
        };
        check(b"1 2 0:3 / /m ro,nosuid - overlay overlay rw", true, false);
        check(b"1 2 0:3 / /m rw - overlay overlay ro,lowerdir=a:b", false, true);
        check(b"1 2 0:3 / /m rw - overlay overlay rw,x=ro", false, false);
    }

    #[test]
    fn a_broken_line_is_named() {
        let check = |text: &[u8], expected: &str| {
            let error = parse(text).unwrap_err();
            assert_eq!(error.expected, expected, "{error}");
        };
        check(b"x 2 0:3 / /m rw - t s o", "a mount id");
        check(b"+1 2 0:3 / /m rw - t s o", "a mount id");
        check(b"1", "a parent id");
        check(b"1 2 03 / /m rw - t s o", "a device number MAJOR:MINOR");
        check(b"1 2 0:3 / /m rw t s o", "the separator \"-\"");
        check(b"1 2 0:3 / /m rw - t s", "file system options");
        assert_eq!(parse(b"1 2 0:3 / /m rw - t s o\n\nbad\n").unwrap_err().line, 3);
        assert_eq!(
            lines(b"bad\n1 2 0:3 / /m rw - t s o\n")
                .filter_map(Result::ok)
                .count(),
            1
        );
    }

    #[test]
    fn octal_escapes_decode_and_others_stand() {
        let check = |text: &[u8], want: &[u8]| assert_eq!(unescape_octal(text), want);
        check(b"a\\040b\\011\\012\\134\\054\\043", b"a b\t\n\\,#");
        check(b"\\134\\134", b"\\\\");
        check(b"\\134:", b"\\:");
        check(b"\\4", b"\\4");
        check(b"\\777", b"\\777");
        check(b"\\377", b"\xff");
        check(b"end\\", b"end\\");
    }
}
