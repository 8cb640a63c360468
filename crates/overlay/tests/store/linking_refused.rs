// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does not become a link, and what makes room for one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use superpose_overlay::store_path::{Name, StorePath};
use superpose_overlay::{AddOptions, Error, OptimiseOptions, Source};

use crate::linking::{SAME, TEXT, assert_whole, farm_of, inode, with_files};
use crate::namespace::Named;
use crate::optimising::optimise;
use crate::stage::{Stage, add_tree, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "linking_refused::only_valid_settled_files_become_links",
        only_valid_settled_files_become_links,
    ),
    (
        "linking_refused::a_good_file_never_becomes_a_link_to_a_damaged_one",
        a_good_file_never_becomes_a_link_to_a_damaged_one,
    ),
    (
        "linking_refused::copied_up_files_are_not_shared",
        copied_up_files_are_not_shared,
    ),
    (
        "linking_refused::a_whiteout_in_the_farm_makes_room",
        a_whiteout_in_the_farm_makes_room,
    ),
    (
        "linking_refused::the_farm_is_a_directory_of_the_layer",
        the_farm_is_a_directory_of_the_layer,
    ),
    (
        "linking_refused::a_file_with_all_its_links_is_followed_by_another",
        a_file_with_all_its_links_is_followed_by_another,
    ),
];

/// Beyond what any file system of these allows that has a limit (ext4: 65,000).
const MANY: u32 = 65_100;

fn damage(file: &Path) {
    // In place, and with the same size and times: as a disk does it.
    let stat = fs::symlink_metadata(file).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(file).unwrap();
    bytes[0] ^= 1;
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(stat.mode())).unwrap();
    let open = fs::File::open(file).unwrap();
    open.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1))
        .unwrap();
}

fn only_valid_settled_files_become_links() {
    let (stage, paths) = with_files();
    let above = |path: &StorePath| stage.upper_dir().join(path.base_name());
    let mut store = stage.open();
    // Executable, empty, and in an object without a row.
    let scratch = tempfile::tempdir().unwrap();
    let tool = scratch.path().join("tool");
    fs::write(&tool, TEXT).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let tool = store
        .add(
            Source::Path(&tool),
            &AddOptions::source(Name::new(b"tool").unwrap()),
        )
        .unwrap()
        .path;
    drop(add_tree(&mut store, "empty", &[("nothing", ""), ("at-all", "")]));
    let unregistered = stage
        .upper_dir()
        .join("00000000000000000000000000000000-unregistered");
    fs::create_dir(&unregistered).unwrap();
    fs::write(unregistered.join("file"), TEXT).unwrap();
    fs::set_permissions(unregistered.join("file"), fs::Permissions::from_mode(0o444)).unwrap();
    // Writable, and of another time.
    let writable = above(&paths[0]).join("one");
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o644)).unwrap();
    let young = above(&paths[0]).join("d/two");
    fs::set_permissions(&young, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&young, TEXT).unwrap();
    fs::set_permissions(&young, fs::Permissions::from_mode(0o444)).unwrap();
    // Of somebody else, where one can give files away.
    let foreign = add_tree(&mut store, "foreign", &[("file", TEXT), ("z", "z")]);
    let foreign = above(&foreign).join("file");
    let given = chown(&foreign, Some(12345), Some(12345)).is_ok();
    let report = optimise(&mut store);
    assert_eq!(report.skipped.not_canonical, 2, "{report:?}");
    let inodes = [
        inode(&writable),
        inode(&young),
        inode(above(&tool)),
        inode(unregistered.join("file")),
    ];
    for (n, one) in inodes.iter().enumerate() {
        assert!(inodes[n + 1..].iter().all(|other| other != one));
        assert_ne!(*one, inode(above(&paths[2])));
    }
    assert_eq!(inode(above(&paths[1]).join("three")), inode(above(&paths[2])));
    if given {
        assert_eq!(report.skipped.foreign, 1, "{report:?}");
        let owner = fs::symlink_metadata(&foreign).unwrap().uid();
        assert_eq!(owner, 12345, "a file keeps its owner");
    }
}

fn a_good_file_never_becomes_a_link_to_a_damaged_one() {
    let (stage, _) = with_files();
    let mut store = stage.open();
    optimise(&mut store);
    let farm = farm_of(&stage.upper_dir());
    damage(&farm[0]);
    let new = add_tree(&mut store, "new", &[("one", TEXT), ("two", TEXT)]);
    let report = optimise(&mut store);
    assert_eq!(report.linked, 1, "{report:?}");
    let file = |name: &str| stage.upper_dir().join(new.base_name()).join(name);
    assert_eq!(fs::read_to_string(file("one")).unwrap(), TEXT);
    assert_eq!(inode(file("one")), inode(file("two")));
    assert_eq!(
        inode(file("one")),
        inode(&farm[0]),
        "the good one is in the farm now"
    );
}

fn copied_up_files_are_not_shared() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let paths = [
        add_tree(&mut store, "one", &[("file", TEXT)]),
        add_tree(&mut store, "two", &[("file", TEXT)]),
        add_tree(&mut store, "three", &[("file", TEXT)]),
    ];
    let file = |path: &StorePath| stage.upper_dir().join(path.base_name()).join("file");
    let note = |file: &Path| {
        let stat = fs::symlink_metadata(file).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        rustix::fs::setxattr(file, "user.overlay.origin", b"note", XattrFlags::empty()).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(stat.mode())).unwrap();
    };
    note(&file(&paths[0]));
    let report = optimise(&mut store);
    assert_eq!((report.linked, report.skipped.copied_up), (1, 1), "{report:?}");
    assert_ne!(inode(file(&paths[0])), inode(file(&paths[1])));
    assert_eq!(inode(file(&paths[1])), inode(file(&paths[2])));
    // In the farm, as stock Nix leaves it when it links to a file of the lower store's farm.
    let farm = farm_of(&stage.upper_dir());
    note(&farm[0]);
    let new = add_tree(&mut store, "four", &[("file", TEXT)]);
    let report = optimise(&mut store);
    assert_eq!(report.linked, 0, "{report:?}");
    assert_ne!(inode(file(&new)), inode(file(&paths[1])));
    assert_eq!(inode(file(&new)), inode(&farm[0]), "it leads from now on");
}

/// Stock Nix's collector removes a link of the lower store through the merged view.
fn a_whiteout_in_the_farm_makes_room() {
    let stage = Stage::over(|lower| {
        for name in ["below", "beside"] {
            drop(add_tree(lower, name, &[("file", TEXT)]));
        }
        optimise(lower);
    });
    let farm = farm_of(&stage.lower_dir());
    let name = farm[0].file_name().unwrap();
    fs::remove_file(stage.merged_dir().join(".links").join(name)).unwrap();
    let whiteout = stage.upper_dir().join(".links").join(name);
    assert!(!fs::symlink_metadata(&whiteout).unwrap().is_file());
    let below = stage.lower_tree();
    let mut store = stage.open();
    drop(add_tree(&mut store, "tree", SAME));
    let report = optimise(&mut store);
    assert_eq!(report.linked, 1, "{report:?}");
    assert_eq!(fs::read_to_string(&whiteout).unwrap(), TEXT);
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(".links").join(name)).unwrap(),
        TEXT
    );
    assert_eq!(stage.lower_tree(), below);
}

fn the_farm_is_a_directory_of_the_layer() {
    let (stage, _) = with_files();
    let outside = tempfile::tempdir().unwrap();
    let farm = stage.upper_dir().join(".links");
    let before = tree(&stage.upper_dir());
    symlink(outside.path(), &farm).unwrap();
    let check = |found: &str| {
        let error = stage.open().optimise(&OptimiseOptions::default()).unwrap_err();
        assert!(
            matches!(&error, Error::WrongFileType { path, found: said, .. } if *path == farm && *said == found),
            "{error}"
        );
    };
    check("a symbolic link");
    assert_eq!(
        fs::read_dir(outside.path()).unwrap().count(),
        0,
        "nothing leaves the layer"
    );
    fs::remove_file(&farm).unwrap();
    fs::write(&farm, "").unwrap();
    check("a regular file");
    fs::remove_file(&farm).unwrap();
    let mut after = tree(&stage.upper_dir());
    // The times of the layer are nobody's business.
    after.insert(PathBuf::new(), before[Path::new("")].clone());
    assert_eq!(after, before);
}

fn a_file_with_all_its_links_is_followed_by_another() {
    let (stage, paths) = with_files();
    let mut store = stage.open();
    optimise(&mut store);
    let leader = farm_of(&stage.upper_dir()).remove(0);
    let names = stage.path("names");
    fs::create_dir(&names).unwrap();
    let full = (0..MANY).any(|n| fs::hard_link(&leader, names.join(n.to_string())).is_err());
    let new = add_tree(
        &mut store,
        "new",
        &[("one", TEXT), ("two", TEXT), ("three", TEXT)],
    );
    let report = optimise(&mut store);
    let file = |name: &str| inode(stage.upper_dir().join(new.base_name()).join(name));
    let old = inode(stage.upper_dir().join(paths[2].base_name()));
    if full {
        assert_eq!(report.linked, 2, "{report:?}");
        assert_eq!(file("one"), inode(&leader), "a new one leads");
        assert_ne!(file("one"), old);
        // A search without memory does not begin to move 65,000 names from one to the other.
        fs::remove_file(stage.state_dir().join("superpose/linked")).unwrap();
        let again = optimise(&mut store);
        assert_eq!((again.linked, again.hashed), (0, 0), "{again:?}");
    } else {
        assert_eq!(report.linked, 3, "this file system has no limit: {report:?}");
        assert_eq!(file("one"), old);
    }
    assert!([file("two"), file("three")] == [file("one"); 2]);
    assert_whole(&mut store);
}
