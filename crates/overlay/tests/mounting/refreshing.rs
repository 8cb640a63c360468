// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refreshing a mount after its layers changed behind it.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, mount_remount};
use superpose_overlay::Error;
use superpose_overlay::mounting::{
    RemountInterface, mount_overlay, refresh, refresh_directory, refresh_through,
};

use crate::namespace::Named;
use crate::stand::{Stand, mount_tmpfs, names, shown, unprivileged, write};

pub(crate) const TRIALS: &[Named] = &[
    ("refresh_forgets_what_was_moved_away", forgets_what_was_moved_away),
    (
        "refresh_forgets_that_a_name_was_missing",
        forgets_that_a_name_was_missing,
    ),
    (
        "refresh_keeps_the_flags_of_the_mount",
        keeps_the_flags_of_the_mount,
    ),
    (
        "refresh_leaves_a_writable_mount_writable",
        leaves_a_writable_mount_writable,
    ),
    (
        "refresh_refuses_what_is_no_overlay_mount",
        refuses_what_is_no_overlay_mount,
    ),
    ("refresh_without_rights", without_rights),
];

const INTERFACES: [RemountInterface; 2] = [RemountInterface::Reconfigure, RemountInterface::Remount];

fn through(mount_point: &Path, interface: RemountInterface) {
    let directory = File::open(mount_point).unwrap();
    assert_eq!(
        refresh_through(directory.as_fd(), mount_point, interface).unwrap(),
        interface
    );
}

fn forgets_what_was_moved_away() {
    for interface in INTERFACES {
        let stand = Stand::new();
        write(stand.lower.join("object/below"), "1");
        write(stand.upper.join("object/above"), "2");
        mount_overlay(&stand.plan()).unwrap();
        let object = stand.merged.join("object");
        assert_eq!(names(&object), ["above", "below"]);
        fs::rename(stand.upper.join("object"), stand.base.path().join("trash")).unwrap();
        // What makes the remount necessary: the removed copy is still there.
        assert_eq!(names(&object), ["above", "below"]);
        through(&stand.merged, interface);
        assert_eq!(names(&object), ["below"], "{interface:?}");
    }
}

fn forgets_that_a_name_was_missing() {
    let stand = Stand::mounted();
    let late = stand.merged.join("late");
    assert!(!late.exists());
    write(stand.lower.join("late"), "1");
    assert!(
        !late.exists(),
        "the kernel does not remember missing names, and the trial shows nothing"
    );
    assert_eq!(refresh(&stand.merged).unwrap(), RemountInterface::Reconfigure);
    assert!(late.exists());
}

fn keeps_the_flags_of_the_mount() {
    let restricted = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    for given in [restricted, restricted | MountFlags::RDONLY] {
        for interface in INTERFACES {
            let stand = Stand::mounted();
            mount_remount(&stand.merged, MountFlags::BIND | given, "").unwrap();
            let before = shown(&stand.merged);
            assert_eq!(before.is_mount_read_only(), given.contains(MountFlags::RDONLY));
            assert!(!before.is_super_read_only());
            through(&stand.merged, interface);
            assert_eq!(shown(&stand.merged), before, "{interface:?}");
            let flags = rustix::fs::statvfs(&stand.merged).unwrap().f_flag;
            assert!(
                flags.contains(StatVfsMountFlags::NOSUID | StatVfsMountFlags::NOEXEC),
                "{flags:?}"
            );
        }
    }
}

fn leaves_a_writable_mount_writable() {
    for interface in INTERFACES {
        let stand = Stand::mounted();
        let before = shown(&stand.merged);
        through(&stand.merged, interface);
        assert_eq!(shown(&stand.merged), before, "{interface:?}");
        write(stand.merged.join("new"), "1");
    }
}

fn refuses_what_is_no_overlay_mount() {
    let stand = Stand::mounted();
    // A store may lie below the root of the mount, as in a container.
    refresh(&stand.directory("merged/inside")).unwrap();
    let error = refresh(&stand.lower).unwrap_err();
    assert!(
        matches!(&error, Error::NotAnOverlay { path, .. } if *path == stand.lower),
        "{error}"
    );
    let other = stand.directory("other");
    mount_tmpfs(&other);
    let error = refresh(&other).unwrap_err();
    assert!(
        matches!(&error, Error::NotAnOverlay { found, .. } if found == "tmpfs"),
        "{error}"
    );
    // A mount on top hides the overlay: refreshing what is hidden would help nobody.
    mount_tmpfs(&stand.merged);
    let error = refresh(&stand.merged).unwrap_err();
    assert!(matches!(error, Error::NotAnOverlay { .. }), "{error}");
}

fn without_rights() {
    let stand = Stand::mounted();
    let directory = File::open(&stand.merged).unwrap();
    for interface in INTERFACES {
        let error =
            unprivileged(|| refresh_through(directory.as_fd(), &stand.merged, interface)).unwrap_err();
        assert!(
            matches!(error, Error::RemountNotPermitted { .. }),
            "{interface:?}: {error}"
        );
    }
    refresh_directory(directory.as_fd(), &stand.merged).unwrap();
}
