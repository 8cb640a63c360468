// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that the lower store has by now leave the upper layer, if they are the same.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use superpose_overlay::metadata::{Database, OpenDatabase};
use superpose_overlay::store_path::{Hash, StoreDir, StorePath, StoreReference};
use superpose_overlay::{
    Duplicated, Error, Kept, Layer, OpenOptions, OptimiseOptions, Optimised, Reason, Store, is_interrupted,
};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve};

pub(crate) const TRIALS: &[Named] = &[
    (
        "optimising::duplicates_leave_and_stay_valid",
        duplicates_leave_and_stay_valid,
    ),
    (
        "optimising::a_damaged_copy_below_costs_nothing",
        a_damaged_copy_below_costs_nothing,
    ),
    (
        "optimising::a_damaged_copy_above_is_reported_too",
        a_damaged_copy_above_is_reported_too,
    ),
    (
        "optimising::a_missing_copy_below_costs_nothing",
        a_missing_copy_below_costs_nothing,
    ),
    (
        "optimising::what_cannot_be_compared_is_left",
        what_cannot_be_compared_is_left,
    ),
    ("optimising::rows_that_differ_are_left", rows_that_differ_are_left),
    (
        "optimising::several_copies_below_are_left",
        several_copies_below_are_left,
    ),
    (
        "optimising::a_user_of_the_dropped_copy_keeps_all_of_it",
        a_user_of_the_dropped_copy_keeps_all_of_it,
    ),
    (
        "optimising::whiteouts_and_junk_are_left",
        whiteouts_and_junk_are_left,
    ),
    (
        "optimising::a_local_store_has_no_duplicate_objects",
        a_local_store_has_no_duplicate_objects,
    ),
];

/// The contents of the tree that is in both layers.
pub(crate) const FILES: &[(&str, &str)] = &[("a", "1"), ("d/b", "2")];

fn only_objects() -> OptimiseOptions {
    OptimiseOptions::default().with_duplicated(Duplicated::Objects)
}

pub(crate) fn optimise(store: &mut Store) -> Optimised {
    store.optimise(&OptimiseOptions::default()).unwrap()
}

/// Copies of a tree and of a file in both layers, known to both databases.
pub(crate) fn with_duplicates() -> (Stage, [StorePath; 2]) {
    let stage = Stage::over(|_| {});
    let add = |store: &mut Store| {
        [
            add_tree(store, "tree", FILES),
            add_text(store, "text", "text", &[]),
        ]
    };
    let paths = add(&mut stage.open());
    assert_eq!(add(&mut stage.lower_store()), paths);
    stage.open().refresh_mount().unwrap();
    // The kernel remembers what is above.
    for path in &paths {
        fs::symlink_metadata(stage.merged_dir().join(path.base_name())).unwrap();
    }
    (stage, paths)
}

pub(crate) fn sorted(paths: &[StorePath]) -> Vec<StorePath> {
    let mut paths = paths.to_vec();
    paths.sort();
    paths
}

fn modify(path: &Path, text: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn the_only(report: Optimised) -> Kept {
    let [kept] = <[Kept; 1]>::try_from(report.kept).unwrap();
    kept
}

fn duplicates_leave_and_stay_valid() {
    let (stage, paths) = with_duplicates();
    let own = add_text(&mut stage.open(), "own", "own", &[&paths[0]]);
    let below = stage.lower_tree();
    let mut store = stage.open();
    let report = store.optimise(&only_objects()).unwrap();
    assert_eq!(report.dropped, sorted(&paths));
    assert!(
        report.kept.is_empty() && report.remounted && report.waiting == 0,
        "{report:?}"
    );
    assert!(report.bytes_dropped > 0, "blocks are given back");
    assert_eq!(stage.upper_names(), [own.base_name()]);
    for path in &paths {
        assert!(is_valid(store.upper_metadata(), path), "rows stay");
    }
    let merged = stage.merged_dir().join(paths[0].base_name());
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
    assert_eq!(fs::read_dir(&merged).unwrap().count(), 2);
    assert_eq!(stage.lower_tree(), below);
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
    let again = store.optimise(&only_objects()).unwrap();
    assert!(again.dropped.is_empty() && !again.remounted, "{again:?}");
}

fn a_damaged_copy_below_costs_nothing() {
    let (stage, [damaged, text]) = with_duplicates();
    modify(&stage.lower_dir().join(damaged.base_name()).join("d/b"), "3");
    let report = optimise(&mut stage.open());
    assert_eq!(report.dropped, [text]);
    let kept = the_only(report);
    assert_eq!(kept.path, damaged);
    let Reason::Different { difference, modified } = kept.reason else {
        panic!("{:?}", kept.reason);
    };
    assert_eq!(difference.path, Path::new("d/b"));
    assert_eq!(difference.one.to_string(), "the byte 0x32 at offset 0");
    assert_eq!(difference.other.to_string(), "the byte 0x33 at offset 0");
    let [modified] = &modified[..] else {
        panic!("{modified:?}")
    };
    assert_eq!(modified.layer, Layer::Lower);
    assert_ne!(modified.expected, modified.found);
    let good = stage.upper_dir().join(damaged.base_name()).join("d/b");
    assert_eq!(
        fs::read_to_string(good).unwrap(),
        "2",
        "the good copy is still there"
    );
}

fn a_damaged_copy_above_is_reported_too() {
    let (stage, [_, damaged]) = with_duplicates();
    modify(&stage.upper_dir().join(damaged.base_name()), "longer than before");
    let kept = the_only(optimise(&mut stage.open()));
    assert!(kept.reason.is_fault());
    let Reason::Different { modified, .. } = kept.reason else {
        panic!("{:?}", kept.reason);
    };
    assert_eq!(modified.len(), 1);
    assert_eq!(modified[0].layer, Layer::Upper);
    assert!(stage.upper_names().contains(&damaged.to_string()));
}

fn a_missing_copy_below_costs_nothing() {
    let (stage, [path, text]) = with_duplicates();
    let gone = stage.path("gone");
    fs::rename(stage.lower_dir().join(path.base_name()), gone).unwrap();
    let report = optimise(&mut stage.open());
    assert_eq!(report.dropped, [text]);
    let kept = the_only(report);
    assert!(
        matches!(&kept.reason, Reason::Missing { expected } if expected.ends_with(path.base_name())),
        "{kept:?}"
    );
    assert!(kept.reason.is_fault());
    assert!(stage.upper_names().contains(&path.to_string()));
}

fn what_cannot_be_compared_is_left() {
    let (stage, [path, text]) = with_duplicates();
    // No archive is this deep, so that nobody knows whether they are the same.
    for dir in [stage.upper_dir(), stage.lower_dir()] {
        let mut deep = dir.join(path.base_name());
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o755)).unwrap();
        (0..70).for_each(|_| deep.push("a-deep"));
        fs::create_dir_all(deep).unwrap();
    }
    let report = optimise(&mut stage.open());
    assert_eq!(report.dropped, [text]);
    let kept = the_only(report);
    assert!(
        matches!(kept.reason, Reason::Unreadable { .. }) && kept.reason.is_fault(),
        "{kept:?}"
    );
    assert!(stage.upper_names().contains(&path.to_string()));
}

fn rows_that_differ_are_left() {
    let (stage, [path, text]) = with_duplicates();
    let mut info = {
        let store = stage.open();
        let infos = store.upper_metadata().path_infos(std::slice::from_ref(&path));
        infos.unwrap().remove(0).unwrap()
    };
    let registered = info.nar_hash;
    info.nar_hash = Hash::sha256([7; 32]);
    info.content_address = None;
    {
        let options = OpenDatabase::read_write(stage.state_dir().join("db"), StoreDir::default());
        let mut database = Database::open(&options).unwrap();
        database
            .register(std::slice::from_ref(&info), &mut |_| unreachable!())
            .unwrap();
    }
    let report = optimise(&mut stage.open());
    assert_eq!(report.dropped, [text]);
    let kept = the_only(report);
    assert!(
        matches!(&kept.reason, Reason::RowsDiffer { upper, lower } if *upper == info.nar_hash && *lower == registered),
        "{kept:?}"
    );
    assert!(stage.upper_names().contains(&path.to_string()));
}

/// What would show of a name that two lower directories have is the union of both.
fn several_copies_below_are_left() {
    let middle = Stage::over(|_| {});
    let path = add_tree(&mut middle.open(), "tree", FILES);
    assert_eq!(add_tree(&mut middle.lower_store(), "tree", FILES), path);
    let top = tempfile::tempdir().unwrap();
    for directory in ["upper", "work", "merged/nix/store"] {
        fs::create_dir_all(top.path().join(directory)).unwrap();
    }
    let merged = top.path().join("merged/nix/store");
    let plan = superpose_overlay::mounting::MountPlan::new(
        vec![middle.upper_dir(), middle.lower_dir()],
        top.path().join("upper"),
        top.path().join("work"),
        &merged,
    )
    .with_attributes(superpose_overlay::mounting::OverlayAttributes::for_this_process().unwrap());
    superpose_overlay::mounting::mount_overlay(&plan).unwrap();
    let reference = StoreReference::overlay(
        &middle.reference(),
        top.path().join("upper"),
        top.path().join("merged"),
    );
    let copy = top.path().join("upper").join(path.base_name());
    fs::create_dir_all(copy.join("d")).unwrap();
    for (name, text) in FILES {
        fs::write(copy.join(name), text).unwrap();
    }
    let mut store = Store::open(resolve(&reference), OpenOptions::default()).unwrap();
    let kept = the_only(optimise(&mut store));
    assert!(
        matches!(kept.reason, Reason::SeveralBelow) && !kept.reason.is_fault(),
        "{kept:?}"
    );
    assert!(copy.exists());
    // With one copy below it goes.
    fs::rename(middle.lower_dir().join(path.base_name()), middle.path("aside")).unwrap();
    assert_eq!(optimise(&mut store).dropped, [path]);
    drop(store);
    superpose_overlay::mounting::unmount(&merged, superpose_overlay::mounting::Detach::Lazily).unwrap();
}

fn a_user_of_the_dropped_copy_keeps_all_of_it() {
    let (stage, [path, _]) = with_duplicates();
    let merged = stage.merged_dir().join(path.base_name());
    let held = File::open(&merged).unwrap();
    let mut file = File::open(merged.join("d/b")).unwrap();
    let report = optimise(&mut stage.open());
    assert_eq!(report.waiting, 1);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "2");
    assert_eq!(
        rustix::fs::Dir::read_from(&held).unwrap().count(),
        4,
        "with . and .."
    );
    drop((held, file));
    let store = stage.open();
    store.refresh_mount().unwrap();
    assert_eq!(fs::read_dir(&merged).unwrap().count(), 2);
}

fn whiteouts_and_junk_are_left() {
    let (stage, [path, text]) = with_duplicates();
    // Through the merged view: the kernel leaves a whiteout over what is below.
    fs::remove_file(stage.merged_dir().join(text.base_name())).unwrap();
    fs::write(stage.upper_dir().join("tmp-1-1"), "junk").unwrap();
    let report = optimise(&mut stage.open());
    assert_eq!((report.dropped, report.kept.len()), (vec![path], 0));
    let names = stage.upper_names();
    assert_eq!(names, [text.base_name(), "tmp-1-1"]);
}

fn a_local_store_has_no_duplicate_objects() {
    let stage = Stage::over(|lower| drop(add_text(lower, "text", "text", &[])));
    let error = stage.lower_store().optimise(&only_objects()).unwrap_err();
    assert!(matches!(error, Error::NoLayers { .. }), "{error}");
    assert!(optimise(&mut stage.lower_store()).dropped.is_empty());
}
