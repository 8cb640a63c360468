// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this process has open.
//!
//! The locks of SQLite belong to the process, not to a descriptor: as soon as any descriptor of a file is closed, the
//! kernel drops all locks that the process has on it. SQLite takes care of that among its own connections,
//! except for those that it was told to open without locks.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Where the kernel lists the descriptors of the process that asks.
const LIST: &str = "/proc/self/fd";

/// Set in the mode of an entry there if the descriptor can be written to.
const WRITABLE: u32 = 0o200;

/// Tells whether this process has a file open for writing. If that cannot be told, it may.
pub(super) fn is_open_for_writing(device: u64, inode: u64) -> bool {
    let Ok(entries) = fs::read_dir(LIST) else {
        return true;
    };
    entries.flatten().any(|entry| {
        // The mode is that of the entry itself, device and inode are those of what it leads to.
        entry
            .metadata()
            .is_ok_and(|link| link.permissions().mode() & WRITABLE != 0)
            && fs::metadata(entry.path()).is_ok_and(|file| (file.dev(), file.ino()) == (device, inode))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};

    use super::*;

    #[test]
    fn only_descriptors_that_can_write_count() {
        let dir = tempfile::TempDir::new().expect("a directory can be made");
        let path = dir.path().join("file");
        fs::write(&path, b"").expect("it can be written");
        let file = fs::metadata(&path).expect("it is there");
        let is_written = || is_open_for_writing(file.dev(), file.ino());
        assert!(!is_written());
        let reader = File::open(&path).expect("it can be read");
        assert!(!is_written());
        let mut options = OpenOptions::new();
        let writer = options
            .read(true)
            .write(true)
            .open(&path)
            .expect("it can be written");
        assert!(is_written());
        drop(writer);
        assert!(!is_written());
        drop(reader);
    }
}
