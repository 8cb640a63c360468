// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths into mount options: what a mounter must escape, and whole option strings and command lines.
//!
//! OverlayFS reads its options as text with backslash escapes. A path needs a backslash before `\`, before
//! `,` (which separates options in a `mount(2)` data string) and, in `lowerdir`, before `:` (which separates
//! directories). Nothing is escaped in `lowerdir+` and `datadir+` values given through `fsconfig(2)`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Escapes one directory for a `lowerdir=` list.
#[must_use]
pub fn escape_lowerdir(path: &[u8]) -> Vec<u8> {
    escape(path, b"\\,:")
}

/// Escapes a directory for `upperdir=` or `workdir=`.
#[must_use]
pub fn escape_upperdir(path: &[u8]) -> Vec<u8> {
    // A colon needs none here, and stock Nix compares this text literally, so as little as possible is
    // escaped.
    escape(path, b"\\,")
}

/// Drops one level of backslashes, as the kernel does with `lowerdir`, `upperdir` and `workdir`.
#[must_use]
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next().unwrap_or(&b'\\')),
            _ => out.push(byte),
        }
    }
    out
}

fn escape(path: &[u8], special: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if special.contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

/// The layers of an overlay to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers<'a> {
    /// The lower directories, top-most first; at least one.
    pub lower: &'a [PathBuf],
    /// The upper layer directory.
    pub upper: &'a Path,
    /// An empty directory on the same file system as the upper layer, for OverlayFS's own use.
    pub work: &'a Path,
}

impl Layers<'_> {
    /// The data string for `mount(2)`, also the argument of `mount -o`.
    ///
    /// The kernel takes at most 4095 bytes of it.
    ///
    /// The form is the one stock Nix recognises in the mount table: `lowerdir`, `upperdir`, `workdir`, in
    /// this order.
    #[must_use]
    pub fn options(&self) -> Vec<u8> {
        let mut out = b"lowerdir=".to_vec();
        for (index, lower) in self.lower.iter().enumerate() {
            if index > 0 {
                out.push(b':');
            }
            out.extend(escape_lowerdir(lower.as_os_str().as_bytes()));
        }
        out.extend_from_slice(b",upperdir=");
        out.extend(escape_upperdir(self.upper.as_os_str().as_bytes()));
        out.extend_from_slice(b",workdir=");
        out.extend(escape_upperdir(self.work.as_os_str().as_bytes()));
        out
    }

    /// The words of the `mount` command that makes this overlay at `mount_point`.
    #[must_use]
    pub fn mount_command(&self, mount_point: &Path) -> Vec<OsString> {
        let words = ["mount", "-t", "overlay", "overlay", "-o"];
        let mut command: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        command.push(OsString::from_vec(self.options()));
        command.push(mount_point.as_os_str().to_owned());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_needs_is_escaped() {
        assert_eq!(escape_lowerdir(b"/a:b,c\\d e\n#"), b"/a\\:b\\,c\\\\d e\n#");
        assert_eq!(escape_upperdir(b"/a:b,c\\d"), b"/a:b\\,c\\\\d");
        assert_eq!(unescape(b"\\x\\"), b"x\\");
    }

    #[test]
    fn the_plain_form_is_the_one_stock_nix_matches() {
        let lower = [PathBuf::from("/a/store"), PathBuf::from("/b")];
        let layers = Layers {
            lower: &lower,
            upper: Path::new("/u"),
            work: Path::new("/w"),
        };
        assert_eq!(layers.options(), b"lowerdir=/a/store:/b,upperdir=/u,workdir=/w");
        let command = layers.mount_command(Path::new("/m m"));
        assert_eq!(
            crate::quote::command(&command),
            "mount -t overlay overlay -o lowerdir=/a/store:/b,upperdir=/u,workdir=/w '/m m'"
        );
    }
}
