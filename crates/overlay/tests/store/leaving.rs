// SPDX-License-Identifier: MIT OR Apache-2.0
//! Repairs that cannot be made, or not all of it: what is left is told, with the reason, and nothing is worse than before.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use superpose_overlay::metadata::{Database, OpenDatabase};
use superpose_overlay::store_path::{Hash, StoreDir, StorePath, StoreReference};
use superpose_overlay::{
    Doing, Error, Obstacle, OpenOptions, Progress, Store, StoreView, Watch, Watcher, is_interrupted,
};

use crate::comparing::{archive, set_archive, thorough};
use crate::namespace::Named;
use crate::repairing::{FILES, Good, assert_mended, layered, mend, spoil};
use crate::stage::{Stage, Tree, add_text, add_tree, resolve, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "leaving::a_source_that_is_no_better_changes_nothing",
        a_source_that_is_no_better_changes_nothing,
    ),
    (
        "leaving::without_a_source_objects_stay",
        without_a_source_objects_stay,
    ),
    (
        "leaving::a_path_that_is_locked_is_left",
        a_path_that_is_locked_is_left,
    ),
    (
        "leaving::a_failed_hook_leaves_the_remount_owed",
        a_failed_hook_leaves_the_remount_owed,
    ),
    (
        "leaving::a_row_that_changes_meanwhile_is_left",
        a_row_that_changes_meanwhile_is_left,
    ),
    (
        "leaving::the_lock_of_the_collector_is_taken",
        the_lock_of_the_collector_is_taken,
    ),
    (
        "leaving::who_stops_it_finds_nothing_changed",
        who_stops_it_finds_nothing_changed,
    ),
];

/// The objects of the upper layer; its own time changes with every scratch name.
fn upper_objects(stage: &Stage) -> Tree {
    let mut objects = tree(&stage.upper_dir());
    objects.remove(std::path::Path::new(""));
    objects
}

fn a_source_that_is_no_better_changes_nothing() {
    let (stage, _, paths) = layered();
    let [library, below, program, alone] = &paths;
    spoil(&stage.upper_dir().join(alone.base_name()));
    spoil(&stage.upper_dir().join(program.base_name()));
    spoil(&stage.lower_dir().join(library.base_name()).join("d/b"));
    spoil(&stage.lower_dir().join(below.base_name()).join("x"));
    // It lacks `program`, has another `below`, and the others are bad there, too: modified, and gone.
    let worse = Good::with(|store| {
        drop(add_tree(store, "library", FILES));
        drop(add_tree(store, "below", &[("x", "4")]));
        drop(add_text(store, "alone", "6", &[]));
    });
    spoil(&worse.object(library).join("a"));
    fs::remove_file(worse.object(alone)).unwrap();
    let database = Database::open(&OpenDatabase::read_write(
        worse.root().join("nix/var/nix/db"),
        StoreDir::default(),
    ));
    set_archive(database.unwrap(), below, Hash::sha256([9; 32]), 7);
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let before = (upper_objects(&stage), stage.lower_tree());
    let repaired = mend(&mut store, &worse);
    assert_eq!((&repaired.objects[..], repaired.left.len()), (&[][..], 4));
    for (name, obstacle) in &repaired.left {
        let right = match obstacle {
            Obstacle::NotInSource { .. } => *name == *program.base_name(),
            Obstacle::OtherInSource { found, .. } => {
                *name == *below.base_name() && *found == Hash::sha256([9; 32])
            }
            Obstacle::ModifiedInSource { expected, .. } => {
                *name == *library.base_name() && *expected == archive(&store, library).hash
            }
            Obstacle::UnreadableInSource { .. } => *name == *alone.base_name(),
            _ => false,
        };
        assert!(right, "{name:?}: {obstacle}");
    }
    assert!(
        (upper_objects(&stage), stage.lower_tree()) == before,
        "something changed"
    );
    assert_eq!(thorough(&mut store).faults.len(), 4);
}

fn without_a_source_objects_stay() {
    let (stage, _, [.., alone]) = layered();
    spoil(&stage.upper_dir().join(alone.base_name()));
    let mut store = stage.open();
    let report = thorough(&mut store);
    let repaired = store.repair(&report, None).unwrap();
    assert!(matches!(&repaired.left[..], [(name, Obstacle::NoSource)] if *name == *alone.base_name()));
    // Nor do those of a store of another directory.
    let other = StoreReference::local(stage.path("other")).with_param("store", b"/other/store");
    drop(Store::open(resolve(&other), OpenOptions::default()).unwrap());
    let other = StoreView::open(&resolve(&other)).unwrap();
    let error = store.repair(&report, Some(&other)).unwrap_err();
    assert!(matches!(error, Error::ForeignSource { .. }), "{error}");
}

fn a_path_that_is_locked_is_left() {
    let (stage, good, [.., alone]) = layered();
    spoil(&stage.upper_dir().join(alone.base_name()));
    let lock = File::create(stage.merged_dir().join(format!("{alone}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut store = stage.open();
    let repaired = mend(&mut store, &good);
    assert!(
        matches!(&repaired.left[..], [(_, Obstacle::Busy)]),
        "{repaired:?}"
    );
    drop(lock);
    let repaired = mend(&mut store, &good);
    assert_eq!(repaired.objects, std::slice::from_ref(&alone));
    drop(store);
    assert_mended(&stage, &good, &[alone]);
}

fn a_failed_hook_leaves_the_remount_owed() {
    let (stage, good, [library, ..]) = layered();
    spoil(&stage.lower_dir().join(library.base_name()).join("a"));
    stage.open().refresh_mount().unwrap();
    let reference = stage.reference().with_param("remount-hook", b"/bin/false");
    let mut store = Store::open(resolve(&reference), OpenOptions::default()).unwrap();
    let report = thorough(&mut store);
    let error = store.repair(&report, Some(&good.view())).unwrap_err();
    assert!(matches!(error, Error::RemountHook { .. }), "{error}");
    drop(store);
    assert!(is_interrupted(&stage.state_dir()).unwrap());
    drop(stage.open());
    assert_mended(&stage, &good, &[library]);
}

/// Wants to stop when bytes are copied.
#[derive(Debug, Default)]
struct Impatient(AtomicBool);

impl Watcher for Impatient {
    fn progress(&self, progress: &Progress) {
        if progress.doing == Doing::Repairing {
            assert!(progress.all == 1 && progress.all_bytes.is_some());
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn wants_to_stop(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn who_stops_it_finds_nothing_changed() {
    let (stage, good, [library, ..]) = layered();
    spoil(&stage.lower_dir().join(library.base_name()).join("a"));
    let before = upper_objects(&stage);
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(Impatient::default()));
    let mut store = stage.open_with(options);
    store.refresh_mount().unwrap();
    let report = thorough(&mut store);
    let error = store.repair(&report, Some(&good.view())).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    drop(store);
    assert!(upper_objects(&stage) == before, "something changed");
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

/// Changes the row when the good object is being copied.
#[derive(Debug)]
struct Meddler {
    database: std::path::PathBuf,
    path: StorePath,
}

impl Watcher for Meddler {
    fn progress(&self, progress: &Progress) {
        if progress.doing == Doing::Repairing {
            let options = OpenDatabase::read_write(&self.database, StoreDir::default());
            set_archive(
                Database::open(&options).unwrap(),
                &self.path,
                Hash::sha256([8; 32]),
                1,
            );
        }
    }
}

fn a_row_that_changes_meanwhile_is_left() {
    let (stage, good, [.., alone]) = layered();
    spoil(&stage.upper_dir().join(alone.base_name()));
    let before = upper_objects(&stage);
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(Meddler {
        database: stage.state_dir().join("db"),
        path: alone,
    }));
    let mut store = stage.open_with(options);
    let repaired = mend(&mut store, &good);
    assert!(
        matches!(&repaired.left[..], [(_, Obstacle::Changed)]),
        "{repaired:?}"
    );
    drop(store);
    assert!(upper_objects(&stage) == before, "something changed");
}

fn the_lock_of_the_collector_is_taken() {
    let (stage, good, [library, .., alone]) = layered();
    spoil(&stage.upper_dir().join(alone.base_name()));
    fs::remove_dir_all(stage.merged_dir().join(library.base_name())).unwrap();
    let mut options = OpenOptions::default();
    options.wait_limit = Some(Duration::from_millis(50));
    let mut store = stage.open_with(options);
    let lock = File::options()
        .write(true)
        .open(stage.state_dir().join("gc.lock"))
        .unwrap();
    // First the whiteout, and when it is gone the object.
    for faults in [2, 1] {
        let report = thorough(&mut store);
        assert_eq!(report.faults.len(), faults, "{report:?}");
        let before = stage.upper_names();
        // As another verification has it, which must not see the layer change.
        flock(&lock, FlockOperation::LockShared).unwrap();
        let error = store.repair(&report, Some(&good.view())).unwrap_err();
        assert!(matches!(error, Error::LockHeld { .. }), "{error}");
        assert_eq!(stage.upper_names(), before);
        assert_eq!(
            fs::read_to_string(stage.upper_dir().join(alone.base_name())).unwrap(),
            "spoilt"
        );
        flock(&lock, FlockOperation::Unlock).unwrap();
        store.repair(&report, None).unwrap();
    }
    let report = thorough(&mut store);
    store.repair(&report, Some(&good.view())).unwrap();
    drop(store);
    assert_mended(&stage, &good, &[library, alone]);
}
