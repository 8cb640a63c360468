// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees that exist get canonical metadata.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use superpose_nar::{Error, canonicalise};

use crate::files::{Scratch, assert_canonical};
use crate::model::{archive, directory, executable, file, link, make, nested};

#[test]
fn everything_in_a_tree_is_mended() {
    let scratch = Scratch::new();
    let tree = directory([
        ("e", executable("x")),
        ("f", file("x")),
        ("l", link("/etc/passwd")),
        ("locked", directory([("g", file("y"))])),
        ("setuid", executable("x")),
        ("unreadable", file("z")),
        ("unsearchable", directory([("h", directory([("i", file("y"))]))])),
    ]);
    make(&tree, &scratch.path("x"));
    let outside = fs::symlink_metadata("/etc/passwd").unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(scratch.path("x").join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("setuid", 0o6755);
    mode("unreadable", 0o000);
    mode("locked/g", 0o222);
    mode("locked", 0o000);
    mode("unsearchable", 0o444);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(scratch.path("x/f"), Some(12345), Some(12345)).unwrap();
        std::os::unix::fs::lchown(scratch.path("x/l"), Some(12345), Some(12345)).unwrap();
    }
    let attribute = setxattr(scratch.path("x/f"), "user.note", b"x", XattrFlags::empty());

    canonicalise(&scratch.directory, "x").unwrap();
    assert_canonical(&scratch.path("x"));
    assert_eq!(scratch.dump("x"), archive(&tree));
    if attribute.is_ok() {
        let mut list = [0; 256];
        let length = rustix::fs::listxattr(scratch.path("x/f"), &mut list).unwrap();
        assert!(!list[..length].windows(9).any(|name| name == b"user.note"));
    }
    let after = fs::symlink_metadata("/etc/passwd").unwrap();
    assert_eq!(
        (outside.mode(), outside.ctime_nsec()),
        (after.mode(), after.ctime_nsec())
    );
}

#[test]
fn a_second_call_changes_nothing() {
    let scratch = Scratch::new();
    make(
        &directory([
            ("f", file("x")),
            ("l", link("f")),
            ("d", directory([("e", executable("x"))])),
        ]),
        &scratch.path("x"),
    );
    canonicalise(&scratch.directory, "x").unwrap();
    let changed = || {
        ["x", "x/f", "x/l", "x/d", "x/d/e"].map(|name| {
            let stat = fs::symlink_metadata(scratch.path(name)).unwrap();
            (stat.ctime(), stat.ctime_nsec())
        })
    };
    let before = changed();
    std::thread::sleep(Duration::from_millis(20));
    canonicalise(&scratch.directory, "x").unwrap();
    assert_eq!(changed(), before);
}

#[test]
fn the_access_time_stays() {
    let scratch = Scratch::new();
    make(&file("x"), &scratch.path("x"));
    let accessed = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let times = fs::FileTimes::new().set_accessed(accessed);
    fs::File::open(scratch.path("x"))
        .unwrap()
        .set_times(times)
        .unwrap();
    canonicalise(&scratch.directory, "x").unwrap();
    let stat = fs::metadata(scratch.path("x")).unwrap();
    assert_eq!((stat.accessed().unwrap(), stat.mtime()), (accessed, 1));
}

#[test]
fn notes_of_the_overlay_stay() {
    let scratch = Scratch::new();
    make(&directory([("f", file("x"))]), &scratch.path("x"));
    let set = setxattr(
        scratch.path("x"),
        "user.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    );
    if set == Err(rustix::io::Errno::OPNOTSUPP) {
        return; // This file system has no attributes of users.
    }
    set.unwrap();
    canonicalise(&scratch.directory, "x").unwrap();
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(scratch.path("x"), "user.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    // So that a user who is not root can remove it again.
    assert_canonical(&scratch.path("x"));
}

#[test]
fn what_has_no_archive_is_refused() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("x")).unwrap();
    mknodat(CWD, scratch.path("x/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let found = canonicalise(&scratch.directory, "x").unwrap_err();
    assert!(
        matches!(found, Error::UnsupportedType { found: "fifo", .. }),
        "{found:?}"
    );
    make(&nested(64, file("x")), &scratch.path("deep"));
    let found = canonicalise(&scratch.directory, "deep").unwrap_err();
    assert!(matches!(found, Error::TooDeep { .. }), "{found:?}");
    let found = canonicalise(&scratch.directory, "missing").unwrap_err();
    assert_eq!(found.io_kind(), Some(io::ErrorKind::NotFound));
    let found = canonicalise(&scratch.directory, "../x").unwrap_err();
    assert!(matches!(found, Error::ObjectName { .. }), "{found:?}");
}
