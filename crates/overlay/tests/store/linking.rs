// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identical files of the layer become links to one, and nothing else about them changes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use superpose_overlay::store_path::{Name, StorePath};
use superpose_overlay::{
    AddOptions, Contents, DeleteOptions, Duplicated, OptimiseOptions, Optimised, Source, Store,
    VerifyOptions, is_interrupted,
};

use crate::namespace::Named;
use crate::optimising::optimise;
use crate::stage::{Stage, Tree, add_text, add_tree, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "linking::identical_files_share_an_inode",
        identical_files_share_an_inode,
    ),
    (
        "linking::what_is_freed_is_what_the_disk_gives_back",
        what_is_freed_is_what_the_disk_gives_back,
    ),
    (
        "linking::what_is_searched_is_remembered",
        what_is_searched_is_remembered,
    ),
    (
        "linking::a_lost_memory_costs_a_search_and_no_hash",
        a_lost_memory_costs_a_search_and_no_hash,
    ),
    (
        "linking::files_of_a_size_of_their_own_are_not_hashed",
        files_of_a_size_of_their_own_are_not_hashed,
    ),
    ("linking::names_are_bytes", names_are_bytes),
    ("linking::links_that_exist_are_kept", links_that_exist_are_kept),
    (
        "linking::dropped_duplicates_take_their_links_along",
        dropped_duplicates_take_their_links_along,
    ),
    (
        "linking::a_local_store_is_linked_too",
        a_local_store_is_linked_too,
    ),
];

pub(crate) const TEXT: &str = "a text that several objects have\n";
/// Of one size, which no other file here has.
pub(crate) const SAME: &[(&str, &str)] = &[("one", TEXT), ("d/two", TEXT)];

fn only_files() -> OptimiseOptions {
    OptimiseOptions::default().with_duplicated(Duplicated::Files)
}

pub(crate) fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

pub(crate) fn farm_of(layer: &Path) -> Vec<PathBuf> {
    let farm = fs::read_dir(layer.join(".links"));
    farm.map(|farm| farm.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}

/// The objects of a layer, without the farm.
pub(crate) fn objects(layer: &Path) -> Tree {
    let mut tree = tree(layer);
    tree.retain(|name, _| !name.as_os_str().is_empty() && !name.starts_with(".links"));
    tree
}

pub(crate) fn assert_whole(store: &mut Store) {
    let mut options = VerifyOptions::default();
    options.contents = Contents::Check;
    let report = store.verify(&options).unwrap();
    assert!(
        report.faults.is_empty() && report.forgotten.is_empty(),
        "{report:?}"
    );
}

/// Two trees and a file with the same text, in two layers that are otherwise empty.
pub(crate) fn with_files() -> (Stage, [StorePath; 3]) {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let paths = [
        add_tree(&mut store, "tree", SAME),
        add_tree(
            &mut store,
            "other",
            &[("three", TEXT), ("alone", "of another size")],
        ),
        add_text(&mut store, "file", TEXT, &[]),
    ];
    (stage, paths)
}

fn identical_files_share_an_inode() {
    let (stage, paths) = with_files();
    let below = stage.lower_tree();
    let before = objects(&stage.upper_dir());
    for path in &paths {
        // The kernel remembers what is above.
        fs::symlink_metadata(stage.merged_dir().join(path.base_name())).unwrap();
    }
    let mut store = stage.open();
    let report = optimise(&mut store);
    assert_eq!(
        (report.linked, report.hashed, report.searched),
        (3, 4, 3),
        "{report:?}"
    );
    assert!(report.remounted && report.dropped.is_empty());
    let above = |path: &StorePath, file: &str| stage.upper_dir().join(path.base_name()).join(file);
    let all = [
        above(&paths[0], "one"),
        above(&paths[0], "d/two"),
        above(&paths[1], "three"),
        stage.upper_dir().join(paths[2].base_name()),
    ];
    let farm = farm_of(&stage.upper_dir());
    assert_eq!(farm.len(), 1, "what is alone is not in the farm");
    assert!(all.iter().all(|file| inode(file) == inode(&farm[0])), "{all:?}");
    assert_eq!(fs::symlink_metadata(&farm[0]).unwrap().nlink(), 5);
    // As stock Nix names it: by the archive of the single file.
    let name = farm[0].file_name().unwrap().to_str().unwrap();
    let hash =
        superpose_overlay::nar::hash_object(fs::File::open(stage.upper_dir()).unwrap(), paths[2].base_name());
    let encoding = superpose_overlay::store_path::HashEncoding::Nix32;
    assert_eq!(name, hash.unwrap().hash.render_bare(encoding));
    // Modes, times, contents are what they were, directories included.
    assert_eq!(objects(&stage.upper_dir()), before);
    for path in &paths {
        let merged = stage.merged_dir().join(path.base_name());
        assert_eq!(tree(&merged), tree(&stage.upper_dir().join(path.base_name())));
    }
    assert_eq!(
        stage.lower_tree(),
        below,
        "the farm of the lower store is not touched"
    );
    assert_whole(&mut store);
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

fn what_is_freed_is_what_the_disk_gives_back() {
    let stage = Stage::over(|_| {});
    let text = "x".repeat(50_000);
    let mut store = stage.open();
    let paths: Vec<StorePath> = ["one", "two", "three"]
        .iter()
        .map(|name| add_tree(&mut store, name, &[("file", &text)]))
        .collect();
    let blocks = |path: &StorePath| {
        let file = stage.upper_dir().join(path.base_name()).join("file");
        fs::symlink_metadata(file).unwrap().blocks() * 512
    };
    let each = blocks(&paths[0]);
    // A second name: the file gives back nothing when it loses one of two.
    fs::hard_link(
        stage.upper_dir().join(paths[2].base_name()).join("file"),
        stage.path("kept"),
    )
    .unwrap();
    let foreseen = store
        .optimise(&only_files().with_effect(superpose_overlay::Effect::Foresee))
        .unwrap();
    let report = optimise(&mut store);
    assert_eq!(report.linked, 2);
    let lost = paths.iter().filter(|path| **path != paths[2]).count() as u64 - 1;
    // The one that leads is one of the three: whichever it is, two names are replaced.
    let kept_leads =
        inode(stage.path("kept")) == inode(stage.upper_dir().join(paths[0].base_name()).join("file"));
    let expected = if kept_leads { 2 * each } else { lost * each };
    assert!(each > 0);
    assert_eq!((report.bytes_linked, foreseen.bytes_linked), (expected, expected));
}

fn what_is_searched_is_remembered() {
    let (stage, paths) = with_files();
    let mut store = stage.open();
    assert_eq!(optimise(&mut store).searched, 3);
    let layer = || tree(&stage.upper_dir());
    let before = layer();
    let again = optimise(&mut store);
    assert_eq!(
        (again.searched, again.hashed, again.linked),
        (0, 0, 0),
        "{again:?}"
    );
    assert!(!again.remounted);
    assert_eq!(layer(), before);
    // A new one is found, and becomes a link without another look at the old ones.
    let new = add_tree(&mut store, "new", SAME);
    let report = optimise(&mut store);
    assert_eq!(
        (report.searched, report.hashed, report.linked),
        (1, 2, 2),
        "{report:?}"
    );
    let new = stage.upper_dir().join(new.base_name()).join("one");
    assert_eq!(inode(new), inode(stage.upper_dir().join(paths[2].base_name())));
    assert_eq!(optimise(&mut store).searched, 0);
    // One that is replaced is another object.
    let object = stage.upper_dir().join(paths[0].base_name());
    fs::rename(&object, stage.path("aside")).unwrap();
    fs::create_dir_all(object.join("d")).unwrap();
    for (name, text) in SAME {
        fs::write(object.join(name), text).unwrap();
    }
    superpose_overlay::nar::canonicalise(fs::File::open(stage.upper_dir()).unwrap(), paths[0].base_name())
        .unwrap();
    store.refresh_mount().unwrap();
    let report = optimise(&mut store);
    assert_eq!((report.searched, report.linked), (1, 2), "{report:?}");
}

fn a_lost_memory_costs_a_search_and_no_hash() {
    let (stage, _) = with_files();
    let mut store = stage.open();
    optimise(&mut store);
    let memory = stage.state_dir().join("superpose/linked");
    for damage in [true, false] {
        if damage {
            let mut bytes = fs::read(&memory).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&memory, bytes).unwrap();
        } else {
            fs::remove_file(&memory).unwrap();
        }
        let report = optimise(&mut store);
        assert_eq!(
            (report.searched, report.hashed, report.linked),
            (3, 0, 0),
            "{report:?}"
        );
        assert_eq!(optimise(&mut store).searched, 0, "it is remembered again");
    }
}

fn files_of_a_size_of_their_own_are_not_hashed() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let old = add_tree(&mut store, "old", &[("five", "55555"), ("six", "666666")]);
    let report = optimise(&mut store);
    assert_eq!(
        (report.searched, report.hashed, report.linked),
        (1, 0, 0),
        "{report:?}"
    );
    assert!(!report.remounted, "nothing was changed");
    assert_eq!(farm_of(&stage.upper_dir()).len(), 0);
    // Another file of that size: now both are looked at, and they differ.
    drop(add_tree(&mut store, "differs", &[("five", "5555x")]));
    let report = optimise(&mut store);
    assert_eq!(
        (report.searched, report.hashed, report.linked),
        (2, 2, 0),
        "{report:?}"
    );
    // One that is the same.
    let same = add_tree(&mut store, "same", &[("other", "666666")]);
    let report = optimise(&mut store);
    assert_eq!((report.hashed, report.linked), (2, 1), "{report:?}");
    let file = |path: &StorePath, name: &str| inode(stage.upper_dir().join(path.base_name()).join(name));
    assert_eq!(file(&old, "six"), file(&same, "other"));
    assert_eq!(optimise(&mut store).searched, 0);
}

fn names_are_bytes() {
    let stage = Stage::over(|_| {});
    let scratch = tempfile::tempdir().unwrap();
    let object = scratch.path().join("odd");
    let directory = object.join(OsStr::from_bytes(b"\xff d\n"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(OsStr::from_bytes(b"\x80\x01")), TEXT).unwrap();
    fs::write(object.join("plain"), TEXT).unwrap();
    let mut store = stage.open();
    let options = AddOptions::source(Name::new(b"odd").unwrap());
    let path = store.add(Source::Path(&object), &options).unwrap().path;
    assert_eq!(optimise(&mut store).linked, 1);
    let above = stage.upper_dir().join(path.base_name());
    let odd = above
        .join(OsStr::from_bytes(b"\xff d\n"))
        .join(OsStr::from_bytes(b"\x80\x01"));
    assert_eq!(inode(odd), inode(above.join("plain")));
    assert_whole(&mut store);
}

fn links_that_exist_are_kept() {
    let (stage, paths) = with_files();
    let above = |path: &StorePath, file: &str| stage.upper_dir().join(path.base_name()).join(file);
    // As `cp --link` leaves it: one inode, and not in the farm.
    let file = above(&paths[0], "d/two");
    fs::remove_file(&file).unwrap();
    fs::hard_link(above(&paths[0], "one"), &file).unwrap();
    superpose_overlay::nar::canonicalise(fs::File::open(stage.upper_dir()).unwrap(), paths[0].base_name())
        .unwrap();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let report = optimise(&mut store);
    assert_eq!(report.hashed, 3, "an inode is hashed once");
    let leader = inode(&farm_of(&stage.upper_dir())[0]);
    assert!(
        [
            inode(&file),
            inode(above(&paths[0], "one")),
            inode(above(&paths[1], "three"))
        ] == [leader; 3]
    );
    assert_whole(&mut store);
}

fn dropped_duplicates_take_their_links_along() {
    let stage = Stage::over(|_| {});
    let files: &[(&str, &str)] = &[("one", TEXT), ("two", TEXT), ("alone", "x")];
    let path = add_tree(&mut stage.open(), "tree", files);
    let own = add_tree(&mut stage.open(), "own", &[("1", "own"), ("2", "own")]);
    assert_eq!(optimise(&mut stage.open()).linked, 2);
    assert_eq!(add_tree(&mut stage.lower_store(), "tree", files), path);
    stage.open().refresh_mount().unwrap();
    let blocks = |name: &str| {
        let file = stage.upper_dir().join(path.base_name()).join(name);
        fs::symlink_metadata(file).unwrap().blocks() * 512
    };
    let bytes = blocks("one") + blocks("alone") + blocks("");
    let mut store = stage.open();
    let report = optimise(&mut store);
    assert_eq!(report.dropped, [path]);
    assert_eq!(report.bytes_dropped, bytes, "with the file of the farm");
    assert_eq!(farm_of(&stage.upper_dir()).len(), 1, "what others need stays");
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(own.base_name()).join("1")).unwrap(),
        "own"
    );
    assert_whole(&mut store);
    store.delete(&[own], &DeleteOptions::default()).unwrap();
}

fn a_local_store_is_linked_too() {
    let stage = Stage::over(|_| {});
    let mut lower = stage.lower_store();
    let paths = [
        add_tree(&mut lower, "tree", SAME),
        add_tree(&mut lower, "other", &[("three", TEXT)]),
    ];
    let before = objects(&stage.lower_dir());
    let report: Optimised = optimise(&mut lower);
    assert_eq!((report.linked, report.remounted), (2, false), "{report:?}");
    assert_eq!(objects(&stage.lower_dir()), before);
    let file = |path: &StorePath, name: &str| inode(stage.lower_dir().join(path.base_name()).join(name));
    assert_eq!(file(&paths[0], "d/two"), file(&paths[1], "three"));
    assert_eq!(optimise(&mut lower).searched, 0);
    assert_whole(&mut lower);
    assert!(!is_interrupted(&stage.path("store-a/nix/var/nix")).unwrap());
}
