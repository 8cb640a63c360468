// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decision table of deletion, and what stays for those who use an object.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use superpose_overlay::store_path::StorePath;
use superpose_overlay::{DeleteOptions, Deleted, Error, Liveness, Store};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    ("deleting::an_upper_object_goes", an_upper_object_goes),
    (
        "deleting::a_duplicate_goes_and_the_lower_object_shows",
        a_duplicate_goes_and_the_lower_object_shows,
    ),
    ("deleting::what_is_only_below_stays", what_is_only_below_stays),
    (
        "deleting::what_is_nowhere_counts_as_deleted",
        what_is_nowhere_counts_as_deleted,
    ),
    (
        "deleting::an_unregistered_lower_entry_shows_again",
        an_unregistered_lower_entry_shows_again,
    ),
    (
        "deleting::a_whiteout_over_a_valid_object_goes",
        a_whiteout_over_a_valid_object_goes,
    ),
    ("deleting::upper_referrers_protect", upper_referrers_protect),
    (
        "deleting::rows_of_lower_objects_do_not_protect_a_duplicate",
        rows_of_lower_objects_do_not_protect_a_duplicate,
    ),
    (
        "deleting::roots_protect_and_can_be_ignored",
        roots_protect_and_can_be_ignored,
    ),
    (
        "deleting::temporary_roots_protect_always",
        temporary_roots_protect_always,
    ),
    ("deleting::one_refusal_keeps_all", one_refusal_keeps_all),
    (
        "deleting::a_user_of_the_old_tree_keeps_all_of_it",
        a_user_of_the_old_tree_keeps_all_of_it,
    ),
    (
        "deleting::nothing_is_ever_seen_half_deleted",
        nothing_is_ever_seen_half_deleted,
    ),
    (
        "deleting::a_failed_hook_leaves_the_remount_owed",
        a_failed_hook_leaves_the_remount_owed,
    ),
    (
        "deleting::a_link_in_an_object_is_not_followed",
        a_link_in_an_object_is_not_followed,
    ),
];

fn delete(store: &mut Store, paths: &[&StorePath]) -> Result<Deleted, Error> {
    let paths: Vec<StorePath> = paths.iter().map(|path| (*path).clone()).collect();
    store.delete(&paths, &DeleteOptions::default())
}

/// A stage on which the object `tree` is in both layers: first added above, then below.
fn with_duplicate() -> (Stage, StorePath) {
    let stage = Stage::over(|lower| drop(add_text(lower, "unrelated", "1", &[])));
    let path = add_tree(&mut stage.open(), "tree", &[("a", "1"), ("d/b", "2")]);
    assert_eq!(
        add_tree(&mut stage.lower_store(), "tree", &[("a", "1"), ("d/b", "2")]),
        path
    );
    // The lower store grew below the mount.
    stage.open().refresh_mount().unwrap();
    (stage, path)
}

fn an_upper_object_goes() {
    let stage = Stage::over(|_| {});
    let before = stage.lower_tree();
    let mut store = stage.open();
    let path = add_tree(&mut store, "tree", &[("a", "1"), ("d/b", "2")]);
    drop(store);
    let mut store = stage.open();
    let deleted = delete(&mut store, &[&path]).unwrap();
    assert_eq!(deleted.deleted, std::slice::from_ref(&path));
    assert_eq!(deleted.below, []);
    assert!(
        !deleted.remounted,
        "nothing was below, so the mount noticed by itself"
    );
    assert!(deleted.bytes > 0 && deleted.entries == 4, "{deleted:?}");
    assert!(!is_valid(&store.metadata(), &path));
    assert!(!stage.merged_dir().join(path.base_name()).exists());
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn a_duplicate_goes_and_the_lower_object_shows() {
    let (stage, path) = with_duplicate();
    let before = stage.lower_tree();
    let merged = stage.merged_dir().join(path.base_name());
    // The kernel remembers the upper directories.
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
    let mut store = stage.open();
    let deleted = delete(&mut store, &[&path]).unwrap();
    assert!(deleted.remounted);
    assert_eq!(
        (deleted.deleted, deleted.below, deleted.waiting),
        (vec![path.clone()], vec![path.clone()], 0)
    );
    assert!(is_valid(&store.metadata(), &path));
    assert!(!is_valid(store.upper_metadata(), &path));
    assert_eq!(
        fs::read_dir(merged.join("d")).unwrap().count(),
        1,
        "a deleted directory that is remembered reads as empty"
    );
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(stage.state_dir().join("superpose/trash"))
            .unwrap()
            .count(),
        0
    );
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn what_is_only_below_stays() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_text(lower, "below", "1", &[])));
    let path = path.unwrap();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    drop(store);
    let mut store = stage.open();
    let deleted = delete(&mut store, &[&path]).unwrap();
    assert_eq!(
        (deleted.deleted, deleted.below, deleted.remounted),
        (vec![], vec![path.clone()], false)
    );
    assert!(
        !is_valid(store.upper_metadata(), &path),
        "the copy of its row goes"
    );
    assert!(is_valid(&store.metadata(), &path));
    assert!(stage.merged_dir().join(path.base_name()).exists());
}

fn what_is_nowhere_counts_as_deleted() {
    let stage = Stage::over(|_| {});
    let path = StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc").unwrap();
    let deleted = delete(&mut stage.open(), &[&path]).unwrap();
    assert_eq!(
        (deleted.deleted, deleted.below, deleted.bytes),
        (vec![], vec![], 0)
    );
}

/// Through the merged view the kernel would leave a whiteout over the lower entry.
fn an_unregistered_lower_entry_shows_again() {
    let stage = Stage::over(|_| {});
    let path = add_tree(&mut stage.open(), "tree", &[("ours", "1")]);
    let entry = stage.lower_dir().join(path.base_name());
    fs::create_dir(&entry).unwrap();
    fs::write(entry.join("theirs"), "2").unwrap();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let deleted = delete(&mut store, &[&path]).unwrap();
    assert_eq!(
        (deleted.deleted.len(), deleted.below.len(), deleted.remounted),
        (1, 0, true)
    );
    assert_eq!(stage.upper_names(), Vec::<String>::new(), "no whiteout");
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(path.base_name()).join("theirs")).unwrap(),
        "2"
    );
}

fn a_whiteout_over_a_valid_object_goes() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_text(lower, "below", "1", &[])));
    let path = path.unwrap();
    let merged = stage.merged_dir().join(path.base_name());
    fs::remove_file(&merged).unwrap();
    assert_eq!(
        stage.upper_names(),
        [path.base_name()],
        "the kernel hides the lower object"
    );
    let deleted = delete(&mut stage.open(), &[&path]).unwrap();
    assert_eq!(deleted.below, [path]);
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(merged).unwrap(), "1");
}

fn upper_referrers_protect() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let library = add_text(&mut store, "library", "1", &[]);
    let program = add_text(&mut store, "program", "2", &[&library]);
    drop(store);
    let mut store = stage.open();
    let error = delete(&mut store, &[&library]).unwrap_err();
    assert!(
        matches!(&error, Error::StillAlive { by, .. } if by.contains(program.base_name())),
        "{error}"
    );
    assert!(is_valid(&store.metadata(), &library));
    let deleted = delete(&mut store, &[&library, &program]).unwrap();
    assert_eq!(deleted.deleted.len(), 2);
}

/// Nothing dangles when a duplicate goes: those that refer to it find it below.
fn rows_of_lower_objects_do_not_protect_a_duplicate() {
    let (stage, path) = with_duplicate();
    let program = add_text(&mut stage.lower_store(), "program", "3", &[&path]);
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    store.ensure(std::slice::from_ref(&program)).unwrap();
    let deleted = delete(&mut store, &[&path]).unwrap();
    assert_eq!(deleted.deleted, std::slice::from_ref(&path));
    assert!(
        is_valid(store.upper_metadata(), &path),
        "the row that the copy of the program's row refers to stays"
    );
    assert_eq!(stage.upper_names(), Vec::<String>::new());
}

fn roots_protect_and_can_be_ignored() {
    let stage = Stage::over(|_| {});
    let path = add_text(&mut stage.open(), "rooted", "1", &[]);
    let link = stage.path("result");
    stage.open().add_root(&link, &path).unwrap();
    let mut store = stage.open();
    let error = delete(&mut store, &[&path]).unwrap_err();
    assert!(
        matches!(&error, Error::StillAlive { by, .. } if by.contains("result")),
        "{error}"
    );
    let options = DeleteOptions::default().with_liveness(Liveness::Ignore);
    store.delete(std::slice::from_ref(&path), &options).unwrap();
    assert!(!is_valid(&store.metadata(), &path));
}

fn temporary_roots_protect_always() {
    let stage = Stage::over(|_| {});
    let user = {
        let mut user = stage.open();
        add_text(&mut user, "in-use", "1", &[]);
        user
    };
    let mut other = stage.open();
    let path = StorePath::from_base_name(stage.upper_names()[0].as_bytes()).unwrap();
    let options = DeleteOptions::default().with_liveness(Liveness::Ignore);
    let error = other.delete(std::slice::from_ref(&path), &options).unwrap_err();
    assert!(matches!(error, Error::StillAlive { .. }), "{error}");
    drop(user);
    other.delete(std::slice::from_ref(&path), &options).unwrap();
}

fn one_refusal_keeps_all() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let free = add_text(&mut store, "free", "1", &[]);
    let held = add_text(&mut store, "held", "2", &[]);
    store.add_root(&stage.path("result"), &held).unwrap();
    drop(store);
    let mut store = stage.open();
    delete(&mut store, &[&free, &held]).unwrap_err();
    assert!(is_valid(&store.metadata(), &free));
    assert_eq!(stage.upper_names().len(), 2);
}

fn a_user_of_the_old_tree_keeps_all_of_it() {
    let (stage, path) = with_duplicate();
    let merged = stage.merged_dir().join(path.base_name());
    let directory = File::open(merged.join("d")).unwrap();
    let mut held = File::open(merged.join("d/b")).unwrap();
    let mut store = stage.open();
    delete(&mut store, &[&path]).expect_err("a process that has it open is a root");
    let ignoring = DeleteOptions::default().with_liveness(Liveness::Ignore);
    let deleted = store.delete(std::slice::from_ref(&path), &ignoring).unwrap();
    assert_eq!(deleted.waiting, 1, "the tree is moved away and not unlinked");
    let trash = stage.state_dir().join("superpose/trash");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 1);
    let mut text = String::new();
    held.read_to_string(&mut text).unwrap();
    assert_eq!(text, "2");
    assert_eq!(
        rustix::fs::Dir::read_from(&directory).unwrap().count(),
        3,
        "`.`, `..` and b"
    );
    // A new look from the top may find the held tree too, and finds all of it.
    assert_eq!(fs::read_to_string(merged.join("a")).unwrap(), "1");
    drop((directory, held));
    // The next deletion finds it free, though nothing of its own made the mount fresh.
    let other = add_tree(&mut store, "other", &[("a", "1")]);
    drop(store);
    let deleted = delete(&mut stage.open(), &[&other]).unwrap();
    assert_eq!((deleted.waiting, deleted.remounted), (0, false));
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
}

/// A reader that looks all the time sees every file at every moment.
fn nothing_is_ever_seen_half_deleted() {
    let (stage, path) = with_duplicate();
    let merged = stage.merged_dir().join(path.base_name());
    let stop = AtomicBool::new(false);
    /// Ends the reader, also when a deletion fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let ended = Stop(&stop);
        let reader = scope.spawn(|| {
            let mut looks = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
                assert_eq!(fs::read_dir(&merged).unwrap().count(), 2);
                looks += 1;
            }
            looks
        });
        for _ in 0..20 {
            let mut store = stage.open();
            store
                .delete(
                    std::slice::from_ref(&path),
                    &DeleteOptions::default().with_liveness(Liveness::Ignore),
                )
                .unwrap();
            // Put a duplicate back, behind the lower store's back and the kernel's.
            let copy = stage.upper_dir().join(path.base_name());
            fs::create_dir_all(copy.join("d")).unwrap();
            fs::write(copy.join("a"), "1").unwrap();
            fs::write(copy.join("d/b"), "2").unwrap();
            for directory in [copy.join("d"), copy] {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o555)).unwrap();
            }
            store.refresh_mount().unwrap();
        }
        drop(ended);
        assert!(reader.join().unwrap() > 100, "the reader looked often enough");
    });
}

fn a_failed_hook_leaves_the_remount_owed() {
    let (stage, path) = with_duplicate();
    let merged = stage.merged_dir().join(path.base_name());
    assert_eq!(fs::read_dir(merged.join("d")).unwrap().count(), 1);
    let reference = stage.reference().with_param("remount-hook", b"/bin/false");
    let layout = crate::stage::resolve(&reference);
    let mut store = Store::open(layout, superpose_overlay::OpenOptions::default()).unwrap();
    let error = delete(&mut store, &[&path]).unwrap_err();
    assert!(matches!(error, Error::RemountHook { .. }), "{error}");
    assert!(!is_valid(store.upper_metadata(), &path), "the deletion stands");
    drop(store);
    assert!(
        superpose_overlay::is_interrupted(&stage.state_dir()).unwrap(),
        "the remount is owed beyond the process"
    );
    drop(stage.open());
    assert!(
        !superpose_overlay::is_interrupted(&stage.state_dir()).unwrap(),
        "and made by the next one"
    );
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
}

fn a_link_in_an_object_is_not_followed() {
    let stage = Stage::over(|_| {});
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "1").unwrap();
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink(outside.path(), tree.join("link")).unwrap();
    let options =
        superpose_overlay::AddOptions::source(superpose_overlay::store_path::Name::new(b"tree").unwrap());
    let path = stage
        .open()
        .add(superpose_overlay::Source::Path(&tree), &options)
        .unwrap()
        .path;
    delete(&mut stage.open(), &[&path]).unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("precious")).unwrap(), "1");
}
