// SPDX-License-Identifier: MIT OR Apache-2.0
//! A deduplication beside others: what changes under it, what it keeps away, and what it begins with.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use superpose_overlay::{
    Doing, Duplicated, Effect, Error, Layer, OpenOptions, OptimiseOptions, Progress, Reason, Store, Watch,
    Watcher, is_interrupted,
};

use crate::crashing::traced;
use crate::linking::with_files;
use crate::namespace::Named;
use crate::optimising::{FILES, optimise, sorted, the_only, with_duplicates};
use crate::stage::{Stage, Tree, add_tree, resolve, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "optimising_beside::what_is_replaced_meanwhile_is_left",
        what_is_replaced_meanwhile_is_left,
    ),
    (
        "optimising_beside::what_is_being_added_is_left",
        what_is_being_added_is_left,
    ),
    (
        "optimising_beside::a_dry_run_changes_nothing",
        a_dry_run_changes_nothing,
    ),
    (
        "optimising_beside::what_is_replaced_meanwhile_is_not_linked",
        what_is_replaced_meanwhile_is_not_linked,
    ),
    (
        "optimising_beside::it_stops_between_two_objects",
        it_stops_between_two_objects,
    ),
    (
        "optimising_beside::it_stops_where_nothing_is_done",
        it_stops_where_nothing_is_done,
    ),
    (
        "optimising_beside::the_lock_is_taken_alone_for_changes_only",
        the_lock_is_taken_alone_for_changes_only,
    ),
    (
        "optimising_beside::a_mount_that_cannot_be_refreshed_refuses_first",
        a_mount_that_cannot_be_refreshed_refuses_first,
    ),
    (
        "optimising_beside::the_intent_comes_first_and_the_remount_after_all",
        the_intent_comes_first_and_the_remount_after_all,
    ),
];

/// Does something once, as soon as all of some work is done.
struct When {
    doing: Doing,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("When").finish_non_exhaustive()
    }
}

impl Watcher for When {
    fn progress(&self, progress: &Progress) {
        if progress.doing == self.doing
            && progress.done == progress.all
            && let Some(act) = self.act.lock().unwrap().take()
        {
            act();
        }
    }
}

fn when_done(doing: Doing, act: impl FnOnce() + Send + 'static) -> OpenOptions {
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(When {
        doing,
        act: Mutex::new(Some(Box::new(act))),
    }));
    options
}

fn when_compared(act: impl FnOnce() + Send + 'static) -> OpenOptions {
    when_done(Doing::Comparing, act)
}

/// Everything of the store but the files that every process makes.
fn everything(stage: &Stage) -> [Tree; 2] {
    let mut state = tree(&stage.state_dir());
    state.retain(|name, _| !name.starts_with("temproots") && !name.ends_with("db.sqlite-shm"));
    [tree(&stage.upper_dir()), state]
}

#[derive(Debug)]
struct Impatient;

impl Watcher for Impatient {
    fn wants_to_stop(&self) -> bool {
        true
    }
}

/// Another process replaces the lower object between the comparison and the drop.
fn what_is_replaced_meanwhile_is_left() {
    for layer in [Layer::Lower, Layer::Upper] {
        let (stage, [path, text]) = with_duplicates();
        let object = match layer {
            Layer::Lower => stage.lower_dir(),
            Layer::Upper => stage.upper_dir(),
        }
        .join(path.base_name());
        let aside = stage.path("aside");
        let options = when_compared(move || {
            fs::rename(&object, aside).unwrap();
            fs::create_dir(&object).unwrap();
            fs::write(object.join("a"), "other").unwrap();
        });
        let report = optimise(&mut stage.open_with(options));
        assert_eq!(report.dropped, [text]);
        let kept = the_only(report);
        assert!(
            matches!(kept.reason, Reason::Changed) && !kept.reason.is_fault(),
            "{kept:?}"
        );
        assert!(stage.upper_dir().join(path.base_name()).exists());
    }
}

/// An object without a row is being added if a temporary root protects it, and a left-over if not.
fn what_is_being_added_is_left() {
    let mut below = None;
    let stage = Stage::over(|lower| below = Some(add_tree(lower, "tree", FILES)));
    let path = below.unwrap();
    let copy = stage.upper_dir().join(path.base_name());
    fs::create_dir_all(copy.join("d")).unwrap();
    for (name, text) in FILES {
        fs::write(copy.join(name), text).unwrap();
    }
    let adder = stage.open();
    adder.add_temp_roots(std::slice::from_ref(&path)).unwrap();
    let kept = the_only(optimise(&mut stage.open()));
    assert!(
        matches!(kept.reason, Reason::InUse) && !kept.reason.is_fault(),
        "{kept:?}"
    );
    assert!(copy.join("d/b").exists());
    drop(adder);
    assert_eq!(optimise(&mut stage.open()).dropped, [path]);
    assert!(!copy.exists());
    assert_eq!(
        stage.open().upper_metadata().count().unwrap(),
        0,
        "no row is made"
    );
}

fn a_dry_run_changes_nothing() {
    let (stage, paths) = with_duplicates();
    for name in ["one", "two"] {
        drop(add_tree(&mut stage.open(), name, &[("file", "the same in both")]));
    }
    drop(stage.open());
    drop(stage.open().verify(&superpose_overlay::VerifyOptions::default()));
    let before = everything(&stage);
    let mut store = stage.open();
    let report = store
        .optimise(&OptimiseOptions::default().with_effect(Effect::Foresee))
        .unwrap();
    assert_eq!(report.dropped, sorted(&paths));
    assert_eq!(report.linked, 1);
    assert!(report.bytes_linked > 0 && !report.remounted);
    drop(store);
    assert!(everything(&stage) == before, "a dry run is a question");
    let report = optimise(&mut stage.open());
    assert_eq!((report.dropped.len(), report.linked), (2, 1), "what was foreseen");
}

/// Another process replaces a file, or a whole object, between the search and the link.
fn what_is_replaced_meanwhile_is_not_linked() {
    for whole in [false, true] {
        let (stage, paths) = with_files();
        let object = stage.upper_dir().join(paths[0].base_name());
        let aside = stage.path("aside");
        let other = object.join("one");
        let options = when_done(Doing::Hashing, move || {
            if whole {
                fs::rename(&object, &aside).unwrap();
                fs::create_dir_all(object.join("d")).unwrap();
                fs::write(object.join("d/two"), "other").unwrap();
            } else {
                fs::rename(object.join("one"), &aside).unwrap();
            }
            fs::write(object.join("one"), "other").unwrap();
        });
        let report = optimise(&mut stage.open_with(options));
        assert!(report.skipped.changed > 0, "{report:?}");
        assert_eq!(
            fs::read_to_string(other).unwrap(),
            "other",
            "it is not replaced by the old text"
        );
        assert!(!is_interrupted(&stage.state_dir()).unwrap());
        // It is looked at again.
        assert!(optimise(&mut stage.open()).searched > 0);
    }
}

/// Stops as soon as the first object is done.
#[derive(Debug, Default)]
struct Satisfied(AtomicBool);

impl Watcher for Satisfied {
    fn progress(&self, progress: &Progress) {
        if progress.doing == Doing::Linking {
            self.0.store(progress.done > 0, Ordering::Relaxed);
        }
    }

    fn wants_to_stop(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn it_stops_between_two_objects() {
    let (stage, _) = with_files();
    let before = tree(&stage.merged_dir());
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(Satisfied::default()));
    let error = stage
        .open_with(options)
        .optimise(&OptimiseOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert!(
        !is_interrupted(&stage.state_dir()).unwrap(),
        "the mount is fresh, nothing is owed"
    );
    let mut after = tree(&stage.merged_dir());
    after.retain(|name, _| !name.starts_with(".links"));
    after.insert(PathBuf::new(), before[Path::new("")].clone());
    assert!(
        after.iter().all(|(name, what)| before.get(name) == Some(what)),
        "{after:?}"
    );
    let rest = optimise(&mut stage.open());
    assert!(rest.linked > 0, "{rest:?}");
}

fn it_stops_where_nothing_is_done() {
    let (stage, _) = with_duplicates();
    let mut options = OpenOptions::default();
    options.watch = Watch::new(Arc::new(Impatient));
    let before = tree(&stage.upper_dir());
    let error = stage
        .open_with(options)
        .optimise(&OptimiseOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert_eq!(tree(&stage.upper_dir()), before);
    assert_eq!(optimise(&mut stage.open()).dropped.len(), 2);
}

fn the_lock_is_taken_alone_for_changes_only() {
    let (stage, _) = with_duplicates();
    let lock = || {
        let path = stage.state_dir().join("gc.lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        file.unwrap()
    };
    // Comparing lets others add, and keeps collectors away.
    let seen = lock();
    let state = stage.state_dir();
    let mut options = when_compared(move || {
        let probe = File::open(state.join("gc.lock")).unwrap();
        flock(&probe, FlockOperation::NonBlockingLockShared).unwrap();
        flock(&probe, FlockOperation::NonBlockingLockExclusive).unwrap_err();
        // Held now, so that the changes have to wait.
        flock(&seen, FlockOperation::NonBlockingLockShared).unwrap();
        std::mem::forget(seen);
    });
    options.wait_limit = Some(Duration::from_millis(50));
    let before = tree(&stage.upper_dir());
    let error = stage
        .open_with(options)
        .optimise(&OptimiseOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::LockHeld { .. }), "{error}");
    assert_eq!(tree(&stage.upper_dir()), before);
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

/// The check of the mount is off, and there is none: nothing may be done that needs one afterwards.
fn a_mount_that_cannot_be_refreshed_refuses_first() {
    let (stage, [path, _]) = with_duplicates();
    for name in ["one", "two"] {
        drop(add_tree(&mut stage.open(), name, &[("file", "the same in both")]));
    }
    superpose_overlay::mounting::unmount(&stage.merged_dir(), superpose_overlay::mounting::Detach::Lazily)
        .unwrap();
    let layout = resolve(&stage.reference().with_param("check-mount", b"false"));
    let mut store = Store::open(layout, OpenOptions::default()).unwrap();
    let before = tree(&stage.upper_dir());
    for duplicated in [Duplicated::Objects, Duplicated::Files] {
        let options = OptimiseOptions::default().with_duplicated(duplicated);
        store.optimise(&options).unwrap_err();
    }
    assert_eq!(tree(&stage.upper_dir()), before);
    assert!(stage.upper_dir().join(path.base_name()).exists());
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
}

fn the_intent_comes_first_and_the_remount_after_all() {
    let (stage, _) = with_duplicates();
    for name in ["one", "two"] {
        drop(add_tree(&mut stage.open(), name, &[("file", "the same in both")]));
    }
    let Some(trace) = traced(&stage, "optimise", &[]) else {
        assert!(
            std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
            "strace is not installed"
        );
        return;
    };
    let positions = |line: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let found = trace.iter().enumerate().filter(|(_, text)| line(text));
        found.map(|(place, _)| place).collect()
    };
    let intents = positions(&|line| line.contains("sync(") && line.contains("/journal>"));
    let moves = positions(&|line| line.contains("renameat") && line.contains("/trash>"));
    let links = positions(&|line| line.contains("renameat") && line.contains("\"file\""));
    let layers = positions(&|line| line.contains("syncfs("));
    let remounts = positions(&|line| line.contains("FSCONFIG_CMD_RECONFIGURE"));
    // Each half: begun and closed with a sync, and one remount for all of it.
    assert_eq!(
        (intents.len(), remounts.len(), layers.len()),
        (4, 2, 2),
        "{trace:#?}"
    );
    // A file goes at once, a tree to the trash; one of the moves is the probe of that.
    let files = positions(&|line| line.contains("unlinkat") && line.contains("-text\""));
    assert!(
        moves.len() == 2 && moves[1] > intents[0] && files.len() == 1 && files[0] > intents[0],
        "{trace:#?}"
    );
    assert!(files[0] < remounts[0], "{trace:#?}");
    assert!(moves.iter().all(|moved| *moved < remounts[0]), "{trace:#?}");
    assert!(remounts[0] < intents[1] && intents[1] < intents[2], "{trace:#?}");
    assert!(
        intents[2] < layers[0] && layers[0] < links[0],
        "what is linked to is on the disk first"
    );
    assert!(
        links[links.len() - 1] < layers[1] && layers[1] < remounts[1],
        "{trace:#?}"
    );
    assert!(remounts[1] < intents[3], "{trace:#?}");
}
