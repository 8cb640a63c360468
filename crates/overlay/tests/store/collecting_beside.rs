// SPDX-License-Identifier: MIT OR Apache-2.0
//! A collection beside others at work: whoever protects what he uses loses nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use superpose_overlay::metadata::{Database, OpenDatabase, PathInfo};
use superpose_overlay::store_path::{Hash, StorePath};
use superpose_overlay::{
    CollectOptions, Collected, DeleteOptions, Doing, Error, OpenOptions, Progress, Store, Watch, Watcher,
};

use crate::crashing::traced;
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve};

pub(crate) const TRIALS: &[Named] = &[
    (
        "collecting_beside::a_root_that_comes_before_the_decision_is_kept",
        a_root_that_comes_before_the_decision_is_kept,
    ),
    (
        "collecting_beside::a_root_that_comes_after_it_finds_the_object_gone",
        a_root_that_comes_after_it_finds_the_object_gone,
    ),
    (
        "collecting_beside::what_a_new_object_needs_is_kept",
        what_a_new_object_needs_is_kept,
    ),
    (
        "collecting_beside::a_referrer_that_comes_meanwhile_is_no_failure",
        a_referrer_that_comes_meanwhile_is_no_failure,
    ),
    (
        "collecting_beside::work_that_is_to_stop_changes_nothing",
        work_that_is_to_stop_changes_nothing,
    ),
    ("collecting_beside::progress_is_told", progress_is_told),
    (
        "collecting_beside::syncs_do_not_grow_with_the_dead",
        syncs_do_not_grow_with_the_dead,
    ),
];

/// Does something once, when the collector is about to decide.
#[derive(Default)]
struct Once {
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    decisions: AtomicUsize,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Once")
    }
}

impl Watcher for Once {
    fn wants_to_stop(&self) -> bool {
        self.decisions.fetch_add(1, Ordering::SeqCst);
        let act = self.act.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        false
    }
}

/// Collects, and runs `act` when the database and the layer are read and nothing is decided.
fn collect_and(stage: &Stage, act: impl FnOnce() + Send + 'static) -> Collected {
    let once = Once::default();
    *once.act.lock().unwrap() = Some(Box::new(act));
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(once));
    let mut store = stage.open_with(options);
    store.collect(&CollectOptions::default()).unwrap()
}

fn a_root_that_comes_before_the_decision_is_kept() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let library = add_text(&mut store, "library", "1", &[]);
    let program = add_text(&mut store, "program", "2", &[&library]);
    let dead = add_text(&mut store, "dead", "3", &[]);
    drop(store);
    let layout = stage.layout();
    let (user, users) = mpsc::channel();
    let wanted = program.clone();
    let collected = collect_and(&stage, move || {
        let store = Store::open(layout, OpenOptions::default()).unwrap();
        store.add_temp_roots(std::slice::from_ref(&wanted)).unwrap();
        // It is acknowledged: from now on it holds, with all that it needs.
        user.send(store).unwrap();
    });
    let store = users.recv().unwrap();
    assert_eq!(collected.deleted, [dead]);
    assert!(is_valid(store.upper_metadata(), &program) && is_valid(store.upper_metadata(), &library));
    assert!(stage.merged_dir().join(library.base_name()).exists());
}

/// The hook of the remount runs in the middle of the removal.
fn a_root_that_comes_after_it_finds_the_object_gone() {
    let stage = Stage::over(|_| {});
    let duplicate = add_tree(&mut stage.open(), "tree", &[("a", "1")]);
    drop(add_tree(&mut stage.lower_store(), "tree", &[("a", "1")]));
    let own = add_text(&mut stage.open(), "own", "2", &[]);
    stage.open().refresh_mount().unwrap();
    let (hook, begun, go) = (stage.path("hook"), stage.path("begun"), stage.path("go"));
    let script = format!(
        "#!/bin/sh\n: >'{}'\nwhile [ ! -e '{}' ]; do sleep 0.01; done\n",
        begun.display(),
        go.display()
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let reference = stage
        .reference()
        .with_param("remount-hook", hook.as_os_str().as_encoded_bytes());
    for deleting in [false, true] {
        if deleting {
            fs::remove_file(&begun).unwrap();
            fs::remove_file(&go).unwrap();
            let copy = stage.upper_dir().join(duplicate.base_name());
            fs::create_dir(&copy).unwrap();
            fs::write(copy.join("a"), "1").unwrap();
            stage.open().refresh_mount().unwrap();
        }
        thread::scope(|scope| {
            let collector = scope.spawn(|| {
                let mut store = Store::open(resolve(&reference), OpenOptions::default()).unwrap();
                if deleting {
                    let paths = std::slice::from_ref(&duplicate);
                    drop(store.delete(paths, &DeleteOptions::default()).unwrap());
                } else {
                    drop(store.collect(&CollectOptions::default()).unwrap());
                }
            });
            wait_for(&begun);
            let (done, is_done) = mpsc::channel();
            let (stage, duplicate) = (&stage, &duplicate);
            scope.spawn(move || {
                let store = stage.open();
                store
                    .add_temp_roots(&[StorePath::from_base_name(
                        format!("{}-other", "0".repeat(32)).as_bytes(),
                    )
                    .unwrap()])
                    .unwrap();
                done.send("another").unwrap();
                store.add_temp_roots(std::slice::from_ref(duplicate)).unwrap();
                done.send("the one that goes").unwrap();
            });
            assert_eq!(is_done.recv().unwrap(), "another", "is answered at once");
            assert!(is_done.recv_timeout(Duration::from_millis(100)).is_err());
            fs::write(&go, "").unwrap();
            assert_eq!(is_done.recv().unwrap(), "the one that goes");
            collector.join().unwrap();
        });
        assert!(!stage.upper_dir().join(duplicate.base_name()).exists());
    }
    assert!(!is_valid(stage.open().upper_metadata(), &own));
}

fn wait_for(file: &Path) {
    for _ in 0..2000 {
        if file.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} never came", file.display());
}

/// An addition that begins and ends while the collector decides: its object and its references stay.
fn what_a_new_object_needs_is_kept() {
    let stage = Stage::over(|_| {});
    let library = add_text(&mut stage.open(), "library", "1", &[]);
    let layout = stage.layout();
    let needed = library.clone();
    let (new, news) = mpsc::channel();
    let collected = collect_and(&stage, move || {
        let mut store = Store::open(layout, OpenOptions::default()).unwrap();
        new.send(add_text(&mut store, "program", "2", &[&needed]))
            .unwrap();
    });
    assert_eq!(collected, Collected::default());
    let store = stage.open();
    for path in [&news.recv().unwrap(), &library] {
        assert!(is_valid(store.upper_metadata(), path), "{path}");
        assert!(stage.merged_dir().join(path.base_name()).exists(), "{path}");
    }
}

/// Rows of stock Nix can come without any root, when it copies them up.
fn a_referrer_that_comes_meanwhile_is_no_failure() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let dead = add_text(&mut store, "dead", "1", &[]);
    let dir = store.dir().clone();
    drop(store);
    let db = stage.state_dir().join("db");
    let referrer = StorePath::from_base_name(format!("{}-new", "0".repeat(32)).as_bytes()).unwrap();
    let mut info = PathInfo::new(referrer.clone(), Hash::sha256([1; 32]), 1);
    info.references = vec![dead.clone()];
    let collected = collect_and(&stage, move || {
        let mut database = Database::open(&OpenDatabase::read_write(db, dir)).unwrap();
        database
            .register(&[info], &mut |_| Err("there are no derivations".into()))
            .unwrap();
    });
    assert_eq!(
        (collected.deleted, collected.forgotten),
        (vec![dead], vec![referrer])
    );
    assert_eq!(stage.open().upper_metadata().count().unwrap(), 0);
}

/// Wants to stop, and hears of progress.
#[derive(Debug, Default)]
struct Listening {
    stops: bool,
    most: AtomicU64,
}

impl Watcher for Listening {
    fn progress(&self, progress: &Progress) {
        assert_eq!((progress.doing, progress.all), (Doing::Deleting, 200));
        self.most.fetch_max(progress.done, Ordering::Relaxed);
    }

    fn wants_to_stop(&self) -> bool {
        self.stops
    }
}

fn work_that_is_to_stop_changes_nothing() {
    let stage = Stage::over(|_| {});
    let dead = add_text(&mut stage.open(), "dead", "1", &[]);
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(Listening {
        stops: true,
        ..Listening::default()
    }));
    let error = stage
        .open_with(options)
        .collect(&CollectOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert!(is_valid(stage.open().upper_metadata(), &dead));
    assert_eq!(stage.upper_names(), [dead.base_name()]);
}

fn progress_is_told() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    for number in 0..200 {
        add_text(&mut store, "dead", &number.to_string(), &[]);
    }
    drop(store);
    let watcher = Arc::new(Listening::default());
    let mut options = OpenOptions::default();
    options.watch = Watch::new(watcher.clone());
    let collected = stage
        .open_with(options)
        .collect(&CollectOptions::default())
        .unwrap();
    assert_eq!((collected.deleted.len(), collected.inodes), (200, 200));
    assert_eq!(watcher.most.load(Ordering::Relaxed), 192);
}

fn syncs_do_not_grow_with_the_dead() {
    let syncs = |count: u32| {
        let stage = Stage::over(|_| {});
        let mut store = stage.open();
        for number in 0..count {
            add_text(&mut store, "dead", &number.to_string(), &[]);
        }
        drop(store);
        let calls = traced(&stage, "collect", &[])?;
        assert_eq!(stage.upper_names(), Vec::<String>::new());
        Some(calls.iter().filter(|call| call.contains("sync(")).count())
    };
    let few = syncs(3);
    if few.is_some() {
        assert_eq!(few, syncs(150));
    }
}
