// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that the lower store has by now leave the upper layer, if they are the same.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use superpose_overlay::metadata::{Database, OpenDatabase};
use superpose_overlay::store_path::{Hash, StoreDir, StorePath, StoreReference};
use superpose_overlay::{
    Doing, Duplicated, Effect, Error, Kept, Layer, OpenOptions, OptimiseOptions, Optimised, Progress, Reason,
    Store, Watch, Watcher, is_interrupted,
};

use crate::crashing::traced;
use crate::namespace::Named;
use crate::stage::{Stage, Tree, add_text, add_tree, is_valid, resolve, tree};

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
        "optimising::what_is_replaced_meanwhile_is_left",
        what_is_replaced_meanwhile_is_left,
    ),
    (
        "optimising::what_is_being_added_is_left",
        what_is_being_added_is_left,
    ),
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
    ("optimising::a_dry_run_changes_nothing", a_dry_run_changes_nothing),
    (
        "optimising::it_stops_where_nothing_is_done",
        it_stops_where_nothing_is_done,
    ),
    (
        "optimising::the_lock_is_taken_alone_for_changes_only",
        the_lock_is_taken_alone_for_changes_only,
    ),
    (
        "optimising::a_mount_that_cannot_be_refreshed_refuses_first",
        a_mount_that_cannot_be_refreshed_refuses_first,
    ),
    (
        "optimising::the_intent_comes_first_and_the_remount_after_all",
        the_intent_comes_first_and_the_remount_after_all,
    ),
    (
        "optimising::a_local_store_has_no_duplicate_objects",
        a_local_store_has_no_duplicate_objects,
    ),
];

/// The contents of the tree that is in both layers.
const FILES: &[(&str, &str)] = &[("a", "1"), ("d/b", "2")];

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

fn sorted(paths: &[StorePath]) -> Vec<StorePath> {
    let mut paths = paths.to_vec();
    paths.sort();
    paths
}

fn modify(path: &Path, text: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
}

fn the_only(report: Optimised) -> Kept {
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

/// Does something once, as soon as all objects are compared.
struct WhenCompared(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for WhenCompared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WhenCompared")
    }
}

impl Watcher for WhenCompared {
    fn progress(&self, progress: &Progress) {
        if progress.doing == Doing::Comparing
            && progress.done == progress.all
            && let Some(act) = self.0.lock().unwrap().take()
        {
            act();
        }
    }
}

fn when_compared(act: impl FnOnce() + Send + 'static) -> OpenOptions {
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(WhenCompared(Mutex::new(Some(Box::new(act))))));
    options
}

/// Another process replaces the lower object between the comparison and the drop.
fn what_is_replaced_meanwhile_is_left() {
    for layer in [Layer::Lower, Layer::Upper] {
        let (stage, [path, text]) = with_duplicates();
        let object = match layer {
            Layer::Lower => stage.lower_dir(),
            Layer::Upper => stage.upper_dir(),
        }
        .join(path.base_name());
        let aside = stage.path("aside");
        let options = when_compared(move || {
            fs::rename(&object, aside).unwrap();
            fs::create_dir(&object).unwrap();
            fs::write(object.join("a"), "other").unwrap();
        });
        let report = optimise(&mut stage.open_with(options));
        assert_eq!(report.dropped, [text]);
        let kept = the_only(report);
        assert!(
            matches!(kept.reason, Reason::Changed) && !kept.reason.is_fault(),
            "{kept:?}"
        );
        assert!(stage.upper_dir().join(path.base_name()).exists());
    }
}

/// An object without a row is being added if a temporary root protects it, and a left-over if not.
fn what_is_being_added_is_left() {
    let mut below = None;
    let stage = Stage::over(|lower| below = Some(add_tree(lower, "tree", FILES)));
    let path = below.unwrap();
    let copy = stage.upper_dir().join(path.base_name());
    fs::create_dir_all(copy.join("d")).unwrap();
    for (name, text) in FILES {
        fs::write(copy.join(name), text).unwrap();
    }
    let adder = stage.open();
    adder.add_temp_roots(std::slice::from_ref(&path)).unwrap();
    let kept = the_only(optimise(&mut stage.open()));
    assert!(
        matches!(kept.reason, Reason::InUse) && !kept.reason.is_fault(),
        "{kept:?}"
    );
    assert!(copy.join("d/b").exists());
    drop(adder);
    assert_eq!(optimise(&mut stage.open()).dropped, [path]);
    assert!(!copy.exists());
    assert_eq!(
        stage.open().upper_metadata().count().unwrap(),
        0,
        "no row is made"
    );
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

/// Everything of the store but the files that every process makes.
fn everything(stage: &Stage) -> [Tree; 2] {
    let mut state = tree(&stage.state_dir());
    state.retain(|name, _| !name.starts_with("temproots") && !name.ends_with("db.sqlite-shm"));
    [tree(&stage.upper_dir()), state]
}

fn a_dry_run_changes_nothing() {
    let (stage, paths) = with_duplicates();
    for name in ["one", "two"] {
        drop(add_tree(&mut stage.open(), name, &[("file", "the same in both")]));
    }
    drop(stage.open());
    drop(stage.open().verify(&superpose_overlay::VerifyOptions::default()));
    let before = everything(&stage);
    let mut store = stage.open();
    let report = store
        .optimise(&OptimiseOptions::default().with_effect(Effect::Foresee))
        .unwrap();
    assert_eq!(report.dropped, sorted(&paths));
    assert_eq!(report.linked, 1);
    assert!(report.bytes_linked > 0 && !report.remounted);
    drop(store);
    assert!(everything(&stage) == before, "a dry run is a question");
    let report = optimise(&mut stage.open());
    assert_eq!((report.dropped.len(), report.linked), (2, 1), "what was foreseen");
}

#[derive(Debug)]
struct Impatient;

impl Watcher for Impatient {
    fn wants_to_stop(&self) -> bool {
        true
    }
}

fn it_stops_where_nothing_is_done() {
    let (stage, _) = with_duplicates();
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(Impatient));
    let before = tree(&stage.upper_dir());
    let error = stage
        .open_with(options)
        .optimise(&OptimiseOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert_eq!(tree(&stage.upper_dir()), before);
    assert_eq!(optimise(&mut stage.open()).dropped.len(), 2);
}

fn the_lock_is_taken_alone_for_changes_only() {
    let (stage, _) = with_duplicates();
    let lock = || {
        let path = stage.state_dir().join("gc.lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        file.unwrap()
    };
    // Comparing lets others add, and keeps collectors away.
    let seen = lock();
    let state = stage.state_dir();
    let mut options = when_compared(move || {
        let probe = File::open(state.join("gc.lock")).unwrap();
        flock(&probe, FlockOperation::NonBlockingLockShared).unwrap();
        flock(&probe, FlockOperation::NonBlockingLockExclusive).unwrap_err();
        // Held now, so that the changes have to wait.
        flock(&seen, FlockOperation::NonBlockingLockShared).unwrap();
        std::mem::forget(seen);
    });
    options.wait_limit = Some(Duration::from_millis(50));
    let before = tree(&stage.upper_dir());
    let error = stage
        .open_with(options)
        .optimise(&OptimiseOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::LockHeld { .. }), "{error}");
    assert_eq!(tree(&stage.upper_dir()), before);
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

/// The check of the mount is off, and there is none: nothing may be done that needs one afterwards.
fn a_mount_that_cannot_be_refreshed_refuses_first() {
    let (stage, [path, _]) = with_duplicates();
    for name in ["one", "two"] {
        drop(add_tree(&mut stage.open(), name, &[("file", "the same in both")]));
    }
    superpose_overlay::mounting::unmount(&stage.merged_dir(), superpose_overlay::mounting::Detach::Lazily)
        .unwrap();
    let layout = resolve(&stage.reference().with_param("check-mount", b"false"));
    let mut store = Store::open(layout, OpenOptions::default()).unwrap();
    let before = tree(&stage.upper_dir());
    for duplicated in [Duplicated::Objects, Duplicated::Files] {
        let options = OptimiseOptions::default().with_duplicated(duplicated);
        store.optimise(&options).unwrap_err();
    }
    assert_eq!(tree(&stage.upper_dir()), before);
    assert!(stage.upper_dir().join(path.base_name()).exists());
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

fn the_intent_comes_first_and_the_remount_after_all() {
    let (stage, _) = with_duplicates();
    for name in ["one", "two"] {
        drop(add_tree(&mut stage.open(), name, &[("file", "the same in both")]));
    }
    let Some(trace) = traced(&stage, "optimise", &[]) else {
        assert!(
            std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
            "strace is not installed"
        );
        return;
    };
    let positions = |line: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let found = trace.iter().enumerate().filter(|(_, text)| line(text));
        found.map(|(place, _)| place).collect()
    };
    let intents = positions(&|line| line.contains("sync(") && line.contains("/journal>"));
    let moves = positions(&|line| line.contains("renameat") && line.contains("/trash>"));
    let links = positions(&|line| line.contains("renameat") && line.contains("\"file\""));
    let layers = positions(&|line| line.contains("syncfs("));
    let remounts = positions(&|line| line.contains("FSCONFIG_CMD_RECONFIGURE"));
    // Each half: begun and closed with a sync, and one remount for all of it.
    assert_eq!(
        (intents.len(), remounts.len(), layers.len()),
        (4, 2, 2),
        "{trace:#?}"
    );
    // One of the moves is the probe of the trash.
    assert!(
        moves.len() >= 3 && moves[moves.len() - 2] > intents[0],
        "{trace:#?}"
    );
    assert!(moves.iter().all(|moved| *moved < remounts[0]), "{trace:#?}");
    assert!(remounts[0] < intents[1] && intents[1] < intents[2], "{trace:#?}");
    assert!(
        intents[2] < layers[0] && layers[0] < links[0],
        "what is linked to is on the disk first"
    );
    assert!(
        links[links.len() - 1] < layers[1] && layers[1] < remounts[1],
        "{trace:#?}"
    );
    assert!(remounts[1] < intents[3], "{trace:#?}");
}

fn a_local_store_has_no_duplicate_objects() {
    let stage = Stage::over(|lower| drop(add_text(lower, "text", "text", &[])));
    let error = stage.lower_store().optimise(&only_objects()).unwrap_err();
    assert!(matches!(error, Error::NoLayers { .. }), "{error}");
    assert!(optimise(&mut stage.lower_store()).dropped.is_empty());
}
