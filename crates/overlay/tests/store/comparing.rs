// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layer, upper database and lower store against each other: what differs is told, as a fault or as a note.

use std::fs::{self, File};

use rustix::fs::{FlockOperation, flock};
use superpose_overlay::metadata::{ArchiveInfo, Database, MetadataSource, OpenDatabase};
use superpose_overlay::mounting::OverlayAttributes;
use superpose_overlay::store_path::{Hash, StoreDir, StorePath};
use superpose_overlay::{Contents, Fault, Layer, Note, Store, Survey, VerifyOptions, VerifyReport};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    (
        "comparing::what_a_hidden_object_needs_is_missed",
        what_a_hidden_object_needs_is_missed,
    ),
    (
        "comparing::a_whiteout_over_a_valid_object_is_a_fault",
        a_whiteout_over_a_valid_object_is_a_fault,
    ),
    (
        "comparing::a_hidden_object_keeps_its_row",
        a_hidden_object_keeps_its_row,
    ),
    ("comparing::other_whiteouts_are_noted", other_whiteouts_are_noted),
    (
        "comparing::names_that_stop_a_collector_are_faults",
        names_that_stop_a_collector_are_faults,
    ),
    (
        "comparing::what_is_being_added_is_no_garbage",
        what_is_being_added_is_no_garbage,
    ),
    (
        "comparing::what_the_lower_store_lost_is_a_fault",
        what_the_lower_store_lost_is_a_fault,
    ),
    (
        "comparing::rows_that_drifted_apart_are_told",
        rows_that_drifted_apart_are_told,
    ),
    (
        "comparing::what_the_kernel_remembers_as_absent_is_not_forgotten",
        what_the_kernel_remembers_as_absent_is_not_forgotten,
    ),
    (
        "comparing::an_object_replaced_below_is_modified",
        an_object_replaced_below_is_modified,
    ),
];

/// The attribute in which the mounts of these trials keep a note.
pub(crate) fn attribute(note: &str) -> String {
    match OverlayAttributes::for_this_process().unwrap() {
        OverlayAttributes::Trusted => format!("trusted.overlay.{note}"),
        OverlayAttributes::User => format!("user.overlay.{note}"),
    }
}

pub(crate) fn quick(store: &mut Store) -> VerifyReport {
    store.verify(&VerifyOptions::default()).unwrap()
}

pub(crate) fn thorough(store: &mut Store) -> VerifyReport {
    let mut options = VerifyOptions::default();
    options.contents = Contents::Check;
    store.verify(&options).unwrap()
}

/// The database of the lower store, to be spoilt.
pub(crate) fn lower_database(stage: &Stage) -> Database {
    let dir = stage.path("store-a/nix/var/nix/db");
    Database::open(&OpenDatabase::read_write(dir, StoreDir::default())).unwrap()
}

pub(crate) fn upper_database(stage: &Stage) -> Database {
    Database::open(&OpenDatabase::read_write(
        stage.state_dir().join("db"),
        StoreDir::default(),
    ))
    .unwrap()
}

pub(crate) fn set_archive(mut database: Database, path: &StorePath, hash: Hash, size: u64) {
    let mut transaction = database.begin().unwrap();
    transaction
        .set_archive(path, &ArchiveInfo { hash, size })
        .unwrap();
    transaction.commit().unwrap();
}

pub(crate) fn archive(store: &Store, path: &StorePath) -> ArchiveInfo {
    store
        .metadata()
        .archives(std::slice::from_ref(path))
        .unwrap()
        .remove(0)
        .unwrap()
}

/// A lower store with the tree `tree`.
pub(crate) fn over_tree() -> (Stage, StorePath) {
    let mut path = None;
    let stage =
        Stage::over(|lower| path = Some(add_tree(lower, "tree", &[("a", "1"), ("d/b", "2"), ("d/c", "3")])));
    (stage, path.unwrap())
}

/// As a copy of the whole would lie there: a directory of the upper layer, made behind the mount.
pub(crate) fn lay_above(stage: &Stage, path: &StorePath, files: &[(&str, &str)]) {
    let copy = stage.upper_dir().join(path.base_name());
    for (file, text) in files {
        let file = copy.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    stage.open().refresh_mount().unwrap();
}

fn survey(stage: &Stage) -> Survey {
    stage.view().survey().unwrap()
}

fn a_whiteout_over_a_valid_object_is_a_fault() {
    let (stage, path) = over_tree();
    let before = stage.lower_tree();
    fs::remove_dir_all(stage.merged_dir().join(path.base_name())).unwrap();
    let mut store = stage.open();
    for report in [quick(&mut store), thorough(&mut store)] {
        assert!(
            matches!(&report.faults[..], [Fault::Hidden { path: hidden }] if *hidden == path),
            "{report:?}"
        );
        assert_eq!((report.rows, report.notes), (0, vec![]));
    }
    assert_eq!(survey(&stage).hidden, std::slice::from_ref(&path));
    let report = quick(&mut store);
    let repaired = store.repair(&report, None).unwrap();
    assert_eq!(repaired.uncovered, std::slice::from_ref(&path));
    assert!(repaired.left.is_empty());
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(path.base_name()).join("d/b")).unwrap(),
        "2"
    );
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert!(quick(&mut store).faults.is_empty());
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

/// Nix forgets it, or misses it.
fn a_hidden_object_keeps_its_row() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    fs::remove_dir_all(stage.merged_dir().join(path.base_name())).unwrap();
    let report = thorough(&mut store);
    assert!(
        matches!(&report.faults[..], [Fault::Hidden { path: hidden }] if *hidden == path),
        "{report:?}"
    );
    assert_eq!(report.forgotten, []);
    assert!(is_valid(store.upper_metadata(), &path));
    store.repair(&report, None).unwrap();
    assert!(thorough(&mut store).faults.is_empty());
}

/// Its row above has more references than the one below, as after a registration by stock Nix.
fn what_a_hidden_object_needs_is_missed() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    let needed = add_text(&mut store, "needed", "1", &[]);
    let infos = store.metadata().path_infos(std::slice::from_ref(&path)).unwrap();
    let mut info = infos.into_iter().next().flatten().unwrap();
    info.references = vec![needed.clone()];
    info.content_address = None;
    store.register(&[info]).unwrap();
    fs::remove_dir_all(stage.merged_dir().join(path.base_name())).unwrap();
    fs::remove_file(stage.merged_dir().join(needed.base_name())).unwrap();
    let report = quick(&mut store);
    assert_eq!(
        (report.faults.len(), report.forgotten.len()),
        (2, 0),
        "{report:?}"
    );
    let misses = |fault: &Fault| match fault {
        Fault::Missing {
            path: missing,
            referrers,
            ..
        } => *missing == needed && *referrers == [path.clone()],
        _ => false,
    };
    assert!(report.faults.iter().any(misses), "{report:?}");
}

fn other_whiteouts_are_noted() {
    let stage = Stage::unmounted(|_| {});
    let name = "26nci8mz5f9aldbsgmalpkj20xyqqd5c-unknown";
    for name in [name, "no store path"] {
        fs::write(stage.lower_dir().join(name), "1").unwrap();
    }
    stage.mount();
    for name in [name, "no store path"] {
        fs::remove_file(stage.merged_dir().join(name)).unwrap();
    }
    let report = quick(&mut stage.open());
    assert!(report.faults.is_empty(), "{report:?}");
    let names: Vec<_> = report.notes.iter().map(|note| note.name().to_owned()).collect();
    assert_eq!(names, [name, "no store path"]);
    assert!(
        report
            .notes
            .iter()
            .all(|note| matches!(note, Note::Whiteout { .. }))
    );
    assert_eq!(survey(&stage).whiteouts, names);
}

fn names_that_stop_a_collector_are_faults() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    for name in ["tmp-1-0", ".tmp-link-1-2"] {
        fs::create_dir(stage.upper_dir().join(name)).unwrap();
    }
    let garbage = StorePath::from_base_name(b"26nci8mz5f9aldbsgmalpkj20xyqqd5c-garbage.lock").unwrap();
    fs::write(stage.upper_dir().join(garbage.base_name()), "").unwrap();
    let report = quick(&mut store);
    let names: Vec<_> = report
        .faults
        .iter()
        .map(|fault| fault.name().to_owned())
        .collect();
    assert_eq!(names, [".tmp-link-1-2", "tmp-1-0"]);
    assert!(
        report
            .faults
            .iter()
            .all(|fault| matches!(fault, Fault::ForeignName { .. }) && fault.path().is_none())
    );
    assert_eq!(
        report.notes,
        [Note::Unregistered {
            path: garbage.clone()
        }]
    );
    let survey = survey(&stage);
    assert_eq!((survey.foreign, survey.unregistered), (names, vec![garbage]));
    // They are nobody's to remove here.
    let repaired = store.repair(&report, None).unwrap();
    assert_eq!(repaired.left.len(), 2);
    assert_eq!(stage.upper_names().len(), 3);

    let lower = thorough(&mut stage.lower_store());
    assert!(lower.faults.is_empty() && lower.notes.is_empty());
    fs::create_dir(stage.lower_dir().join("tmp-1-0")).unwrap();
    let report = thorough(&mut stage.lower_store());
    assert!(
        report.faults.is_empty(),
        "every collector removes it from a local store"
    );
    assert_eq!(
        report.notes,
        [Note::ForeignName {
            name: "tmp-1-0".into()
        }]
    );
}

fn what_is_being_added_is_no_garbage() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    // As a running Nix has it.
    let scratch = stage.upper_dir().join("tmp-1-0");
    fs::create_dir(&scratch).unwrap();
    let lock = File::open(stage.merged_dir().join("tmp-1-0")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let adding = stage.open();
    let path = StorePath::from_base_name(b"26nci8mz5f9aldbsgmalpkj20xyqqd5c-new").unwrap();
    adding.add_temp_roots(std::slice::from_ref(&path)).unwrap();
    fs::write(stage.upper_dir().join(path.base_name()), "").unwrap();
    let report = quick(&mut store);
    assert!(report.faults.is_empty() && report.notes.is_empty(), "{report:?}");
    drop((lock, adding));
    let report = quick(&mut store);
    assert_eq!((report.faults.len(), report.notes.len()), (1, 1));
}

fn what_the_lower_store_lost_is_a_fault() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    let own = add_text(&mut store, "own", "1", &[&path]);
    assert!(thorough(&mut store).faults.is_empty());
    lower_database(&stage)
        .invalidate(std::slice::from_ref(&path))
        .unwrap();
    for report in [quick(&mut store), thorough(&mut store)] {
        assert!(
            matches!(&report.faults[..], [Fault::Lost { path: lost }] if *lost == path),
            "{report:?}"
        );
    }
    assert_eq!(survey(&stage).nowhere, std::slice::from_ref(&path));
    // When its files went too.
    fs::remove_dir_all(stage.lower_dir().join(path.base_name())).unwrap();
    store.refresh_mount().unwrap();
    let report = quick(&mut store);
    assert!(
        matches!(&report.faults[..], [Fault::Missing { path: lost, referrers, valid_below: false }] if *lost == path && *referrers == [own]),
        "{report:?}"
    );
}

fn rows_that_drifted_apart_are_told() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    let own = add_tree(&mut store, "own", &[("a", "1")]);
    drop(add_tree(&mut stage.lower_store(), "own", &[("a", "1")]));
    for path in [&path, &own] {
        set_archive(lower_database(&stage), path, Hash::sha256([3; 32]), 7);
    }
    store.refresh_mount().unwrap();
    let report = thorough(&mut store);
    let recorded = archive(&store, &path).hash;
    assert!(
        matches!(&report.faults[..], [Fault::Drifted { path: drifted, expected, found }]
            if *drifted == path && *expected == recorded && *found == Hash::sha256([3; 32])),
        "{report:?}"
    );
    let above = archive(&store, &own).hash;
    assert!(
        report.notes.contains(&Note::DiffersBelow {
            path: own,
            above,
            below: Hash::sha256([3; 32])
        }),
        "what the upper layer has is right by its own row: {report:?}"
    );
}

fn what_the_kernel_remembers_as_absent_is_not_forgotten() {
    let stage = Stage::over(|_| {});
    let path = add_text(&mut stage.open(), "object", "1", &[]);
    let above = stage.upper_dir().join(path.base_name());
    let elsewhere = stage.path("elsewhere");
    fs::rename(&above, &elsewhere).unwrap();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    assert!(!stage.merged_dir().join(path.base_name()).exists());
    fs::rename(&elsewhere, &above).unwrap();
    assert!(
        !stage.merged_dir().join(path.base_name()).exists(),
        "the kernel remembers"
    );
    let report = thorough(&mut store);
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!((report.forgotten.len(), report.hashed), (0, 1));
    assert!(is_valid(store.upper_metadata(), &path));
}

fn an_object_replaced_below_is_modified() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    let below = stage.lower_dir().join(path.base_name());
    // Remembered by the kernel.
    assert!(thorough(&mut store).faults.is_empty());
    fs::rename(&below, stage.path("old")).unwrap();
    fs::create_dir(&below).unwrap();
    fs::write(below.join("a"), "another").unwrap();
    store.refresh_mount().unwrap();
    let report = thorough(&mut store);
    assert!(
        matches!(
            &report.faults[..],
            [Fault::Modified {
                layer: Layer::Lower,
                ..
            }]
        ),
        "{report:?}"
    );
}
