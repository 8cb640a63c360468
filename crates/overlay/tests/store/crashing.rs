// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process is killed at every step; the store is opened again and must be whole.
//!
//! The program runs itself with [`CHILD`] as the first word; the child aborts at its n-th crash point. A run in which
//! it does not abort has passed all points.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use superpose_overlay::mounting::{Detach, unmount};
use superpose_overlay::store_path::{Defaults, StorePath, StoreReference};
use superpose_overlay::{
    CollectOptions, Contents, CrashPoints, DeleteOptions, Layout, OpenOptions, OptimiseOptions, Store,
    StoreView, VerifyOptions, is_interrupted,
};

use crate::importing::{elsewhere, exported};
use crate::namespace::Named;
use crate::repairing::Good;
use crate::stage::{Stage, add_text, add_tree, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    (
        "crashing::an_addition_is_all_or_nothing",
        an_addition_is_all_or_nothing,
    ),
    (
        "crashing::an_import_is_all_or_nothing",
        an_import_is_all_or_nothing,
    ),
    (
        "crashing::a_deletion_is_not_begun_or_finished",
        a_deletion_is_not_begun_or_finished,
    ),
    (
        "crashing::a_collection_is_not_begun_or_finished",
        a_collection_is_not_begun_or_finished,
    ),
    (
        "crashing::a_link_that_leaves_behind_the_mount_owes_a_remount",
        a_link_that_leaves_behind_the_mount_owes_a_remount,
    ),
    (
        "crashing::a_replay_that_crashes_is_replayed",
        a_replay_that_crashes_is_replayed,
    ),
    (
        "crashing::what_has_come_below_since_shows_after_a_replay",
        what_has_come_below_since_shows_after_a_replay,
    ),
];

/// First word of the command line of a child.
const CHILD: &str = "--crash-child";
/// No operation here has more points.
pub(crate) const MANY: u32 = 60;

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
    let stream = match &layout {
        Layout::Overlay(overlay) => overlay.upper_layer.with_file_name("stream"),
        other => other.settings().real_dir.with_file_name("stream"),
    };
    let mut store = Store::open(layout, options).unwrap();
    match operation.as_str() {
        "add" => drop(add_tree(&mut store, "added", &[("a", "1"), ("d/b", "2")])),
        "import" => drop(store.import(&mut fs::File::open(stream).unwrap()).unwrap()),
        "delete" => {
            let paths: Vec<StorePath> = words
                .map(|word| StorePath::from_base_name(word.as_bytes()).unwrap())
                .collect();
            store.delete(&paths, &DeleteOptions::default()).unwrap();
        }
        "collect" => drop(store.collect(&CollectOptions::default()).unwrap()),
        "optimise" => drop(store.optimise(&OptimiseOptions::default()).unwrap()),
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
        "add-root" => {
            let path = StorePath::from_base_name(words.next()?.as_bytes()).unwrap();
            let directory = store.layout().settings().state_dir.with_file_name("result-dir");
            store.add_root(&directory.join("result"), &path).unwrap();
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

/// The same with any words that the operation takes.
pub(crate) fn aborts(stage: &Stage, operation: &str, n: u32, words: &[String]) -> bool {
    aborts_of(&stage.reference().to_string(), operation, n, words)
}

/// The same of any store.
pub(crate) fn aborts_of(url: &str, operation: &str, n: u32, words: &[String]) -> bool {
    let status = Command::new(env::current_exe().unwrap())
        .args([CHILD, url, operation, &n.to_string()])
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
pub(crate) fn assert_whole(stage: &Stage, step: &str) -> Store {
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
        // Opening has undone what was not finished: nothing lies in the layer without a row.
        assert_eq!(
            stage.upper_names().len(),
            usize::try_from(rows).unwrap(),
            "{step}: {:?}",
            stage.upper_names()
        );
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

/// Three objects that need each other and one below.
fn an_import_is_all_or_nothing() {
    let (_base, mut elsewhere) = elsewhere();
    let below = add_tree(&mut elsewhere, "below", &[("a", "1")]);
    let library = add_tree(&mut elsewhere, "library", &[("lib", "2"), ("d/b", "3")]);
    let program = add_text(&mut elsewhere, "program", "4", &[&library, &below]);
    // Too large to wait in memory.
    let large = add_tree(&mut elsewhere, "large", &[("a", &"x".repeat(2 << 20))]);
    let new = [&library, &program, &large];
    let mut rows_found = [0, 0];
    for n in 1..MANY {
        let stage = Stage::over(|lower| drop(add_tree(lower, "below", &[("a", "1")])));
        fs::write(stage.path("stream"), exported(&elsewhere, &new)).unwrap();
        let before = stage.lower_tree();
        let aborted = aborts_at(&stage, "import", n, &[]);
        let step = format!("killed at point {n}");
        assert_nothing_valid_is_missing(&stage, &step);
        let mut store = assert_whole(&stage, &step);
        let valid: Vec<bool> = new
            .iter()
            .map(|path| is_valid(store.upper_metadata(), path))
            .collect();
        assert!(valid.iter().all(|one| *one == valid[0]), "{step}: {valid:?}");
        rows_found[usize::from(valid[0])] += 1;
        for name in stage.upper_names() {
            assert!(
                StorePath::from_base_name(name.as_bytes()).is_ok(),
                "{step}: {name}"
            );
        }
        store.import(&mut &exported(&elsewhere, &new)[..]).unwrap();
        drop(store);
        drop(assert_whole(&stage, &step));
        assert_eq!(stage.lower_tree(), before, "{step}");
        if !aborted {
            assert!(
                rows_found[0] >= 9 && rows_found[1] >= 2,
                "scratch names, three objects unpacked and moved, syncs, rows: {rows_found:?}"
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
pub(crate) fn assert_nothing_valid_is_missing(stage: &Stage, step: &str) {
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

/// SHA-256 of the archive of a file that holds `x`, by which a link to it is called.
const HASH_OF_X: &str = "0rsv7kag23nvdpy4500mv2m0b4sm4c8fkgqrfsrmv1kgk77bi81c";

/// The objects of a deletion, all dead, beside one that lives, junk, an unused link, and what a crash has left.
fn objects_to_collect() -> (Stage, [StorePath; 3], StorePath) {
    let (stage, paths) = objects_to_delete();
    let mut store = stage.open();
    let alive = add_tree(&mut store, "alive", &[("a", "1")]);
    store.add_root(&stage.path("result"), &alive).unwrap();
    drop(store);
    let upper = stage.upper_dir();
    fs::create_dir(upper.join(".links")).unwrap();
    let unused = format!(".links/{HASH_OF_X}");
    for name in [&unused, &format!("{}-left.lock", "0".repeat(32))] {
        fs::write(upper.join(name), "x").unwrap();
    }
    stage.open().refresh_mount().unwrap();
    (stage, paths, alive)
}

fn a_collection_is_not_begun_or_finished() {
    let mut not_begun = 0;
    for n in 1..MANY {
        let (stage, paths, alive) = objects_to_collect();
        let before = stage.lower_tree();
        let aborted = aborts_at(&stage, "collect", n, &[]);
        let step = format!("killed at point {n}");
        assert_consistent(&stage, &paths, &step);
        not_begun += u32::from(stage.upper_dir().join(paths[1].base_name()).exists());
        let mut store = stage.open();
        store.collect(&CollectOptions::default()).unwrap();
        assert!(is_valid(store.upper_metadata(), &alive), "{step}");
        assert_eq!(store.upper_metadata().count().unwrap(), 1, "{step}");
        drop(store);
        let names = [".links".to_owned(), alive.to_string()];
        let mut found = stage.upper_names();
        found.sort();
        assert_eq!(found, names, "{step}");
        assert_eq!(entries(&stage.upper_dir().join(".links")), 0, "{step}");
        assert_eq!(entries(&stage.state_dir().join("superpose/trash")), 0, "{step}");
        assert_eq!(stage.lower_tree(), before, "{step}");
        if !aborted {
            assert_eq!(not_begun, 1, "only the intent comes before the rows");
            assert!(
                n > 10,
                "rows, four moves, remount, unlinking, journal, trash: {n}"
            );
            return;
        }
    }
    panic!("the child never came to its end");
}

/// A link that lies below too leaves behind the mount's back, and owes a remount for it.
fn a_link_that_leaves_behind_the_mount_owes_a_remount() {
    let mut owed = 0;
    for n in 1..MANY {
        let stage = Stage::over(|_| {});
        fs::create_dir_all(stage.lower_dir().join(".links")).unwrap();
        fs::write(stage.lower_dir().join(".links/both"), "below").unwrap();
        fs::create_dir(stage.upper_dir().join(".links")).unwrap();
        fs::write(stage.upper_dir().join(".links/both"), "above").unwrap();
        stage.open().refresh_mount().unwrap();
        let link = stage.merged_dir().join(".links/both");
        assert_eq!(fs::read_to_string(&link).unwrap(), "above");
        let aborted = aborts_at(&stage, "collect", n, &[]);
        owed += u32::from(is_interrupted(&stage.state_dir()).unwrap());
        drop(stage.open());
        stage.open().collect(&CollectOptions::default()).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "below", "killed at point {n}");
        if !aborted {
            assert!(owed >= 2, "before the link is gone, and after it");
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

/// What leaves was only above when that was decided; when the store is opened again, the lower store has it, too.
fn what_has_come_below_since_shows_after_a_replay() {
    let fill = |store: &mut Store| {
        [
            add_text(store, "file", "1", &[]),
            add_tree(store, "tree", &[("a", "2")]),
        ]
    };
    for n in 1..MANY {
        let stage = Stage::over(|_| {});
        let paths = fill(&mut stage.open());
        assert!(aborts_at(&stage, "delete", 2, &paths.each_ref()));
        assert!(is_interrupted(&stage.state_dir()).unwrap());
        unmount(&stage.merged_dir(), Detach::Lazily).unwrap();
        assert_eq!(fill(&mut stage.lower_store()), paths);
        stage.mount();
        let aborted = aborts_at(&stage, "open", n, &[]);
        let step = format!("replay killed at point {n}");
        let store = assert_whole(&stage, &step);
        assert_eq!(stage.upper_names(), [""; 0], "{step}");
        for path in &paths {
            assert!(is_valid(&store.metadata(), path), "{step}");
        }
        let merged = |path: &StorePath| stage.merged_dir().join(path.base_name());
        assert_eq!(fs::read(merged(&paths[0])).unwrap(), b"1", "{step}");
        assert_eq!(fs::read(merged(&paths[1]).join("a")).unwrap(), b"2", "{step}");
        if !aborted {
            assert!(n > 4, "two objects, the remount, the journal: {n}");
            return;
        }
    }
    panic!("the child never came to its end");
}

pub(crate) fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}
