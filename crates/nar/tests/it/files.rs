// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories for tests.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use superpose_nar::{HashingWriter, NarHash, dump, remove_tree};

/// A temporary directory that can be removed whatever the modes of what is in it.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) directory: File,
    holder: tempfile::TempDir,
}

impl Scratch {
    /// In memory, where there is a place for that, and unless `TMPDIR` asks for a certain file system: a disk that
    /// others use too makes some of the tests take minutes.
    pub(crate) fn new() -> Self {
        let usual = std::env::temp_dir();
        let memory = Path::new("/dev/shm");
        let base = if usual == Path::new("/tmp") && memory.is_dir() {
            memory
        } else {
            &usual
        };
        let holder = tempfile::tempdir_in(base).unwrap();
        // Whatever the umask is: one test makes it a strange one.
        fs::set_permissions(holder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self {
            directory: File::open(holder.path()).unwrap(),
            holder,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.holder.path().join(name)
    }

    /// The names in the directory, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.holder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn dump(&self, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        dump(&self.directory, name, &mut out).unwrap();
        out
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in self.names() {
            if let Err(error) = remove_tree(&self.directory, &name) {
                assert!(std::thread::panicking(), "cannot clean up: {error}");
            }
        }
    }
}

/// Hash and size of bytes.
pub(crate) fn nar_hash(bytes: &[u8]) -> NarHash {
    let mut out = HashingWriter::new(Vec::new());
    std::io::Write::write_all(&mut out, bytes).unwrap();
    out.finish().1
}

/// Asserts that everything in a tree has the metadata of store objects; `executable` tells which files are.
pub(crate) fn assert_canonical(path: &Path) {
    let stat = fs::symlink_metadata(path).unwrap();
    let (user, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    assert_eq!((stat.uid(), stat.gid()), (user, group), "owner of {path:?}");
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1, 0), "time of {path:?}");
    let mode = stat.mode() & 0o7777;
    if stat.is_dir() {
        assert_eq!(mode, 0o555, "mode of {path:?}");
        for entry in fs::read_dir(path).unwrap() {
            assert_canonical(&entry.unwrap().path());
        }
    } else if stat.is_file() {
        assert!(mode == 0o444 || mode == 0o555, "mode {mode:o} of {path:?}");
    }
}
