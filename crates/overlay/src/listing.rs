// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names in a layer directory, each with what it stands for. Nothing is walked into.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{Error, Result};

/// The hard-link farm of Nix, which is no object.
pub(crate) const LINKS: &str = ".links";

/// What a name of a layer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    File,
    Symlink,
    /// What no archive can hold: a socket, a pipe, a device.
    Special,
    /// A character device 0:0: what lies below under this name is hidden.
    Whiteout,
}

impl EntryKind {
    pub(crate) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharacterDevice if stat.st_rdev == 0 => EntryKind::Whiteout,
            _ => EntryKind::Special,
        }
    }
}

/// Calls `each` with every name of a layer but the link farm, in the order of the directory; `path` names the layer in
/// messages. What disappears meanwhile may be left out.
///
/// # Errors
/// If the layer cannot be read, and what `each` fails with.
pub(crate) fn for_each_entry(
    layer: BorrowedFd<'_>,
    path: &Path,
    mut each: impl FnMut(&[u8], EntryKind) -> Result<()>,
) -> Result<()> {
    let failed = |source| Error::io("list the layer", path, source);
    // A directory of its own: the offset of `layer` is shared by everyone who reads it.
    for entry in Dir::read_from(layer).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || name == LINKS.as_bytes() {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            // A whiteout is known by its number, and some file systems tell no type at all.
            _ => match fs::statat(layer, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => EntryKind::of(&stat),
                Err(Errno::NOENT) => continue,
                Err(source) => {
                    return Err(Error::io("examine", path.join(OsStr::from_bytes(name)), source));
                }
            },
        };
        each(name, kind)?;
    }
    Ok(())
}

/// Opens the hard-link farm of a layer; `None` if it has none. What is no directory is an error: to follow a link there
/// could lead out of the layer.
pub(crate) fn open_links(layer: BorrowedFd<'_>) -> std::result::Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(layer, LINKS, flags, Mode::empty()) {
        Ok(links) => Ok(Some(links)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn every_name_has_a_kind_and_the_link_farm_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(LINKS)).unwrap();
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        // Twice: the offset of the directory stays where it is.
        for _ in 0..2 {
            let mut found = BTreeMap::new();
            for_each_entry(open.as_fd(), dir.path(), |name, kind| {
                found.insert(String::from_utf8(name.to_vec()).unwrap(), kind);
                Ok(())
            })
            .unwrap();
            let expected = [
                ("directory", EntryKind::Directory),
                ("file", EntryKind::File),
                ("link", EntryKind::Symlink),
                ("socket", EntryKind::Special),
            ];
            assert!(
                found
                    .iter()
                    .map(|(name, kind)| (name.as_str(), *kind))
                    .eq(expected)
            );
        }
    }

    #[test]
    fn a_link_is_not_followed_to_another_farm() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        assert!(open_links(open.as_fd()).unwrap().is_none());
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join(LINKS)).unwrap();
        open_links(open.as_fd()).expect_err("a link");
        std::fs::remove_file(dir.path().join(LINKS)).unwrap();
        std::fs::create_dir(dir.path().join(LINKS)).unwrap();
        assert!(open_links(open.as_fd()).unwrap().is_some());
    }

    #[test]
    fn a_failure_of_the_caller_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let open = std::fs::File::open(dir.path()).unwrap();
        let mut calls = 0;
        let stopped = for_each_entry(open.as_fd(), dir.path(), |_, _| {
            calls += 1;
            Err(Error::Stopped)
        });
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert_eq!(calls, 1);
    }
}
