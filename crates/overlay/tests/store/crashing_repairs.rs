// SPDX-License-Identifier: MIT OR Apache-2.0
//! A repair is killed at every step: each path has one whole object, and the next one can do the rest.

use std::fs;
use std::path::Path;

use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Contents, DeleteOptions, VerifyOptions, is_interrupted};

use crate::crashing::{MANY, aborts, assert_whole, entries};
use crate::namespace::Named;
use crate::repairing::{self, Good};
use crate::stage::{Stage, add_tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "crashing_repairs::a_repair_leaves_each_path_one_whole_object",
        a_repair_leaves_each_path_one_whole_object,
    ),
    (
        "crashing_repairs::a_replay_of_a_repair_is_replayed",
        a_replay_of_a_repair_is_replayed,
    ),
    (
        "crashing_repairs::a_hidden_object_shows_or_is_hidden_still",
        a_hidden_object_shows_or_is_hidden_still,
    ),
];

/// Faults of all kinds: modified above, with a half object below, missing below, hidden.
fn objects_to_repair() -> (Stage, Good, Vec<StorePath>) {
    let (stage, good, paths) = repairing::layered();
    let [library, below, _, alone] = &paths;
    let spoilt = stage.upper_dir().join(alone.base_name());
    fs::remove_file(&spoilt).unwrap();
    fs::write(spoilt, "spoilt").unwrap();
    let hidden = add_tree(&mut stage.lower_store(), "hidden", &[("a", "1"), ("d/b", "2")]);
    stage.open().refresh_mount().unwrap();
    fs::remove_dir_all(stage.merged_dir().join(hidden.base_name())).unwrap();
    let half = stage.lower_dir().join(library.base_name()).join("d");
    fs::set_permissions(&half, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::remove_file(half.join("b")).unwrap();
    fs::remove_dir_all(stage.lower_dir().join(below.base_name())).unwrap();
    stage.open().refresh_mount().unwrap();
    (stage, good, [paths.as_slice(), &[hidden]].concat())
}

/// At any moment a path that is repaired shows the old object or the new one, and what is left can be collected.
fn assert_old_or_new(stage: &Stage, paths: &[StorePath], step: &str) {
    let [library, below, _, alone, hidden] = paths else {
        panic!("five paths")
    };
    let merged = |path: &StorePath| stage.merged_dir().join(path.base_name());
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let inner = names(&merged(library).join("d"));
    assert!(inner == ["c"] || inner == ["b", "c"], "{step}: {inner:?}");
    assert_eq!(names(&merged(library)), ["a", "d"], "{step}");
    let text = fs::read_to_string(merged(alone)).unwrap();
    assert!(text == "spoilt" || text == "6", "{step}: {text}");
    if merged(below).exists() {
        assert_eq!(
            fs::read_to_string(merged(below).join("x")).unwrap(),
            "4",
            "{step}"
        );
    }
    if merged(hidden).exists() {
        assert_eq!(
            fs::read_to_string(merged(hidden).join("d/b")).unwrap(),
            "2",
            "{step}"
        );
    }
    for name in stage.upper_names() {
        assert!(
            StorePath::from_base_name(name.as_bytes()).is_ok(),
            "{step}: {name}"
        );
    }
}

fn assert_repaired(stage: &Stage, good: &Good, paths: &[StorePath], step: &str) {
    let mut store = stage.open();
    assert!(!is_interrupted(&stage.state_dir()).unwrap(), "{step}");
    assert_old_or_new(stage, paths, step);
    let mut options = VerifyOptions::default();
    options.contents = Contents::Check;
    let report = store.verify(&options).unwrap();
    assert!(report.forgotten.is_empty(), "{step}: {report:?}");
    store.repair(&report, Some(&good.view())).unwrap();
    drop(store);
    let mut store = assert_whole(stage, step);
    // What a crash has left in the trash goes with the next deletion, of whatever.
    store.delete(&[], &DeleteOptions::default()).unwrap();
    drop(store);
    assert_eq!(entries(&stage.state_dir().join("superpose/trash")), 0, "{step}");
}

fn a_repair_leaves_each_path_one_whole_object() {
    let mut begun = 0;
    for n in 1..MANY {
        let (stage, good, paths) = objects_to_repair();
        let before = stage.lower_tree();
        let aborted = aborts(&stage, "repair", n, &[good.reference().to_string()]);
        let step = format!("killed at point {n}");
        // Also before anybody finishes what was begun, as for a stock Nix that opens the store next.
        stage_refreshed(&stage);
        assert_old_or_new(&stage, &paths, &step);
        begun += u32::from(is_interrupted(&stage.state_dir()).unwrap());
        assert_repaired(&stage, &good, &paths, &step);
        assert_eq!(stage.lower_tree(), before, "{step}");
        if !aborted {
            assert!(
                n > 15 && begun > 8,
                "three objects restored, exchanged and moved, one uncovered: {n}, {begun}"
            );
            return;
        }
    }
    panic!("the child never came to its end");
}

/// The mount as it is after some time: the kernel has forgotten what it remembered.
fn stage_refreshed(stage: &Stage) {
    superpose_overlay::mounting::refresh(&stage.merged_dir()).unwrap();
}

fn a_replay_of_a_repair_is_replayed() {
    let mut replayed = 0;
    for first in 1..MANY {
        let (stage, good, _) = objects_to_repair();
        let url = [good.reference().to_string()];
        if !aborts(&stage, "repair", first, &url) {
            break;
        }
        if !is_interrupted(&stage.state_dir()).unwrap() {
            continue;
        }
        for n in 1..MANY {
            let (stage, good, paths) = objects_to_repair();
            assert!(aborts(&stage, "repair", first, &[good.reference().to_string()]));
            let aborted = aborts(&stage, "open", n, &[]);
            let step = format!("repair killed at {first}, replay at {n}");
            assert_repaired(&stage, &good, &paths, &step);
            replayed += 1;
            if !aborted {
                break;
            }
        }
    }
    assert!(replayed > 20, "{replayed}");
}

fn a_hidden_object_shows_or_is_hidden_still() {
    for n in 1..MANY {
        let stage = Stage::over(|lower| {
            drop(add_tree(lower, "hidden", &[("a", "1"), ("d/b", "2")]));
        });
        let before = stage.lower_tree();
        let name = fs::read_dir(stage.lower_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .find(|name| name.to_string_lossy().ends_with("-hidden"))
            .unwrap();
        let merged = stage.merged_dir().join(&name);
        fs::remove_dir_all(&merged).unwrap();
        assert!(!merged.exists(), "and the kernel remembers it");
        let aborted = aborts(&stage, "add-hidden", n, &[]);
        let step = format!("killed at point {n}");
        let whiteout = fs::symlink_metadata(stage.upper_dir().join(&name)).is_ok();
        drop(stage.open());
        assert!(!is_interrupted(&stage.state_dir()).unwrap(), "{step}");
        assert_eq!(
            merged.exists(),
            !whiteout,
            "{step}: a removed whiteout owes a remount"
        );
        let path = add_tree(&mut stage.open(), "hidden", &[("a", "1"), ("d/b", "2")]);
        assert_eq!(*path.base_name(), *name);
        assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2", "{step}");
        assert_eq!(stage.upper_names(), Vec::<String>::new(), "{step}");
        assert_eq!(stage.lower_tree(), before, "{step}");
        if !aborted {
            assert!(n > 3, "intent, move, remount, journal: {n}");
            return;
        }
    }
    panic!("the child never came to its end");
}
