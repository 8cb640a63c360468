// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening what is only read, so that reading it changes nothing: not even the time of the last access, which costs a write
//! to the disk for each file, in lower stores too.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

/// Opens a file that is no link. Whatever took its place meanwhile does not block, and is for the caller to notice.
pub(crate) fn file(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    read_only(parent, name, OFlags::NONBLOCK | OFlags::NOCTTY)
}

/// Opens a directory that is no link.
pub(crate) fn directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    read_only(parent, name, OFlags::DIRECTORY)
}

fn read_only(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may keep the time.
        Err(Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn reading_leaves_the_time_of_the_last_access() {
        let top = tempfile::tempdir().expect("a directory");
        let path = top.path().join("file");
        fs::write(&path, "x").expect("a file");
        // So long ago that any reading would move it.
        let old = SystemTime::now() - Duration::from_secs(90_000);
        let times = FileTimes::new().set_accessed(old);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_times(times))
            .expect("the time is set");
        let before = fs::metadata(&path)
            .and_then(|found| found.accessed())
            .expect("a time");
        let directory = File::open(top.path()).expect("a directory");
        let opened = file(directory.as_fd(), c"file").expect("it is ours");
        let mut text = String::new();
        File::from(opened).read_to_string(&mut text).expect("it is read");
        let after = fs::metadata(&path)
            .and_then(|found| found.accessed())
            .expect("a time");
        assert_eq!((text.as_str(), after), ("x", before));
    }
}
