// SPDX-License-Identifier: MIT OR Apache-2.0
//! A deduplication is killed at every step: no content ever changes, no path is ever without its object, and whoever opens
//! the store next, or deduplicates again, does the rest.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Store, is_interrupted};

use crate::crashing::{MANY, aborts_at, assert_nothing_valid_is_missing, assert_whole, entries};
use crate::namespace::Named;
use crate::optimising::optimise;
use crate::stage::{Stage, Tree, add_text, add_tree, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "crashing_optimise::it_can_be_killed_anywhere",
        it_can_be_killed_anywhere,
    ),
    (
        "crashing_optimise::a_replay_of_dropped_duplicates_can_be_killed",
        a_replay_of_dropped_duplicates_can_be_killed,
    ),
    (
        "crashing_optimise::a_replay_of_links_can_be_killed",
        a_replay_of_links_can_be_killed,
    ),
    (
        "crashing_optimise::a_local_store_can_be_killed_too",
        a_local_store_can_be_killed_too,
    ),
];

const FILES: &[(&str, &str)] = &[("a", "1"), ("d/b", "2")];
/// Of a size that no other file here has.
const SAME: &[(&str, &str)] = &[("d/one", "the same text"), ("two", "the same text")];

/// Two duplicates, one of which shares a file with an object that is above only; and objects with identical files.
fn stage() -> Stage {
    let stage = Stage::over(|_| {});
    let add = |store: &mut Store| [add_tree(store, "tree", FILES), add_tree(store, "shared", SAME)];
    let mut store = stage.open();
    let paths = add(&mut store);
    drop(add_tree(&mut store, "own", SAME));
    drop(add_text(&mut store, "text", "the same text", &[&paths[1]]));
    drop(store);
    assert_eq!(add(&mut stage.lower_store()), paths);
    stage.open().refresh_mount().unwrap();
    stage
}

/// What every reader sees: the whole merged view but the farm and what is garbage there.
fn seen(stage: &Stage, store_dir: &Path) -> Tree {
    let mut seen = tree(store_dir);
    let valid: Vec<String> = {
        let store = stage.view();
        let mut valid = Vec::new();
        superpose_overlay::metadata::MetadataSource::for_each_valid_path(&store, &mut |path| {
            valid.push(path.to_string());
            Ok(())
        })
        .unwrap();
        valid
    };
    seen.retain(|name, _| valid.iter().any(|path| name.starts_with(path)));
    seen
}

/// The same without what a replay has still to mend: the time of a directory, and its mode.
fn contents(tree: Tree) -> Vec<(std::path::PathBuf, u64, Vec<u8>)> {
    let entries = tree.into_iter();
    entries
        .map(|(name, (_, _, _, _, size, contents))| (name, size, contents))
        .collect()
}

fn assert_collectable(layer: &Path, step: &str) {
    for entry in fs::read_dir(layer).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == ".links" || StorePath::from_base_name(name.as_bytes()).is_ok(),
            "{step}: a stock collector stops at '{name}'"
        );
    }
}

fn it_can_be_killed_anywhere() {
    for n in 1..MANY {
        let stage = stage();
        let below = stage.lower_tree();
        let before = seen(&stage, &stage.merged_dir());
        let aborted = aborts_at(&stage, "optimise", n, &[]);
        let step = format!("killed at point {n}");
        assert_nothing_valid_is_missing(&stage, &step);
        assert_eq!(
            contents(seen(&stage, &stage.merged_dir())),
            contents(before.clone()),
            "{step}"
        );
        assert_collectable(&stage.upper_dir(), &step);
        let mut store = assert_whole(&stage, &step);
        assert_eq!(
            seen(&stage, &stage.merged_dir()),
            before,
            "{step}: modes and times too"
        );
        optimise(&mut store);
        drop(store);
        assert_eq!(seen(&stage, &stage.merged_dir()), before, "{step}");
        assert_eq!(stage.lower_tree(), below, "{step}");
        assert_eq!(entries(&stage.state_dir().join("superpose/trash")), 0, "{step}");
        // All that is left above is linked, and duplicates are gone.
        let objects: Vec<String> = (stage.upper_names().into_iter())
            .filter(|name| name.ends_with("-own") || name.ends_with("-text"))
            .collect();
        assert_eq!(objects.len(), 2, "{step}");
        assert!(
            !stage
                .upper_names()
                .iter()
                .any(|name| name.ends_with("-tree") || name.ends_with("-shared")),
            "{step}"
        );
        let file = |name: &str| {
            let object = objects.iter().find(|object| object.ends_with(name)).unwrap();
            stage.upper_dir().join(object)
        };
        let inode = |file: &Path| fs::symlink_metadata(file).unwrap().ino();
        assert_eq!(inode(&file("-text")), inode(&file("-own").join("two")), "{step}");
        if !aborted {
            assert!(n > 15, "two moves, two remounts, links and directories: {n}");
            return;
        }
    }
    panic!("the child never came to its end");
}

/// Kills a replay at each of its points, after a deduplication that was killed where `is_there` finds the store.
fn replay_can_be_killed(is_there: impl Fn(&Stage) -> bool, least: u32) {
    let first = (1..MANY).find(|n| {
        let stage = stage();
        assert!(aborts_at(&stage, "optimise", *n, &[]), "there is such a point");
        is_there(&stage)
    });
    for n in 1..MANY {
        let stage = stage();
        let before = seen(&stage, &stage.merged_dir());
        assert!(aborts_at(&stage, "optimise", first.unwrap(), &[]));
        assert!(is_interrupted(&stage.state_dir()).unwrap());
        let aborted = aborts_at(&stage, "open", n, &[]);
        let step = format!("replay killed at point {n}");
        assert_nothing_valid_is_missing(&stage, &step);
        drop(assert_whole(&stage, &step));
        assert_eq!(seen(&stage, &stage.merged_dir()), before, "{step}");
        if !aborted {
            assert!(n > least, "{n}");
            return;
        }
    }
    panic!("the child never came to its end");
}

fn a_replay_of_dropped_duplicates_can_be_killed() {
    // One of two is moved.
    let moved = |stage: &Stage| entries(&stage.state_dir().join("superpose/trash")) == 1;
    replay_can_be_killed(moved, 3);
}

fn a_replay_of_links_can_be_killed() {
    let replaced = |stage: &Stage| {
        let objects = tree(&stage.upper_dir());
        objects
            .values()
            .any(|(mode, _, time, ..)| mode & 0o170_000 == 0o040_000 && *time != 1)
            && stage.upper_dir().join(".links").exists()
            && objects
                .iter()
                .any(|(name, (_, _, time, ..))| name.iter().count() > 0 && name.ends_with("d") && *time != 1)
    };
    replay_can_be_killed(replaced, 1);
}

fn a_local_store_can_be_killed_too() {
    for n in 1..MANY {
        let stage = Stage::over(|lower| {
            for name in ["one", "other"] {
                drop(add_tree(lower, name, SAME));
            }
        });
        let objects = || {
            let mut objects = tree(&stage.lower_dir());
            objects.retain(|name, _| {
                let first = name.iter().next().and_then(|first| first.to_str());
                first.is_some_and(|first| first.ends_with("-one") || first.ends_with("-other"))
            });
            objects
        };
        let before = objects();
        let url = superpose_overlay::store_path::StoreReference::local(stage.path("store-a")).to_string();
        let aborted = crate::crashing::aborts_of(&url, "optimise", n, &[]);
        let step = format!("killed at point {n}");
        assert_eq!(contents(objects()), contents(before.clone()), "{step}");
        assert_collectable(&stage.lower_dir(), &step);
        let mut store = stage.lower_store();
        assert_eq!(objects(), before, "{step}: modes and times too");
        optimise(&mut store);
        assert_eq!(objects(), before, "{step}");
        let inodes: std::collections::HashSet<u64> = objects()
            .keys()
            .map(|name| fs::symlink_metadata(stage.lower_dir().join(name)).unwrap())
            .filter(fs::Metadata::is_file)
            .map(|stat| stat.ino())
            .collect();
        assert_eq!(inodes.len(), 1, "{step}");
        if !aborted {
            assert!(n > 8, "{n}");
            return;
        }
    }
    panic!("the child never came to its end");
}
