// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removing a mount, and not removing what is something else or in use.

use std::fs::{self, File};
use std::path::Path;
use std::process::{self, Child, Command, Stdio};

use rustix::mount::mount_bind;
use superpose_overlay::Error;
use superpose_overlay::mounting::{Detach, Holder, HoldsBy, mount_overlay, unmount};

use crate::namespace::Named;
use crate::stand::{Stand, mount_tmpfs, names, table, write};

pub(crate) const TRIALS: &[Named] = &[
    ("unmount_and_mount_again", and_mount_again),
    ("unmount_busy_by_own_open_file", busy_by_own_open_file),
    ("unmount_busy_by_another_process", busy_by_another_process),
    ("unmount_busy_by_a_mount_below", busy_by_a_mount_below),
    ("unmount_lazily", lazily),
    (
        "unmount_refuses_what_is_no_overlay_mount",
        refuses_what_is_no_overlay_mount,
    ),
];

fn is_mounted(mount_point: &Path) -> bool {
    table()
        .iter()
        .any(|mount| mount.mount_point_path() == mount_point)
}

fn holders(mount_point: &Path) -> Vec<Holder> {
    match unmount(mount_point, Detach::WhenIdle).unwrap_err() {
        Error::MountBusy { holders, .. } => {
            assert!(is_mounted(mount_point));
            holders
        }
        other => panic!("unexpected error: {other}"),
    }
}

fn and_mount_again() {
    let stand = Stand::mounted();
    write(stand.merged.join("new"), "1");
    unmount(&stand.merged, Detach::WhenIdle).unwrap();
    assert!(!is_mounted(&stand.merged));
    assert!(names(&stand.merged).is_empty());
    mount_overlay(&stand.plan()).unwrap();
    assert_eq!(names(&stand.merged), ["new"]);
}

fn busy_by_own_open_file() {
    let stand = Stand::mounted();
    write(stand.merged.join("new"), "1");
    let open = File::open(stand.merged.join("new")).unwrap();
    let found = holders(&stand.merged);
    let [
        Holder::Process {
            pid,
            by: HoldsBy::OpenFile,
            ..
        },
    ] = found.as_slice()
    else {
        panic!("{found:?}")
    };
    assert_eq!(*pid, process::id());
    drop(open);
    unmount(&stand.merged, Detach::WhenIdle).unwrap();
}

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn guest(program: &Path, directory: &Path) -> Guest {
    let mut command = Command::new(program);
    command
        .arg("1000")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Guest(command.spawn().unwrap())
}

fn busy_by_another_process() {
    let stand = Stand::mounted();
    let sleep = Path::new("/bin/sleep");
    let copy = stand.merged.join("sleep-copy");
    fs::copy(sleep, &copy).unwrap();
    let check = |guest: Guest, want: HoldsBy| {
        let found = holders(&stand.merged);
        let [Holder::Process { pid, by, .. }] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((*pid, *by), (guest.0.id(), want));
    };
    check(guest(sleep, &stand.merged), HoldsBy::WorkingDirectory);
    check(guest(&copy, Path::new("/")), HoldsBy::Program);
    unmount(&stand.merged, Detach::WhenIdle).unwrap();
}

fn busy_by_a_mount_below() {
    let stand = Stand::mounted();
    let below = stand.directory("merged/below");
    mount_bind(&stand.lower, &below).unwrap();
    assert_eq!(holders(&stand.merged), [Holder::Mount { mount_point: below }]);
}

fn lazily() {
    let stand = Stand::mounted();
    write(stand.merged.join("new"), "1");
    let open = File::open(stand.merged.join("new")).unwrap();
    unmount(&stand.merged, Detach::Lazily).unwrap();
    assert!(!is_mounted(&stand.merged));
    assert_eq!(std::io::read_to_string(&open).unwrap(), "1");
}

fn refuses_what_is_no_overlay_mount() {
    let stand = Stand::mounted();
    let inside = stand.directory("merged/inside");
    let error = unmount(&inside, Detach::Lazily).unwrap_err();
    assert!(
        matches!(&error, Error::NotAMountPoint { path, .. } if *path == inside),
        "{error}"
    );
    let link = stand.base.path().join("link");
    std::os::unix::fs::symlink(&stand.merged, &link).unwrap();
    let error = unmount(&link, Detach::Lazily).unwrap_err();
    assert!(
        matches!(&error, Error::Io { path, .. } if *path == link),
        "{error}"
    );
    mount_tmpfs(&stand.merged);
    let error = unmount(&stand.merged, Detach::Lazily).unwrap_err();
    assert!(
        matches!(&error, Error::NotAnOverlay { found, .. } if found == "tmpfs"),
        "{error}"
    );
    assert_eq!(
        table()
            .iter()
            .filter(|mount| mount.mount_point_path() == stand.merged)
            .count(),
        2
    );
}
