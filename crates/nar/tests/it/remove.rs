// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removing trees.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use superpose_nar::{Error, Removals, RemoveStats, RestoreOptions, remove_tree, restore};

use crate::files::Scratch;
use crate::model::{archive, directory, executable, file, link, make};

#[test]
fn everything_goes_and_is_counted() {
    let scratch = Scratch::new();
    make(
        &directory([
            ("e", executable("x")),
            ("l", link("../outside")),
            (
                "s",
                directory([("empty", directory::<&str>([])), ("f", file(vec![1; 100_000]))]),
            ),
        ]),
        &scratch.path("x"),
    );
    mknodat(CWD, scratch.path("x/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    make(&directory([("kept", file("x"))]), &scratch.path("outside"));
    let removed = remove_tree(&scratch.directory, "x").unwrap();
    assert_eq!(
        (removed.files, removed.directories, removed.bytes_still_linked),
        (4, 3, 0)
    );
    assert!(removed.bytes_freed >= 100_000, "{removed:?}");
    assert_eq!(scratch.names(), ["outside"]);
    assert_eq!(
        scratch.dump("outside"),
        archive(&directory([("kept", file("x"))]))
    );
}

#[test]
fn a_lone_file_or_link() {
    let scratch = Scratch::new();
    make(&directory([("kept", file("x"))]), &scratch.path("outside"));
    make(&link("outside"), &scratch.path("l"));
    make(&file("x"), &scratch.path("f"));
    for name in ["l", "f"] {
        let removed = remove_tree(&scratch.directory, name).unwrap();
        assert_eq!((removed.files, removed.directories), (1, 0));
    }
    assert_eq!(scratch.names(), ["outside"]);
    let found = remove_tree(&scratch.directory, "f").unwrap_err();
    assert_eq!(found.io_kind(), Some(io::ErrorKind::NotFound));
    for name in ["", ".", "..", "outside/kept", "/"] {
        let found = remove_tree(&scratch.directory, name).unwrap_err();
        assert!(matches!(found, Error::ObjectName { .. }), "{name:?}: {found:?}");
    }
    assert_eq!(scratch.names(), ["outside"]);
}

#[test]
fn read_only_and_locked_directories_go_too() {
    for mode in [0o000, 0o444, 0o111, 0o555, 0o200] {
        let scratch = Scratch::new();
        let inner = directory([("g", file("y")), ("u", directory([("h", file("z"))]))]);
        let tree = directory([("s", directory([("f", file("x")), ("t", inner)]))]);
        restore(
            &mut &archive(&tree)[..],
            &scratch.directory,
            "x",
            &RestoreOptions::default(),
        )
        .unwrap();
        for name in ["x/s/t/u", "x/s/t", "x/s", "x"] {
            fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let removed = remove_tree(&scratch.directory, "x").unwrap();
        assert_eq!((removed.files, removed.directories), (3, 4), "{mode:o}");
        assert_eq!(scratch.names(), [""; 0]);
    }
}

#[test]
fn hard_links_are_counted_once() {
    let scratch = Scratch::new();
    make(
        &directory([("a", file(vec![1; 50_000])), ("c", file(vec![2; 70_000]))]),
        &scratch.path("x"),
    );
    fs::hard_link(scratch.path("x/a"), scratch.path("x/b")).unwrap();
    fs::hard_link(scratch.path("x/c"), scratch.path("x/d")).unwrap();
    fs::hard_link(scratch.path("x/c"), scratch.path("outside")).unwrap();
    let space = |name: &str| fs::symlink_metadata(scratch.path(name)).unwrap().blocks() * 512;
    let (directory, inner, linked) = (space("x"), space("x/a"), space("x/c"));
    let removed = remove_tree(&scratch.directory, "x").unwrap();
    let expected = RemoveStats {
        files: 4,
        directories: 1,
        inodes_freed: 2,
        bytes_freed: directory + inner,
        bytes_still_linked: linked,
    };
    assert_eq!(removed, expected);
    assert_eq!(scratch.names(), ["outside"]);
}

/// Threads that remove names of the same files at the same moment lose none of them, and count none twice.
#[test]
fn many_trees_are_counted_together_whoever_removes_them() {
    const TREES: usize = 40;
    let scratch = Scratch::new();
    let name = |tree: usize| format!("tree-{tree}");
    for tree in 0..TREES {
        make(
            &directory([("own", file(vec![1; 5_000]))]),
            &scratch.path(&name(tree)),
        );
    }
    for shared in 0..50 {
        let first = scratch.path(&format!("tree-0/shared-{shared}"));
        fs::write(&first, vec![2; 9_000]).unwrap();
        for tree in 1..TREES {
            fs::hard_link(&first, scratch.path(&format!("tree-{tree}/shared-{shared}"))).unwrap();
        }
    }
    fs::hard_link(scratch.path("tree-0/shared-0"), scratch.path("outside")).unwrap();
    let space = |name: &str| fs::symlink_metadata(scratch.path(name)).unwrap().blocks() * 512;
    let own: u64 = (0..TREES)
        .map(|tree| space(&name(tree)) + space(&format!("tree-{tree}/own")))
        .sum();
    let shared = space("outside");
    let removals = Removals::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (removals, scratch) = (&removals, &scratch);
            scope.spawn(move || {
                for tree in (thread..TREES).step_by(4) {
                    removals.remove(&scratch.directory, name(tree)).unwrap();
                }
            });
        }
    });
    let expected = RemoveStats {
        files: 51 * TREES as u64,
        directories: TREES as u64,
        inodes_freed: 2 * TREES as u64 + 49,
        bytes_freed: own + 49 * shared,
        bytes_still_linked: shared,
    };
    assert_eq!(removals.total(), expected);
    assert_eq!(scratch.names(), ["outside"]);
}

#[test]
fn depth_is_not_limited() {
    let scratch = Scratch::new();
    // Deeper than a process may have files open, and than a path may be long.
    let depth = 1500;
    let mut here = openat(&scratch.directory, ".", OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&here, "deep", Mode::RWXU).unwrap();
        here = openat(&here, "deep", OFlags::DIRECTORY, Mode::empty()).unwrap();
        mknodat(&here, "f", FileType::RegularFile, Mode::RUSR, 0).unwrap();
    }
    let removed = remove_tree(&scratch.directory, "deep").unwrap();
    assert_eq!((removed.files, removed.directories), (depth, depth));
    assert_eq!(scratch.names(), [""; 0]);
}
