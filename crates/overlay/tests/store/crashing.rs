// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process is killed at every step; the store is opened again and must be whole.
//!
//! The program runs itself with [`CHILD`] as the first word; the child aborts at its n-th crash point. A run in which
//! it does not abort has passed all points.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use superpose_overlay::store_path::{Defaults, StorePath, StoreReference};
use superpose_overlay::{
    Contents, CrashPoints, DeleteOptions, Layout, OpenOptions, Store, StoreView, VerifyOptions,
    is_interrupted,
};

use crate::namespace::Named;
use crate::repairing::{self, Good};
use crate::stage::{Stage, add_text, add_tree, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    (
        "crashing::an_addition_is_all_or_nothing",
        an_addition_is_all_or_nothing,
    ),
    (
        "crashing::a_deletion_is_not_begun_or_finished",
        a_deletion_is_not_begun_or_finished,
    ),
    (
        "crashing::a_replay_that_crashes_is_replayed",
        a_replay_that_crashes_is_replayed,
    ),
    (
        "crashing::a_repair_leaves_each_path_one_whole_object",
        a_repair_leaves_each_path_one_whole_object,
    ),
    (
        "crashing::a_replay_of_a_repair_is_replayed",
        a_replay_of_a_repair_is_replayed,
    ),
    (
        "crashing::a_hidden_object_shows_or_is_hidden_still",
        a_hidden_object_shows_or_is_hidden_still,
    ),
];

/// First word of the command line of a child.
const CHILD: &str = "--crash-child";
/// No operation here has more points.
const MANY: u32 = 60;

/// Runs a child that is not killed, under `strace`, and returns the system calls that reach the disk or change names, in
/// their order; `None` where there is no `strace`.
pub(crate) fn traced(stage: &Stage, operation: &str, paths: &[&StorePath]) -> Option<Vec<String>> {
    let words: Vec<String> = paths.iter().map(|path| path.base_name().to_owned()).collect();
    traced_words(stage, operation, &words)
}

/// The same of a repair.
pub(crate) fn traced_repair(stage: &Stage, good: &Good) -> Option<Vec<String>> {
    traced_words(stage, "repair", &[good.reference().to_string()])
}

fn traced_words(stage: &Stage, operation: &str, words: &[String]) -> Option<Vec<String>> {
    let trace = stage.path("trace");
    let status = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-e",
            "trace=fsync,fdatasync,syncfs,renameat,renameat2,unlinkat,ftruncate,fsconfig",
            "-o",
        ])
        .arg(&trace)
        .arg(env::current_exe().unwrap())
        .args([CHILD, &stage.reference().to_string(), operation, "1000000"])
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    assert!(status.success(), "{status}");
    let lines = fs::read_to_string(trace).unwrap();
    Some(lines.lines().map(str::to_owned).collect())
}

/// What a child does with the store, if this process is one.
pub(crate) fn child() -> Option<ExitCode> {
    let mut words = env::args().skip(1);
    if words.next()? != CHILD {
        return None;
    }
    let (url, operation, n) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    let (reference, _) = StoreReference::parse(url.as_bytes(), b"/").unwrap();
    let (layout, _) = Layout::resolve(&reference, &Defaults::default()).unwrap();
    let mut options = OpenOptions::default();
    options.crash_points = CrashPoints::abort_at(n);
    let mut store = Store::open(layout, options).unwrap();
    match operation.as_str() {
        "add" => drop(add_tree(&mut store, "added", &[("a", "1"), ("d/b", "2")])),
        "delete" => {
            let paths: Vec<StorePath> = words
                .map(|word| StorePath::from_base_name(word.as_bytes()).unwrap())
                .collect();
            store.delete(&paths, &DeleteOptions::default()).unwrap();
        }
        "repair" => {
            let mut verify = VerifyOptions::default();
            verify.contents = Contents::Check;
            let report = store.verify(&verify).unwrap();
            let from = words.next().map(|url| {
                let (reference, _) = StoreReference::parse(url.as_bytes(), b"/").unwrap();
                let (layout, _) = Layout::resolve(&reference, &Defaults::default()).unwrap();
                StoreView::open_verified(&layout).unwrap()
            });
            let repaired = store.repair(&report, from.as_ref()).unwrap();
            assert!(repaired.left.is_empty(), "{repaired:?}");
        }
        // It is valid below and hidden.
        "add-hidden" => drop(add_tree(&mut store, "hidden", &[("a", "1"), ("d/b", "2")])),
        // Opening alone replays.
        "open" => {}
        other => panic!("no operation {other}"),
    }
    Some(ExitCode::SUCCESS)
}

/// Runs a child that aborts at its n-th point; false when it ended before.
pub(crate) fn aborts_at(stage: &Stage, operation: &str, n: u32, paths: &[&StorePath]) -> bool {
    let words: Vec<String> = paths.iter().map(|path| path.base_name().to_owned()).collect();
    aborts(stage, operation, n, &words)
}

fn aborts(stage: &Stage, operation: &str, n: u32, words: &[String]) -> bool {
    let status = Command::new(env::current_exe().unwrap())
        .args([CHILD, &stage.reference().to_string(), operation, &n.to_string()])
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.code().is_none_or(|code| code == 0),
        "the child failed: {status}"
    );
    status.code().is_none()
}

/// The store opens, verifies with contents, owes nothing, and has no rows without objects.
fn assert_whole(stage: &Stage, step: &str) -> Store {
    let mut store = stage.open();
    assert!(!is_interrupted(&stage.state_dir()).unwrap(), "{step}");
    let mut options = VerifyOptions::default();
    options.contents = Contents::Check;
    let report = store.verify(&options).unwrap();
    assert!(
        report.faults.is_empty() && report.forgotten.is_empty(),
        "{step}: {report:?}"
    );
    store
}

fn an_addition_is_all_or_nothing() {
    let mut outcomes = [0, 0];
    for n in 1..MANY {
        let stage = Stage::over(|_| {});
        let before = stage.lower_tree();
        let aborted = aborts_at(&stage, "add", n, &[]);
        let step = format!("killed at point {n}");
        let mut store = assert_whole(&stage, &step);
        let rows = store.upper_metadata().count().unwrap();
        outcomes[usize::try_from(rows).unwrap()] += 1;
        // Whatever was left behind is no obstacle, and parses as a store path, as collectors need it.
        for name in stage.upper_names() {
            assert!(
                StorePath::from_base_name(name.as_bytes()).is_ok(),
                "{step}: {name}"
            );
        }
        let path = add_tree(&mut store, "added", &[("a", "1"), ("d/b", "2")]);
        assert!(is_valid(store.upper_metadata(), &path), "{step}");
        assert_eq!(
            fs::read_to_string(stage.merged_dir().join(path.base_name()).join("d/b")).unwrap(),
            "2",
            "{step}"
        );
        drop(store);
        drop(assert_whole(&stage, &step));
        assert_eq!(stage.lower_tree(), before, "{step}");
        if !aborted {
            assert!(
                outcomes[0] >= 2 && outcomes[1] >= 2,
                "points before and after the row: {outcomes:?}"
            );
            return;
        }
    }
    panic!("the child never came to its end");
}

/// A duplicate, an object of the upper layer only, and one that refers to it.
fn objects_to_delete() -> (Stage, [StorePath; 3]) {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let duplicate = add_tree(&mut store, "duplicate", &[("a", "1"), ("d/b", "2")]);
    let library = add_tree(&mut store, "library", &[("lib", "3")]);
    let program = add_text(&mut store, "program", "4", &[&library, &duplicate]);
    drop(store);
    drop(add_tree(
        &mut stage.lower_store(),
        "duplicate",
        &[("a", "1"), ("d/b", "2")],
    ));
    stage.open().refresh_mount().unwrap();
    // The kernel remembers what is above.
    for path in [&duplicate, &library] {
        drop(fs::read_dir(stage.merged_dir().join(path.base_name())).unwrap());
    }
    (stage, [duplicate, library, program])
}

/// Before anybody repairs anything: what is valid is there, also for a stock Nix that opens the store next.
fn assert_nothing_valid_is_missing(stage: &Stage, step: &str) {
    let view = stage.view();
    view.upper_metadata()
        .for_each_valid_path(&mut |path| {
            assert!(
                stage.merged_dir().join(path.base_name()).exists(),
                "{step}: {path}"
            );
            Ok(())
        })
        .unwrap();
}

fn assert_consistent(stage: &Stage, paths: &[StorePath; 3], step: &str) {
    assert_nothing_valid_is_missing(stage, step);
    let store = assert_whole(stage, step);
    let [duplicate, library, program] = paths;
    // One transaction: all rows or none.
    let rows: Vec<bool> = store.upper_metadata().are_valid(&paths.clone()).unwrap();
    assert!(rows.iter().all(|row| *row == rows[0]), "{step}: {rows:?}");
    for path in [library, program] {
        assert_eq!(
            stage.merged_dir().join(path.base_name()).exists(),
            rows[0],
            "{step}: {path}"
        );
    }
    let merged = stage.merged_dir().join(duplicate.base_name());
    assert_eq!(
        fs::read_dir(merged.join("d")).unwrap().count(),
        1,
        "{step}: never an empty directory"
    );
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2", "{step}");
    assert_eq!(
        stage.upper_dir().join(duplicate.base_name()).exists(),
        rows[0],
        "{step}"
    );
}

fn a_deletion_is_not_begun_or_finished() {
    let mut not_begun = 0;
    for n in 1..MANY {
        let (stage, paths) = objects_to_delete();
        let before = stage.lower_tree();
        let aborted = aborts_at(&stage, "delete", n, &paths.each_ref());
        let step = format!("killed at point {n}");
        assert_consistent(&stage, &paths, &step);
        not_begun += u32::from(stage.upper_dir().join(paths[1].base_name()).exists());
        let mut store = stage.open();
        store.delete(&paths, &DeleteOptions::default()).unwrap();
        drop(store);
        assert_eq!(stage.upper_names(), Vec::<String>::new(), "{step}");
        assert_eq!(entries(&stage.state_dir().join("superpose/trash")), 0, "{step}");
        assert_eq!(stage.lower_tree(), before, "{step}");
        if !aborted {
            assert_eq!(not_begun, 1, "only the intent comes before the rows");
            assert!(
                n > 8,
                "rows, three moves, remount, unlinking, journal, trash: {n}"
            );
            return;
        }
    }
    panic!("the child never came to its end");
}

fn a_replay_that_crashes_is_replayed() {
    for n in 1..MANY {
        let (stage, paths) = objects_to_delete();
        // The rows are gone, no object is moved: the replay has most to do.
        assert!(aborts_at(&stage, "delete", 2, &paths.each_ref()));
        assert!(is_interrupted(&stage.state_dir()).unwrap());
        let aborted = aborts_at(&stage, "open", n, &[]);
        assert_consistent(&stage, &paths, &format!("replay killed at point {n}"));
        if !aborted {
            assert!(n > 6, "three objects, the remount, unlinking, the journal: {n}");
            return;
        }
    }
    panic!("the child never came to its end");
}

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

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}
