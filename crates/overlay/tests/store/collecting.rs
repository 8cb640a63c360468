// SPDX-License-Identifier: MIT OR Apache-2.0
//! Garbage collection: what stays, what goes, and what is not even looked at.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use superpose_overlay::metadata::MetadataSource;
use superpose_overlay::store_path::{StorePath, StoreReference};
use superpose_overlay::{CollectAction, CollectOptions, Collected, OpenOptions, Store};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve};

pub(crate) const TRIALS: &[Named] = &[
    ("collecting::what_roots_need_stays", what_roots_need_stays),
    (
        "collecting::a_lower_store_without_roots_is_no_matter",
        a_lower_store_without_roots_is_no_matter,
    ),
    (
        "collecting::copies_of_rows_stay_as_long_as_they_are_needed",
        copies_of_rows_stay_as_long_as_they_are_needed,
    ),
    (
        "collecting::objects_without_rows_go_unless_something_keeps_them",
        objects_without_rows_go_unless_something_keeps_them,
    ),
    (
        "collecting::junk_goes_from_the_upper_layer_alone",
        junk_goes_from_the_upper_layer_alone,
    ),
    ("collecting::whiteouts_are_left_alone", whiteouts_are_left_alone),
    (
        "collecting::unused_links_go_and_those_below_stay",
        unused_links_go_and_those_below_stay,
    ),
    (
        "collecting::what_waits_in_the_layer_belongs_to_the_trash",
        what_waits_in_the_layer_belongs_to_the_trash,
    ),
    (
        "collecting::a_state_directory_elsewhere_leaves_nothing_in_the_layer",
        a_state_directory_elsewhere_leaves_nothing_in_the_layer,
    ),
    (
        "collecting::a_tree_in_use_waits_and_goes_the_next_time",
        a_tree_in_use_waits_and_goes_the_next_time,
    ),
    ("collecting::questions_change_nothing", questions_change_nothing),
];

pub(crate) const LOCAL_TRIALS: &[Named] = &[("collecting::a_local_store", a_local_store)];

/// A local store in a directory.
pub(crate) fn local(dir: &Path) -> Store {
    let layout = resolve(&StoreReference::local(dir));
    Store::open(layout, OpenOptions::default()).unwrap()
}

pub(crate) fn collect(store: &mut Store) -> Collected {
    store.collect(&CollectOptions::default()).unwrap()
}

pub(crate) fn question(action: CollectAction) -> CollectOptions {
    let mut options = CollectOptions::default();
    options.action = action;
    options
}

fn what_roots_need_stays() {
    let stage = Stage::over(|lower| drop(add_text(lower, "below", "1", &[])));
    let before = stage.lower_tree();
    let mut store = stage.open();
    let library = add_tree(&mut store, "library", &[("lib", "1")]);
    let program = add_text(&mut store, "program", "2", &[&library]);
    let dead = add_text(&mut store, "dead", "3", &[&library]);
    let deader = add_tree(&mut store, "deader", &[("a", "4"), ("d/b", "5")]);
    store.add_root(&stage.path("result"), &program).unwrap();
    drop(store);
    let mut store = stage.open();
    let collected = collect(&mut store);
    let mut expected = vec![dead.clone(), deader];
    expected.sort();
    assert_eq!(collected.deleted, expected);
    assert_eq!((collected.forgotten.len(), collected.junk.len()), (0, 0));
    assert_eq!((collected.inodes, collected.entries), (5, 5), "{collected:?}");
    assert!(!collected.remounted && collected.waiting == 0, "{collected:?}");
    assert!(is_valid(&store.metadata(), &program) && is_valid(&store.metadata(), &library));
    assert!(!is_valid(&store.metadata(), &dead));
    let mut left = [library.base_name(), program.base_name()];
    left.sort_unstable();
    assert_eq!(stage.upper_names(), left);
    // A process that is about to use it keeps it as well, with what it needs.
    fs::remove_file(stage.path("result")).unwrap();
    let user = stage.open();
    user.add_temp_roots(std::slice::from_ref(&program)).unwrap();
    assert_eq!(collect(&mut store).deleted, []);
    drop(user);
    // Without any root the rest goes, too; nothing is left to do then.
    assert_eq!(collect(&mut store).deleted.len(), 2);
    assert_eq!(collect(&mut store), Collected::default());
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(stage.state_dir().join("gcroots/auto"))
            .unwrap()
            .count(),
        0,
        "the link to nowhere"
    );
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

/// Stock Nix fails here, and leaves some of the dead.
fn a_lower_store_without_roots_is_no_matter() {
    let mut paths = Vec::new();
    let stage = Stage::over(|lower| {
        for number in 0..50 {
            let references: Vec<StorePath> = paths.iter().rev().step_by(7).take(5).cloned().collect();
            let references: Vec<&StorePath> = references.iter().collect();
            paths.push(add_text(
                lower,
                &format!("below-{number}"),
                &number.to_string(),
                &references,
            ));
        }
    });
    let before = stage.lower_tree();
    let mut store = stage.open();
    let own = add_text(&mut store, "own", "1", &[&paths[49], &paths[30]]);
    assert!(store.upper_metadata().count().unwrap() > 5, "copies of rows");
    drop(store);
    let mut store = stage.open();
    let collected = collect(&mut store);
    assert_eq!(collected.deleted, std::slice::from_ref(&own));
    assert!(
        collected.forgotten.contains(&paths[49]),
        "{:?}",
        collected.forgotten
    );
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
    assert!(paths.iter().all(|path| is_valid(&store.metadata(), path)));
    assert!(!collected.remounted);
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn copies_of_rows_stay_as_long_as_they_are_needed() {
    let mut paths = Vec::new();
    let stage = Stage::over(|lower| {
        paths.push(add_text(lower, "needed", "1", &[]));
        paths.push(add_text(lower, "not-needed", "2", &[]));
        paths.push(add_text(lower, "rooted", "3", &[]));
    });
    let mut store = stage.open();
    let own = add_text(&mut store, "own", "1", &[&paths[0]]);
    store.ensure(&paths[1..]).unwrap();
    store.add_root(&stage.path("own"), &own).unwrap();
    store.add_root(&stage.path("rooted"), &paths[2]).unwrap();
    drop(store);
    let mut store = stage.open();
    let collected = collect(&mut store);
    assert_eq!(collected.deleted, []);
    assert_eq!(collected.forgotten, std::slice::from_ref(&paths[1]));
    for (path, expected) in paths.iter().zip([true, false, true]) {
        assert_eq!(is_valid(store.upper_metadata(), path), expected, "{path}");
    }
    // A root that leads below keeps nothing here, and is no error.
    fs::remove_file(stage.path("own")).unwrap();
    drop(collect(&mut store));
    assert!(is_valid(store.upper_metadata(), &paths[2]));
    assert_eq!(store.upper_metadata().count().unwrap(), 1);
}

fn copy_up(stage: &Stage, path: &StorePath) {
    let name = path.base_name();
    fs::copy(stage.lower_dir().join(name), stage.upper_dir().join(name)).unwrap();
}

fn objects_without_rows_go_unless_something_keeps_them() {
    let mut below = Vec::new();
    let stage = Stage::over(|lower| {
        below.push(add_text(lower, "duplicate", "1", &[]));
        below.push(add_text(lower, "rooted-duplicate", "2", &[]));
    });
    let before = stage.lower_tree();
    below.iter().for_each(|path| copy_up(&stage, path));
    let path = |letter: char, name: &str| {
        let base = format!("{}-{name}", letter.to_string().repeat(32));
        StorePath::from_base_name(base.as_bytes()).unwrap()
    };
    let (abandoned, in_use, rooted) = (path('a', "abandoned"), path('b', "in-use"), path('c', "rooted"));
    for name in [
        abandoned.base_name(),
        in_use.base_name(),
        rooted.base_name(),
        &format!("{abandoned}.lock"),
        &format!("{in_use}.lock"),
    ] {
        fs::write(stage.upper_dir().join(name), "x").unwrap();
    }
    let user = stage.open();
    user.refresh_mount().unwrap();
    user.add_temp_roots(std::slice::from_ref(&in_use)).unwrap();
    let store = stage.open();
    store.add_root(&stage.path("result"), &below[1]).unwrap();
    drop(store);
    // A root to what is not valid is none.
    symlink(
        format!("/nix/store/{rooted}"),
        stage.state_dir().join("gcroots/invalid"),
    )
    .unwrap();
    let mut store = stage.open();
    let alive = store.collect(&question(CollectAction::ListAlive)).unwrap().alive;
    let collected = collect(&mut store);
    let mut expected = vec![
        abandoned.clone(),
        path('a', "abandoned.lock"),
        rooted,
        below[0].clone(),
    ];
    expected.sort();
    assert_eq!(collected.deleted, expected);
    let mut left = vec![in_use.clone(), path('b', "in-use.lock"), below[1].clone()];
    left.sort();
    assert_eq!(alive, left);
    let left: Vec<&str> = left.iter().map(StorePath::base_name).collect();
    assert_eq!(stage.upper_names(), left);
    assert!(collected.remounted, "the duplicate left behind the mount");
    let merged = stage.merged_dir().join(below[0].base_name());
    assert_eq!(fs::read_to_string(merged).unwrap(), "1", "the lower object shows");
    drop((user, store));
    assert_eq!(collect(&mut stage.open()).deleted.len(), 2);
    assert_eq!(stage.lower_tree(), before);
}

fn junk_goes_from_the_upper_layer_alone() {
    let stage = Stage::over(|_| {});
    fs::create_dir(stage.lower_dir().join("tmp-1-1")).unwrap();
    fs::write(stage.lower_dir().join("rubbish"), "below").unwrap();
    fs::write(stage.lower_dir().join("only-below"), "").unwrap();
    let before = stage.lower_tree();
    let upper = stage.upper_dir();
    for directory in ["tmp-1-1", "tmp-2-2", "tmp-locked", ".links", "directory"] {
        fs::create_dir_all(upper.join(directory).join("x")).unwrap();
    }
    for file in ["rubbish", "tmp-file", ".tmp-link-1-2", "0-too-short"] {
        fs::write(upper.join(file), "above").unwrap();
    }
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    // By the name that its owner knows: a lock in the layer is another one.
    let locked = File::open(stage.merged_dir().join("tmp-locked")).unwrap();
    rustix::fs::flock(locked.as_fd(), rustix::fs::FlockOperation::LockExclusive).unwrap();
    let rehearsed = store.collect(&question(CollectAction::Rehearse)).unwrap();
    let collected = collect(&mut store);
    let expected = [
        ".tmp-link-1-2",
        "0-too-short",
        "directory",
        "rubbish",
        "tmp-1-1",
        "tmp-2-2",
        "tmp-file",
    ];
    assert_eq!(collected.junk, expected);
    assert_eq!(rehearsed.junk, expected);
    assert_eq!(
        (rehearsed.bytes, rehearsed.inodes, rehearsed.entries),
        (collected.bytes, collected.inodes, collected.entries)
    );
    assert_eq!(collected.deleted, []);
    assert_eq!(stage.upper_names(), [".links", "tmp-locked"], "and no whiteout");
    let merged = stage.merged_dir();
    assert_eq!(fs::read_to_string(merged.join("rubbish")).unwrap(), "below");
    assert_eq!(fs::read_dir(merged.join("tmp-1-1")).unwrap().count(), 0);
    drop(locked);
    assert_eq!(collect(&mut store).junk, ["tmp-locked"]);
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn whiteouts_are_left_alone() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_text(lower, "below", "1", &[])));
    let path = path.unwrap();
    fs::write(stage.lower_dir().join("junk"), "").unwrap();
    for name in [path.base_name(), "junk"] {
        fs::remove_file(stage.merged_dir().join(name)).unwrap();
    }
    let names = stage.upper_names();
    assert_eq!(names.len(), 2);
    assert_eq!(collect(&mut stage.open()), Collected::default());
    assert_eq!(stage.upper_names(), names);
}

fn unused_links_go_and_those_below_stay() {
    let stage = Stage::over(|_| {});
    let below = stage.lower_dir().join(".links");
    fs::create_dir_all(&below).unwrap();
    for name in ["below", "both"] {
        fs::write(below.join(name), "below").unwrap();
    }
    let before = stage.lower_tree();
    let above = stage.upper_dir().join(".links");
    fs::create_dir(&above).unwrap();
    for name in ["both", "unused", "used", "of-the-dead"] {
        fs::write(above.join(name), vec![1; 5000]).unwrap();
    }
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let alive = add_text(&mut store, "alive", "1", &[]);
    let dead = add_text(&mut store, "dead", "2", &[]);
    store.add_root(&stage.path("result"), &alive).unwrap();
    drop(store);
    for (name, path) in [("used", &alive), ("of-the-dead", &dead)] {
        let object = stage.upper_dir().join(path.base_name());
        fs::remove_file(&object).unwrap();
        fs::hard_link(above.join(name), object).unwrap();
    }
    let link = stage.merged_dir().join(".links/both");
    assert_eq!(fs::metadata(&link).unwrap().size(), 5000);
    let mut store = stage.open();
    let mut nothing = CollectOptions::default();
    nothing.max_freed = Some(0);
    let collected = store.collect(&nothing).unwrap();
    assert_eq!((collected.links, collected.deleted.len()), (2, 0));
    assert_eq!(
        (collected.bytes, collected.inodes),
        (2 * 8192, 2),
        "{collected:?}"
    );
    assert!(collected.remounted, "for the one that lies below, too");
    assert_eq!(fs::read_to_string(&link).unwrap(), "below", "and shows now");
    let collected = collect(&mut store);
    assert_eq!((collected.links, collected.deleted), (1, vec![dead]));
    assert_eq!(
        (collected.bytes, collected.inodes),
        (8192, 1),
        "one file, two names"
    );
    let names: Vec<_> = fs::read_dir(&above)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["used"], "and no whiteout");
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn what_waits_in_the_layer_belongs_to_the_trash() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let path = add_text(&mut store, "object", "1", &[]);
    store.add_root(&stage.path("result"), &path).unwrap();
    drop(store);
    let name = format!("{}-superpose-trash-{}", "0".repeat(32), path.hash_part_str());
    fs::create_dir(stage.upper_dir().join(&name)).unwrap();
    let mut store = stage.open();
    let collected = collect(&mut store);
    assert_eq!(
        (collected.deleted.len(), collected.entries),
        (0, 1),
        "{collected:?}"
    );
    assert_eq!(stage.upper_names(), [path.base_name()]);
    // Of a valid object that is nowhere else, the trash has the only copy.
    fs::rename(
        stage.upper_dir().join(path.base_name()),
        stage.upper_dir().join(&name),
    )
    .unwrap();
    store.refresh_mount().unwrap();
    assert_eq!(collect(&mut store).waiting, 1);
    assert_eq!(stage.upper_names(), [name]);
}

/// The trash is in the layer then, since no rename leads out of it.
fn a_state_directory_elsewhere_leaves_nothing_in_the_layer() {
    let stage = Stage::over(|_| {});
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    assert_ne!(
        fs::metadata(state.path()).unwrap().dev(),
        fs::metadata(stage.upper_dir()).unwrap().dev()
    );
    let reference = stage
        .reference()
        .with_param("state", state.path().as_os_str().as_encoded_bytes());
    let open = || Store::open(resolve(&reference), OpenOptions::default()).unwrap();
    let duplicate = add_tree(&mut open(), "tree", &[("a", "1")]);
    drop(add_tree(&mut stage.lower_store(), "tree", &[("a", "1")]));
    let own = add_text(&mut open(), "own", "1", &[]);
    open().refresh_mount().unwrap();
    let collected = collect(&mut open());
    let mut expected = [duplicate, own];
    expected.sort();
    assert_eq!(collected.deleted, expected);
    assert_eq!((collected.inodes, collected.waiting), (3, 0), "{collected:?}");
    assert_eq!(stage.upper_names(), Vec::<String>::new());
}

fn a_tree_in_use_waits_and_goes_the_next_time() {
    let stage = Stage::over(|_| {});
    let path = add_tree(&mut stage.open(), "tree", &[("a", "1"), ("d/b", "2")]);
    drop(add_tree(
        &mut stage.lower_store(),
        "tree",
        &[("a", "1"), ("d/b", "2")],
    ));
    stage.open().refresh_mount().unwrap();
    let merged = stage.merged_dir().join(path.base_name());
    let held = File::open(merged.join("d")).unwrap();
    let mut store = stage.open();
    assert_eq!(
        collect(&mut store),
        Collected::default(),
        "a process that has it open is a root"
    );
    drop(held);
    let collected = collect(&mut store);
    assert_eq!((collected.deleted, collected.waiting), (vec![path], 0));
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
}

/// All rows of a database, as text.
fn rows(source: &dyn MetadataSource) -> Vec<String> {
    let mut paths = Vec::new();
    source
        .for_each_valid_path(&mut |path| {
            paths.push(path);
            Ok(())
        })
        .unwrap();
    paths.sort();
    let infos = source.path_infos(&paths).unwrap();
    infos.iter().map(|info| format!("{info:?}")).collect()
}

fn questions_change_nothing() {
    let stage = Stage::over(|lower| drop(add_text(lower, "below", "1", &[])));
    let mut store = stage.open();
    let alive = add_text(&mut store, "alive", "1", &[]);
    let dead = add_tree(&mut store, "dead", &[("a", "2")]);
    store.add_root(&stage.path("result"), &alive).unwrap();
    drop(store);
    fs::write(stage.upper_dir().join("junk"), "").unwrap();
    fs::create_dir(stage.upper_dir().join("tmp-1-1")).unwrap();
    fs::create_dir(stage.upper_dir().join(".links")).unwrap();
    fs::write(stage.upper_dir().join(".links/unused"), "x").unwrap();
    fs::write(stage.state_dir().join("temproots/4711"), "/nix/store/leftover\0").unwrap();
    symlink("/nowhere", stage.state_dir().join("gcroots/auto/stale")).unwrap();
    let mut store = stage.open();
    let trees = || {
        [
            crate::stage::tree(&stage.upper_dir()),
            crate::stage::tree(&stage.state_dir()),
        ]
    };
    let (before, rows_before) = (trees(), rows(store.upper_metadata()));
    let listed = store.collect(&question(CollectAction::ListAlive)).unwrap();
    assert_eq!(listed.alive, std::slice::from_ref(&alive));
    let rehearsed = store.collect(&question(CollectAction::Rehearse)).unwrap();
    assert_eq!(rehearsed.deleted, std::slice::from_ref(&dead));
    assert!(store.all_roots().unwrap().iter().any(|root| root.path == alive));
    assert!(trees() == before, "files changed");
    assert_eq!(rows(store.upper_metadata()), rows_before);
    let collected = collect(&mut store);
    assert_eq!(collected.links, 1);
    assert_eq!(collected.deleted, rehearsed.deleted);
    assert_eq!(
        (
            collected.bytes - 4096,
            collected.inodes - 1,
            collected.entries - 1
        ),
        (rehearsed.bytes, rehearsed.inodes, rehearsed.entries),
        "all but the unused link"
    );
}

fn a_local_store() {
    let top = tempfile::tempdir().unwrap();
    let mut store = local(top.path());
    let library = add_text(&mut store, "library", "1", &[]);
    let program = add_text(&mut store, "program", "2", &[&library]);
    let dead = add_tree(&mut store, "dead", &[("a", "3")]);
    let lost = add_text(&mut store, "lost", "4", &[]);
    store.add_root(&top.path().join("result"), &program).unwrap();
    drop(store);
    let objects = top.path().join("nix/store");
    fs::remove_file(objects.join(lost.base_name())).unwrap();
    fs::create_dir(objects.join("tmp-1-1")).unwrap();
    fs::write(objects.join("trash"), "").unwrap();
    fs::write(objects.join(".links/unused"), "x").unwrap();
    let abandoned = format!("{}-abandoned.lock", "0".repeat(32));
    fs::write(objects.join(&abandoned), "").unwrap();
    let mut store = local(top.path());
    let collected = collect(&mut store);
    let mut expected = vec![dead.base_name(), abandoned.as_str()];
    expected.sort_unstable();
    let deleted: Vec<&str> = collected.deleted.iter().map(StorePath::base_name).collect();
    assert_eq!(deleted, expected);
    assert_eq!(
        collected.forgotten,
        std::slice::from_ref(&lost),
        "a row whose object is gone goes, too"
    );
    assert_eq!(collected.junk, ["tmp-1-1", "trash"]);
    assert_eq!((collected.links, collected.remounted), (1, false));
    assert_eq!((collected.inodes, collected.entries), (6, 6), "{collected:?}");
    let mut names: Vec<_> = fs::read_dir(&objects)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut left = vec![".links".to_owned(), library.to_string(), program.to_string()];
    left.sort();
    assert_eq!(names, left);
    assert_eq!(store.upper_metadata().count().unwrap(), 2);
}
