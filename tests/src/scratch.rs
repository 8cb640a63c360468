// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory for one trial, gone when the trial ends: with mounts on it, and with the read-only trees that
//! stores consist of.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::{Builder, TempDir};

/// A directory that is removed on drop, unless `SUPERPOSE_KEEP` is set.
#[derive(Debug)]
pub struct Scratch {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Makes a directory on the file system of the work tree: below `target`, or below `SUPERPOSE_SCRATCH`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new() -> Result<Self> {
        let base = match std::env::var_os("SUPERPOSE_SCRATCH") {
            Some(base) => PathBuf::from(base),
            None => crate::stock_nix::target().join("scratch"),
        };
        fs::create_dir_all(&base).with_context(|| format!("creating {}", base.display()))?;
        Self::below(&base)
    }

    /// Makes a directory in memory, where many small files cost nothing but time of the processor.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn in_memory() -> Result<Self> {
        Self::below(Path::new("/dev/shm"))
    }

    /// A directory that is there and stays.
    #[must_use]
    pub fn lasting(path: &Path) -> Self {
        Self {
            dir: None,
            path: path.to_owned(),
        }
    }

    fn below(base: &Path) -> Result<Self> {
        let dir = Builder::new().prefix("superpose-").tempdir_in(base);
        let dir = dir.with_context(|| format!("creating a directory below {}", base.display()))?;
        let path = fs::canonicalize(dir.path())?;
        // Everybody may enter: some trials run a program as another user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir: Some(dir), path })
    }

    /// The directory, absolute and without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name in the directory, which need not exist.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        // What is mounted here may be a tree of the machine: nothing is removed before the mounts are gone.
        let is_removable = unmount_below(&self.path).is_ok() && make_removable(&self.path).is_ok();
        if std::env::var_os("SUPERPOSE_KEEP").is_some() || !is_removable {
            let _kept = dir.keep();
        }
    }
}

/// Unmounts everything at or below a directory, newest first.
fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in mounts_below(dir)?.iter().rev() {
        unmount(point, UnmountFlags::DETACH)?;
    }
    match mounts_below(dir)?.as_slice() {
        [] => Ok(()),
        _ => Err(io::Error::other("mounts are left")),
    }
}

fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table.split(|&byte| byte == b'\n').filter_map(mount_point);
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

/// The fifth field of a line of mountinfo, its octal escapes decoded.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut rest = line.split(|&byte| byte == b' ').nth(4)?;
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = tail.get(..3).filter(|_| byte == b'\\');
        let value = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        decoded.push(value.unwrap_or(byte));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(decoded)))
}

/// Gives the owner every right on every directory, without following links.
fn make_removable(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_removable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_trees_go_too() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        fs::create_dir_all(path.join("store/object")).unwrap();
        fs::write(path.join("store/object/file"), "x").unwrap();
        fs::set_permissions(path.join("store/object"), fs::Permissions::from_mode(0o555)).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn mount_points_are_decoded() {
        let line = br"36 35 98:0 / /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/a b\\c")));
        assert_eq!(mount_point(b"36 35"), None);
        assert_eq!(
            mount_point(br"1 2 3 / /end\04 rw"),
            Some(PathBuf::from("/end\\04"))
        );
    }
}
