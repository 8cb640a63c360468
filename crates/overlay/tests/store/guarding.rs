// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decisions that keep data, each with a trial that fails without it.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use superpose_overlay::store_path::{ContentMethod, HashAlgorithm, Name, References, StorePath};
use superpose_overlay::{
    AddOptions, DeleteOptions, Error, Layer, Liveness, MountProof, OpenOptions, Outcome, Source, Store,
    VerifyOptions, is_interrupted,
};

use crate::crashing::traced;
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve};

pub(crate) const TRIALS: &[Named] = &[
    (
        "guarding::rows_reach_the_disk_before_objects_go",
        rows_reach_the_disk_before_objects_go,
    ),
    (
        "guarding::objects_reach_the_disk_before_their_rows",
        objects_reach_the_disk_before_their_rows,
    ),
    (
        "guarding::roots_are_on_the_disk_when_they_are_promised",
        roots_are_on_the_disk_when_they_are_promised,
    ),
    (
        "guarding::the_only_copy_is_never_unlinked",
        the_only_copy_is_never_unlinked,
    ),
    (
        "guarding::what_became_valid_meanwhile_is_not_written",
        what_became_valid_meanwhile_is_not_written,
    ),
    (
        "guarding::a_failed_registration_leaves_nothing",
        a_failed_registration_leaves_nothing,
    ),
    (
        "guarding::a_failed_registration_hides_nothing",
        a_failed_registration_hides_nothing,
    ),
    (
        "guarding::a_hidden_lower_object_shows_again_when_it_is_added",
        a_hidden_lower_object_shows_again_when_it_is_added,
    ),
    (
        "guarding::the_locks_of_the_collector_are_taken",
        the_locks_of_the_collector_are_taken,
    ),
    (
        "guarding::what_is_being_added_is_a_temporary_root",
        what_is_being_added_is_a_temporary_root,
    ),
    (
        "guarding::a_store_opens_though_its_remount_fails",
        a_store_opens_though_its_remount_fails,
    ),
    (
        "guarding::a_replay_leaves_alone_what_is_valid_again",
        a_replay_leaves_alone_what_is_valid_again,
    ),
    (
        "guarding::a_replay_is_not_stopped_by_garbage",
        a_replay_is_not_stopped_by_garbage,
    ),
    (
        "guarding::a_row_in_use_refuses_before_anything_moves",
        a_row_in_use_refuses_before_anything_moves,
    ),
    (
        "guarding::a_state_directory_elsewhere_keeps_the_trash_in_the_layer",
        a_state_directory_elsewhere,
    ),
    (
        "guarding::a_proof_is_of_its_own_store",
        a_proof_is_of_its_own_store,
    ),
    (
        "guarding::a_mount_that_cannot_be_refreshed_refuses_first",
        a_mount_that_cannot_be_refreshed_refuses_first,
    ),
];

fn position(trace: &[String], what: &str, line: impl Fn(&str) -> bool) -> usize {
    trace
        .iter()
        .position(|text| line(text))
        .unwrap_or_else(|| panic!("{what} in {trace:#?}"))
}

fn duplicate() -> (Stage, StorePath) {
    let stage = Stage::over(|_| {});
    let path = add_tree(&mut stage.open(), "tree", &[("a", "1"), ("d/b", "2")]);
    drop(add_tree(
        &mut stage.lower_store(),
        "tree",
        &[("a", "1"), ("d/b", "2")],
    ));
    stage.open().refresh_mount().unwrap();
    (stage, path)
}

fn rows_reach_the_disk_before_objects_go() {
    let (stage, path) = duplicate();
    let Some(trace) = traced(&stage, "delete", &[&path]) else {
        assert!(
            std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
            "strace is not installed"
        );
        return;
    };
    let intent = position(&trace, "the intent", |line| {
        line.contains("sync(") && line.contains("/journal>")
    });
    let rows = position(&trace, "the rows", |line| {
        line.contains("fdatasync(") && line.contains("-wal>")
    });
    let moved = position(&trace, "the move", |line| {
        line.contains("renameat") && line.contains("-tree")
    });
    let remount = position(&trace, "the remount", |line| {
        line.contains("FSCONFIG_CMD_RECONFIGURE")
    });
    let closed = position(&trace, "the end", |line| {
        line.contains("unlinkat") && line.contains("\"b\"")
    });
    assert!(
        intent < rows && rows < moved && moved < remount && remount < closed,
        "{trace:#?}"
    );
}

fn objects_reach_the_disk_before_their_rows() {
    let stage = Stage::over(|_| {});
    let Some(trace) = traced(&stage, "add", &[]) else {
        assert!(
            std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
            "strace is not installed"
        );
        return;
    };
    let object = position(&trace, "the object", |line| line.contains("syncfs("));
    let placed = position(&trace, "the move", |line| {
        line.contains("renameat") && line.contains("-added")
    });
    let name = position(&trace, "its name", |line| {
        line.contains("fsync(") && line.contains("nix/store>")
    });
    let row = position(&trace, "its row", |line| {
        line.contains("fdatasync(") && line.contains("-wal>")
    });
    let unlocked = position(&trace, "the lock", |line| {
        line.contains("unlinkat") && line.contains(".lock")
    });
    assert!(
        object < placed && placed < name && name < row && row < unlocked,
        "{trace:#?}"
    );
}

fn roots_are_on_the_disk_when_they_are_promised() {
    let stage = Stage::over(|_| {});
    let path = add_text(&mut stage.open(), "kept", "1", &[]);
    let Some(trace) = traced(&stage, "add-root", &[&path]) else {
        assert!(
            std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
            "strace is not installed"
        );
        return;
    };
    let last = |what: &str, is_it: &dyn Fn(&str) -> bool| {
        let found = trace.iter().rposition(|line| is_it(line));
        found.unwrap_or_else(|| panic!("{what} in {trace:#?}"))
    };
    let named = last("the names", &|line| line.contains("renameat"));
    for directory in ["/result-dir>", "/gcroots/auto>"] {
        let synced = last(directory, &|line| {
            line.contains("fsync(") && line.contains(directory)
        });
        assert!(named < synced, "{directory}: {trace:#?}");
    }
}

fn the_only_copy_is_never_unlinked() {
    let stage = Stage::over(|_| {});
    let path = add_text(&mut stage.open(), "precious", "1", &[]);
    let other = add_text(&mut stage.open(), "other", "2", &[]);
    let trash = stage.state_dir().join("superpose/trash");
    fs::create_dir_all(&trash).unwrap();
    fs::rename(
        stage.upper_dir().join(path.base_name()),
        trash.join(format!("00000000-{path}")),
    )
    .unwrap();
    stage.open().refresh_mount().unwrap();
    let deleted = stage.open().delete(&[other], &DeleteOptions::default()).unwrap();
    assert_eq!(deleted.waiting, 1);
    assert!(trash.join(format!("00000000-{path}")).exists());
}

/// The path becomes valid below while the addition waits for its lock.
fn what_became_valid_meanwhile_is_not_written() {
    let name = "26nci8mz5f9aldbsgmalpkj20xyqqd5c-abc";
    let stage = Stage::over(|_| {});
    drop(stage.open());
    let lock = File::create(stage.merged_dir().join(format!("{name}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let options = AddOptions::source(Name::new(b"abc").unwrap())
                .with_method(ContentMethod::Text, HashAlgorithm::Sha256);
            stage.open().add(Source::Bytes(b"abc"), &options).unwrap()
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(!adding.is_finished(), "it waits");
        assert_eq!(
            add_text(&mut stage.lower_store(), "abc", "abc", &[]).base_name(),
            name
        );
        drop(lock);
        assert_eq!(
            adding.join().unwrap().outcome,
            Outcome::AlreadyValid(Layer::Lower)
        );
    });
    assert!(!stage.upper_dir().join(name).exists());
}

fn unknown() -> References {
    let path = StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-unknown").unwrap();
    References {
        others: [path].into(),
        itself: false,
    }
}

fn text_with_unknown_reference(store: &mut Store) -> Error {
    let options = AddOptions::source(Name::new(b"abc").unwrap())
        .with_method(ContentMethod::Text, HashAlgorithm::Sha256)
        .with_references(unknown());
    store.add(Source::Bytes(b"abc"), &options).unwrap_err()
}

fn a_failed_registration_leaves_nothing() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let error = text_with_unknown_reference(&mut store);
    assert!(error.to_string().contains("-unknown"), "{error}");
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
}

fn a_failed_registration_hides_nothing() {
    let stage = Stage::unmounted(|_| {});
    let probe = tempfile::tempdir().unwrap();
    let mut elsewhere = Store::open(
        resolve(&superpose_overlay::store_path::StoreReference::local(
            probe.path(),
        )),
        OpenOptions::default(),
    )
    .unwrap();
    let Error::Metadata(superpose_overlay::metadata::Error::ReferenceNotValid { path, .. }) =
        text_with_unknown_reference(&mut elsewhere)
    else {
        panic!("another error");
    };
    let name = Path::new(&path).file_name().unwrap().to_owned();
    fs::create_dir(stage.lower_dir().join(&name)).unwrap();
    stage.mount();
    text_with_unknown_reference(&mut stage.open());
    assert_eq!(stage.upper_names(), Vec::<String>::new(), "no whiteout");
    assert!(stage.merged_dir().join(&name).is_dir(), "what lies below shows");
}

fn a_hidden_lower_object_shows_again_when_it_is_added() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_text(lower, "below", "1", &[])));
    let path = path.unwrap();
    fs::remove_file(stage.merged_dir().join(path.base_name())).unwrap();
    assert_eq!(add_text(&mut stage.open(), "below", "1", &[]), path);
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(path.base_name())).unwrap(),
        "1"
    );
    assert_eq!(stage.upper_names(), Vec::<String>::new());
}

fn the_locks_of_the_collector_are_taken() {
    let stage = Stage::over(|_| {});
    let path = add_text(&mut stage.open(), "one", "1", &[]);
    let mut options = OpenOptions::default();
    options.wait_limit = Some(Duration::from_millis(50));
    let mut store = stage.open_with(options);
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(stage.state_dir().join("gc.lock"))
        .unwrap();
    flock(&lock, FlockOperation::LockShared).unwrap();
    let error = store
        .delete(std::slice::from_ref(&path), &DeleteOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::LockHeld { .. }), "{error}");
    drop(store.verify(&VerifyOptions::default()).unwrap());
    flock(&lock, FlockOperation::Unlock).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let error = store.verify(&VerifyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::LockHeld { .. }), "{error}");
    assert!(is_valid(store.upper_metadata(), &path));
}

fn what_is_being_added_is_a_temporary_root() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let path = add_text(&mut store, "one", "1", &[]);
    let file = fs::read_dir(stage.state_dir().join("temproots"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let roots = fs::read_to_string(file.path()).unwrap();
    assert!(
        roots.contains(path.base_name()) && roots.contains("-superpose-tmp"),
        "{roots:?}"
    );
    drop(store);
    assert_eq!(
        fs::read_dir(stage.state_dir().join("temproots")).unwrap().count(),
        0
    );
}

fn with_failing_hook(stage: &Stage) -> superpose_overlay::Layout {
    resolve(&stage.reference().with_param("remount-hook", b"/bin/false"))
}

fn a_store_opens_though_its_remount_fails() {
    let (stage, path) = duplicate();
    let mut store = Store::open(with_failing_hook(&stage), OpenOptions::default()).unwrap();
    store
        .delete(std::slice::from_ref(&path), &DeleteOptions::default())
        .unwrap_err();
    drop(store);
    let store = Store::open(with_failing_hook(&stage), OpenOptions::default()).unwrap();
    assert!(is_valid(&store.metadata(), &path));
    drop(store);
    assert!(
        is_interrupted(&stage.state_dir()).unwrap(),
        "the remount is still owed"
    );
}

/// Between the crash and the replay somebody added the path again.
fn a_replay_leaves_alone_what_is_valid_again() {
    let (stage, path) = duplicate();
    let mut store = Store::open(with_failing_hook(&stage), OpenOptions::default()).unwrap();
    store
        .delete(std::slice::from_ref(&path), &DeleteOptions::default())
        .unwrap_err();
    drop(store);
    // As stock Nix would leave it: files in the upper layer, and a row.
    let copy = stage.upper_dir().join(path.base_name());
    fs::create_dir_all(copy.join("d")).unwrap();
    fs::write(copy.join("a"), "1").unwrap();
    fs::write(copy.join("d/b"), "2").unwrap();
    let mut store = Store::open(with_failing_hook(&stage), OpenOptions::default()).unwrap();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    drop(store);
    drop(stage.open());
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
    assert!(copy.join("d/b").exists(), "it stays where it is");
}

/// The objects were moved before the crash, and somebody left others without rows under their names since.
fn a_replay_is_not_stopped_by_garbage() {
    let stage = Stage::over(|_| {});
    let path = add_tree(&mut stage.open(), "tree", &[("a", "1")]);
    assert!(
        crate::crashing::aborts_at(&stage, "delete", 3, &[&path]),
        "killed when the object was moved"
    );
    let garbage = stage.merged_dir().join(path.base_name());
    fs::create_dir(&garbage).unwrap();
    fs::write(garbage.join("b"), "2").unwrap();
    drop(stage.open());
    assert!(
        !is_interrupted(&stage.state_dir()).unwrap(),
        "the deletion is finished"
    );
    assert!(!is_valid(stage.open().upper_metadata(), &path));
}

fn a_row_in_use_refuses_before_anything_moves() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let library = add_text(&mut store, "library", "1", &[]);
    let program = add_text(&mut store, "program", "2", &[&library]);
    drop(store);
    // The files of the referrer are gone; its row is not, and nothing is below.
    fs::remove_file(stage.upper_dir().join(program.base_name())).unwrap();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    store
        .delete(std::slice::from_ref(&library), &DeleteOptions::default())
        .unwrap_err();
    assert!(stage.merged_dir().join(library.base_name()).exists());
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

/// Nothing can be renamed out of the layer then; a user of the old tree keeps it, and it is unlinked when he is gone.
fn a_state_directory_elsewhere() {
    let stage = Stage::unmounted(|_| {});
    fs::create_dir_all(stage.state_dir()).unwrap();
    mount("tmpfs", stage.state_dir(), "tmpfs", MountFlags::empty(), None).unwrap();
    stage.mount();
    let path = add_tree(&mut stage.open(), "tree", &[("a", "1"), ("d/b", "2")]);
    drop(add_tree(
        &mut stage.lower_store(),
        "tree",
        &[("a", "1"), ("d/b", "2")],
    ));
    stage.open().refresh_mount().unwrap();
    let merged = stage.merged_dir().join(path.base_name());
    let held = File::open(merged.join("d/b")).unwrap();
    let ignoring = DeleteOptions::default().with_liveness(Liveness::Ignore);
    let deleted = stage
        .open()
        .delete(std::slice::from_ref(&path), &ignoring)
        .unwrap();
    assert_eq!(deleted.waiting, 1);
    assert_eq!(stage.upper_names().len(), 1);
    assert!(
        StorePath::from_base_name(stage.upper_names()[0].as_bytes()).is_ok(),
        "a collector can parse it"
    );
    drop(held);
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    store.delete(std::slice::from_ref(&path), &ignoring).unwrap();
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
    drop(store);
    unmount(stage.state_dir(), UnmountFlags::DETACH).unwrap();
}

fn a_proof_is_of_its_own_store() {
    let (one, other) = (Stage::over(|_| {}), Stage::over(|_| {}));
    let superpose_overlay::Layout::Overlay(layout) = one.layout() else {
        panic!("an overlay store")
    };
    let proof = MountProof::obtain(layout).unwrap();
    let mut store = Store::open_overlay(proof, OpenOptions::default()).unwrap();
    drop(add_text(&mut store, "one", "1", &[]));
    assert_eq!((one.upper_names().len(), other.upper_names().len()), (1, 0));
}

/// The check of the mount is off, and there is none: nothing may be done that needs one afterwards.
fn a_mount_that_cannot_be_refreshed_refuses_first() {
    let (stage, path) = duplicate();
    superpose_overlay::mounting::unmount(&stage.merged_dir(), superpose_overlay::mounting::Detach::Lazily)
        .unwrap();
    let layout = resolve(&stage.reference().with_param("check-mount", b"false"));
    let mut store = Store::open(layout, OpenOptions::default()).unwrap();
    store
        .delete(std::slice::from_ref(&path), &DeleteOptions::default())
        .unwrap_err();
    assert!(is_valid(store.upper_metadata(), &path));
    assert!(stage.upper_dir().join(path.base_name()).exists());
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}
