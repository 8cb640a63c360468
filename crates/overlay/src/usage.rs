// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much is in a layer.

use std::collections::HashSet;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use superpose_store_path::StorePath;

use crate::{Error, Result};

/// What the system counts disk space in, in bytes.
const BLOCK: u64 = 512;

/// How much is in a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Objects: entries whose names are store paths, be they registered or not.
    pub objects: u64,
    /// Other entries: lock files, scratch of Nix, links of its optimiser.
    pub others: u64,
    /// Whiteouts, which hide lower entries.
    pub whiteouts: u64,
    /// Bytes of disk blocks; a file with several names counts once.
    pub bytes: u64,
}

/// Measures a layer directory. Symbolic links are not followed, and other file systems mounted below are left out.
pub(crate) fn measure(path: &Path) -> Result<Usage> {
    let failed = |source: Errno| Error::io("measure", path, source);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = match fs::open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(Usage::default()),
        Err(source) => return Err(failed(source)),
    };
    let mut usage = Usage::default();
    let mut walk = Walk {
        linked: HashSet::new(),
        device: fs::fstat(&top).map_err(failed)?.st_dev,
    };
    for (name, stat) in walk.entries(&top).map_err(failed)? {
        if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 {
            usage.whiteouts += 1;
        } else if StorePath::from_base_name(&name).is_ok() {
            usage.objects += 1;
        } else {
            usage.others += 1;
        }
        usage.bytes += walk.count(&stat);
        usage.bytes += walk.below(&top, &name, &stat).map_err(failed)?;
    }
    Ok(usage)
}

struct Walk {
    /// Files with several names that were counted.
    linked: HashSet<u64>,
    device: u64,
}

/// A directory that was entered, and those in it that were not yet. One descriptor for each level, however many there are
/// side by side: depth is bounded by the limits of archives.
struct Entered {
    directory: OwnedFd,
    left: Vec<Vec<u8>>,
}

impl Walk {
    /// The names and kinds in a directory. What vanishes meanwhile is left out.
    fn entries(&self, directory: &OwnedFd) -> std::result::Result<Vec<(Vec<u8>, Stat)>, Errno> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            match fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.push((entry.file_name().to_bytes().to_vec(), stat)),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// The space of what is below a directory that was counted; of anything else, nothing.
    fn below(&mut self, parent: &OwnedFd, name: &[u8], stat: &Stat) -> std::result::Result<u64, Errno> {
        let mut bytes = 0;
        let mut path = Vec::new();
        if self.is_to_be_entered(stat) {
            path.extend(self.enter(parent, name, &mut bytes)?);
        }
        while let Some(deepest) = path.last_mut() {
            let Some(name) = deepest.left.pop() else {
                path.pop();
                continue;
            };
            let entered = self.enter(&deepest.directory, &name, &mut bytes)?;
            path.extend(entered);
        }
        Ok(bytes)
    }

    /// Opens a directory and counts what is in it; `None` if it has vanished.
    fn enter(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        bytes: &mut u64,
    ) -> std::result::Result<Option<Entered>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match fs::openat(parent.as_fd(), name, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut left = Vec::new();
        for (name, stat) in self.entries(&directory)? {
            *bytes += self.count(&stat);
            if self.is_to_be_entered(&stat) {
                left.push(name);
            }
        }
        Ok(Some(Entered { directory, left }))
    }

    fn is_to_be_entered(&self, stat: &Stat) -> bool {
        stat.st_dev == self.device && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
    }

    /// The space of one entry.
    fn count(&mut self, stat: &Stat) -> u64 {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_dev != self.device
            || !is_directory && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino)
        {
            return 0;
        }
        u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_objects_and_blocks_once() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let object = dir.path().join("xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc");
        std::fs::create_dir_all(object.join("sub")).expect("directories are made");
        std::fs::write(object.join("sub/one"), vec![1; 100_000]).expect("a file is written");
        let alone = measure(dir.path()).expect("it can be walked");
        assert_eq!((alone.objects, alone.others), (1, 0));
        assert!(alone.bytes >= 100_000, "{alone:?}");
        std::fs::hard_link(object.join("sub/one"), dir.path().join("second-name")).expect("a link is made");
        let linked = measure(dir.path()).expect("it can be walked");
        assert_eq!((linked.objects, linked.others, linked.bytes), (1, 1, alone.bytes));
        assert_eq!(
            measure(&dir.path().join("nowhere")).expect("nothing is no error"),
            Usage::default()
        );
    }
}
