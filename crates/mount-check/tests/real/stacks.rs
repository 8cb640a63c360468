// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounts over, under and around the overlay.

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use superpose_mount_check::{Aspect, Certainty, Layer, MountKind, Warning, describe};

use crate::harness::{Case, Needs, Outcome};
use crate::outcome::{cannot_tell, certainty, different, done, proven};
use crate::world::{Setting, World};

pub(crate) fn trials() -> Vec<Case> {
    vec![
        Case::new("not_mounted", not_mounted),
        Case::new("another_file_system_mounted", another_file_system),
        Case::new("a_right_overlay_over_a_wrong_one", right_over_wrong),
        Case::new("a_wrong_overlay_over_a_right_one", wrong_over_right),
        Case::new("tmpfs_over_the_overlay", tmpfs_over),
        Case::new("tmpfs_over_a_parent_directory", tmpfs_over_parent),
        Case::new("an_overlay_moved_beneath", moved_beneath).kernel(6, 5),
        Case::new("a_directory_inside_an_overlay", inside_an_overlay),
        Case::new("describe_tells_mounts_apart", describe_tells_apart),
        Case::new("fuse_overlayfs", fuse_overlayfs)
            .needs(Needs::Root)
            .program("fuse-overlayfs"),
    ]
}

fn not_mounted() -> Outcome {
    let world = World::new();
    different(&world.check(&["l"], "u"), &[Aspect::NotMounted]);
    world.overlay("m", &["l"], "u");
    proven(&world.check(&["l"], "u"));
    world.unmount("m");
    different(&world.check(&["l"], "u"), &[Aspect::NotMounted]);
    done()
}

fn another_file_system() -> Outcome {
    let world = World::new();
    world.tmpfs("m");
    different(&world.check(&["l"], "u"), &[Aspect::FileSystem]);
    done()
}

fn two_overlays(below: &str, above: &str) -> World {
    let world = World::new();
    world.object("u2/x");
    world.overlay("m", &["l"], below);
    world.overlay("m", &["l"], above);
    world
}

fn right_over_wrong() -> Outcome {
    let world = two_overlays("u2", "u");
    let report = world.check(&["l"], "u");
    proven(&report);
    assert!(report.warnings.contains(&Warning::HidesAnother), "{report}");
    done()
}

fn wrong_over_right() -> Outcome {
    let world = two_overlays("u", "u2");
    different(&world.check(&["l"], "u"), &[Aspect::Upper]);
    done()
}

fn tmpfs_over() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    world.tmpfs("m");
    different(&world.check(&["l"], "u"), &[Aspect::Hidden]);
    world.unmount("m");
    proven(&world.check(&["l"], "u"));
    done()
}

fn tmpfs_over_parent() -> Outcome {
    let world = World::new();
    world.directory("parent/m");
    world.overlay("parent/m", &["l"], "u");
    world.tmpfs("parent");
    world.directory("parent/m");
    let report = world.check_at("parent/m", &["l"], "u", Default::default());
    different(&report, &[Aspect::Hidden]);
    world.unmount("parent");
    proven(&world.check_at("parent/m", &["l"], "u", Default::default()));
    done()
}

fn moved_beneath() -> Outcome {
    let world = World::new();
    world.object("u2/x");
    world.directory("w2");
    world.overlay("m", &["l"], "u");
    let settings = [
        ("lowerdir", Setting::Path(world.path("l"))),
        ("upperdir", Setting::Path(world.path("u2"))),
        ("workdir", Setting::Path(world.path("w2"))),
    ];
    let beneath = world.detached(&settings)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    move_mount(&beneath, "", CWD, world.path("m"), flags)?;
    world.mounted(world.path("m"));
    // The hidden overlay's line comes last in the mount table.
    let report = world.check(&["l"], "u");
    proven(&report);
    assert!(report.warnings.contains(&Warning::HidesAnother), "{report}");
    different(&world.check(&["l"], "u2"), &[Aspect::Upper]);
    world.unmount("m");
    proven(&world.check(&["l"], "u2"));
    done()
}

/// As in a container whose root is an overlay: the covering mount is one, but not for this directory.
fn inside_an_overlay() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    for name in ["m/l", "m/u", "m/m"] {
        world.directory(name);
    }
    let report = world.check_at("m/m", &["m/l"], "m/u", Default::default());
    different(&report, &[Aspect::NotMounted]);
    done()
}

fn describe_tells_apart() -> Outcome {
    let world = World::new();
    let plain = describe(&world.path("m"))?;
    assert_eq!(
        (plain.kind, plain.is_mount_point, plain.overlay),
        (MountKind::Other, false, None)
    );
    world.overlay("m", &["l"], "u");
    let overlay = describe(&world.path("m"))?;
    assert_eq!(
        (overlay.kind, overlay.is_mount_point, overlay.is_read_only),
        (MountKind::Overlay, true, false)
    );
    assert_eq!(overlay.overlay.unwrap().upper.unwrap().path, world.path("u"));
    let below = describe(&world.path("m/lower-directory"))?;
    assert_eq!((below.kind, below.is_mount_point), (MountKind::Overlay, false));
    assert!(describe(&world.path("nothing")).is_err());
    assert!(describe(&world.path("l/lower-file")).is_err());
    done()
}

fn fuse_overlayfs() -> Outcome {
    let world = World::new();
    let path = |name: &str| world.path(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("l"),
        path("u"),
        path("w")
    );
    let started = std::process::Command::new("fuse-overlayfs")
        .args(["-o", &options])
        .arg(world.path("m"))
        .status()?;
    assert!(started.success());
    world.mounted(world.path("m"));
    let report = world.check(&["l"], "u");
    cannot_tell(&report);
    assert_ne!(certainty(&report, Layer::Upper), Certainty::Refuted, "{report}");
    assert_eq!(report.mount.unwrap().kind, MountKind::FuseOverlay);
    done()
}
