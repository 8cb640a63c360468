// SPDX-License-Identifier: MIT OR Apache-2.0
//! An OverlayFS mount for the time of a trial.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A mount that is undone on drop.
#[derive(Debug)]
pub struct OverlayMount {
    point: PathBuf,
}

impl OverlayMount {
    /// Mounts at `point`, in the way of `mount(8)`: one string of options. `lower` has the top-most layer first.
    ///
    /// # Errors
    /// If the kernel refuses, or a path holds a zero byte.
    pub fn new(lower: &[&Path], upper: &Path, work: &Path, point: &Path) -> Result<Self> {
        let mut options = OsString::from("lowerdir=");
        for (index, layer) in lower.iter().enumerate() {
            if index > 0 {
                options.push(":");
            }
            options.push(escaped(layer, b"\\:,"));
        }
        options.push(",upperdir=");
        options.push(escaped(upper, b"\\,"));
        options.push(",workdir=");
        options.push(escaped(work, b"\\,"));
        let text = CString::new(options.as_bytes()).context("a layer's path holds a zero byte")?;
        mount("overlay", point, "overlay", MountFlags::empty(), text.as_c_str())
            .with_context(|| format!("mounting at {} with {}", point.display(), options.display()))?;
        Ok(Self {
            point: point.to_owned(),
        })
    }
}

impl Drop for OverlayMount {
    fn drop(&mut self) {
        // Lazily: a trial that failed may still have files open. A mount that is left goes with the namespace.
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}

/// A path as OverlayFS reads it, with a backslash before what would end it.
fn escaped(path: &Path, special: &[u8]) -> OsString {
    let mut bytes = Vec::new();
    for &byte in OsStr::as_bytes(path.as_os_str()) {
        if special.contains(&byte) {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped() {
        assert_eq!(
            escaped(Path::new(r"/a:b,c\d"), b"\\:,"),
            OsString::from(r"/a\:b\,c\\d")
        );
    }
}
