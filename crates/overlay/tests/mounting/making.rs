// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounts that must work.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::mount_bind;
use superpose_mount_check::options::OverlayOptions;
use superpose_overlay::mounting::{
    MountInterface, MountPlan, OverlayAttributes, mount_overlay, mount_overlay_through,
};

use crate::namespace::Named;
use crate::stand::{Stand, kernel_is_at_least, names, read, shown, write};

pub(crate) const TRIALS: &[Named] = &[
    ("mount_merges_and_writes_above", merges_and_writes_above),
    (
        "mount_table_shows_what_stock_nix_looks_for",
        table_shows_what_stock_nix_looks_for,
    ),
    (
        "mount_odd_names_through_every_interface",
        odd_names_through_every_interface,
    ),
    ("mount_two_lowers_topmost_first", two_lowers_topmost_first),
    ("mount_many_long_lowers", many_long_lowers),
    (
        "mount_many_long_lowers_as_on_older_kernels",
        many_long_lowers_as_on_older_kernels,
    ),
    (
        "mount_beside_one_made_by_descriptors",
        beside_one_made_by_descriptors,
    ),
    (
        "mount_layers_that_only_another_mount_brings_together",
        layers_that_only_another_mount_brings_together,
    ),
    ("mount_over_its_own_lower_layer", over_its_own_lower_layer),
    ("mount_removes_merged_directories", removes_merged_directories),
];

fn merges_and_writes_above() {
    let stand = Stand::new();
    write(stand.lower.join("below"), "1");
    write(stand.upper.join("above"), "2");
    assert_eq!(
        mount_overlay(&stand.plan()).unwrap(),
        MountInterface::OptionString
    );
    assert_eq!(names(&stand.merged), ["above", "below"]);
    write(stand.merged.join("new"), "3");
    assert_eq!(read(stand.upper.join("new")), "3");
    assert_eq!(names(&stand.lower), ["below"]);
}

fn table_shows_what_stock_nix_looks_for() {
    let stand = Stand::new();
    mount_overlay(&stand.plan()).unwrap();
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let start = format!("overlay {} overlay ", stand.merged.display());
    let line = mounts.lines().find(|line| line.starts_with(&start)).unwrap();
    let layers = format!(
        ",lowerdir={},upperdir={},workdir={}",
        stand.lower.display(),
        stand.upper.display(),
        stand.work.display()
    );
    assert!(line.contains(&layers), "{line}");
    assert!(!line.contains("volatile") && !line.contains("index=on"), "{line}");
}

/// The interfaces that this kernel has.
fn interfaces() -> impl Iterator<Item = MountInterface> {
    let since = [
        (MountInterface::OptionString, (0, 0)),
        (MountInterface::Descriptors, (6, 13)),
        (MountInterface::Strings, (6, 8)),
        (MountInterface::OptionStringOfDescriptors, (0, 0)),
    ];
    since
        .into_iter()
        .filter(|(_, (major, minor))| kernel_is_at_least(*major, *minor))
        .map(|(interface, _)| interface)
}

fn odd_names_through_every_interface() {
    let suffixes: [&[u8]; 9] = [
        b" ",
        b",",
        b":",
        b"\\",
        b"\n",
        b"\xff\xfe",
        b"=#\"'*",
        b"\\,\\:",
        b"a b,c:d\\e\nf\xff\\",
    ];
    for suffix in suffixes {
        for interface in interfaces() {
            let stand = Stand::with_suffix(OsStr::from_bytes(suffix));
            write(stand.lower.join("below"), "1");
            assert_eq!(
                mount_overlay_through(&stand.plan(), interface).unwrap(),
                interface
            );
            assert_eq!(read(stand.merged.join("below")), "1", "{suffix:?} {interface:?}");
            write(stand.merged.join("new"), "2");
            assert_eq!(names(&stand.upper), ["new"], "{suffix:?} {interface:?}");
            let user = shown(&stand.merged)
                .super_options
                .iter()
                .any(|option| option.key == b"userxattr");
            assert_eq!(user, stand.plan().attributes == OverlayAttributes::User);
        }
    }
}

fn two_lowers_topmost_first() {
    for interface in interfaces() {
        let stand = Stand::new();
        let top = stand.directory("top");
        write(top.join("both"), "top");
        write(stand.lower.join("both"), "bottom");
        write(stand.lower.join("bottom only"), "bottom");
        let mut plan = stand.plan();
        plan.lower.insert(0, top);
        mount_overlay_through(&plan, interface).unwrap();
        assert_eq!(read(stand.merged.join("both")), "top", "{interface:?}");
        assert_eq!(read(stand.merged.join("bottom only")), "bottom", "{interface:?}");
    }
}

/// Sixty lower layers with `length` bytes in the last part of their paths, each holding a file of its own.
fn sixty(stand: &Stand, length: usize) -> Vec<PathBuf> {
    let make = |number: usize| {
        let lower = stand.directory(&format!("{number:0length$}"));
        write(lower.join(number.to_string()), "");
        lower
    };
    (0..60).map(make).collect()
}

fn assert_sixty(merged: &Path) {
    let mut numbers: Vec<usize> = names(merged).iter().map(|name| name.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

fn many_long_lowers() {
    let stand = Stand::new();
    let mut plan = stand.plan();
    plan.lower = sixty(&stand, 100);
    let interface = mount_overlay(&plan).unwrap();
    assert_ne!(interface, MountInterface::OptionString);
    assert_sixty(&stand.merged);
    if interface == MountInterface::Descriptors {
        let shown = shown(&stand.merged);
        let lower = OverlayOptions::decode(&shown.super_options).lower;
        assert_eq!(
            lower.into_iter().map(|layer| layer.path).collect::<Vec<_>>(),
            plan.lower
        );
        assert_eq!(shown.source, b"overlay");
    }
}

fn many_long_lowers_as_on_older_kernels() {
    let older = [MountInterface::Strings, MountInterface::OptionStringOfDescriptors];
    for interface in interfaces().filter(|interface| older.contains(interface)) {
        for length in [100, 250] {
            let stand = Stand::new();
            let mut plan = stand.plan();
            plan.lower = sixty(&stand, length);
            mount_overlay_through(&plan, interface).unwrap();
            assert_sixty(&stand.merged);
        }
    }
}

/// The table says `/proc/self/fd/N` of the first mount; for the second one those lead to its own layers.
fn beside_one_made_by_descriptors() {
    let (first, second) = (Stand::new(), Stand::new());
    for stand in [&first, &second] {
        mount_overlay_through(&stand.plan(), MountInterface::OptionStringOfDescriptors).unwrap();
        write(stand.merged.join("new"), "1");
        assert_eq!(names(&stand.upper), ["new"]);
    }
}

/// By its path the upper layer lies inside the lower one, but OverlayFS does not look across mounts.
fn layers_that_only_another_mount_brings_together() {
    let stand = Stand::new();
    let (place, elsewhere) = (stand.directory("lower/place"), stand.directory("elsewhere"));
    mount_bind(&elsewhere, &place).unwrap();
    let plan = MountPlan {
        upper: stand.directory("lower/place/upper"),
        work: stand.directory("lower/place/work"),
        ..stand.plan()
    };
    mount_overlay(&plan).unwrap();
    write(stand.merged.join("new"), "1");
    assert_eq!(names(elsewhere.join("upper")), ["new"]);
    assert_eq!(names(&stand.merged), ["new", "place"]);
}

fn over_its_own_lower_layer() {
    let stand = Stand::new();
    write(stand.lower.join("below"), "1");
    let mut plan = stand.plan();
    plan.mount_point = stand.lower.clone();
    mount_overlay(&plan).unwrap();
    write(stand.lower.join("new"), "2");
    assert_eq!(names(&stand.upper), ["new"]);
    assert_eq!(names(&stand.lower), ["below", "new"]);
}

/// Fails with EIO where the marks are kept in the wrong attributes.
fn removes_merged_directories() {
    let stand = Stand::new();
    write(stand.lower.join("both/a"), "1");
    write(stand.upper.join("both/b"), "2");
    mount_overlay(&stand.plan()).unwrap();
    fs::remove_dir_all(stand.merged.join("both")).unwrap();
    fs::create_dir(stand.merged.join("both")).unwrap();
    assert!(names(stand.merged.join("both")).is_empty());
    assert_eq!(names(stand.lower.join("both")), ["a"]);
}
