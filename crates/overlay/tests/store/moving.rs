// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects and what is known of them from one store to another: copies, registrations, signatures.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use superpose_overlay::metadata::{
    Database, MetadataSource, OpenDatabase, Realisation, RealisationKey, RealisationKind, Registration,
};
use superpose_overlay::store_path::{StoreDir, StorePath, StoreReference};
use superpose_overlay::{
    CopyOptions, Error, OpenOptions, Presence, Progress, Recursion, RegisterOptions, SignatureCheck, Store,
    Watch, Watcher,
};

use crate::arriving::{key, trusting};
use crate::importing::{elsewhere, info, open_local, view};
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "moving::a_closure_comes_into_the_upper_layer",
        a_closure_comes_into_the_upper_layer,
    ),
    (
        "moving::a_merged_closure_goes_to_a_local_store",
        a_merged_closure_goes_to_a_local_store,
    ),
    (
        "moving::lower_objects_are_signed_above",
        lower_objects_are_signed_above,
    ),
    (
        "moving::registering_never_touches_a_lower_object",
        registering_never_touches_a_lower_object,
    ),
];

pub(crate) const LOCAL_TRIALS: &[Named] = &[
    ("moving::impossible_sizes_are_errors", impossible_sizes_are_errors),
    (
        "moving::all_that_is_known_comes_along",
        all_that_is_known_comes_along,
    ),
    (
        "moving::single_paths_need_their_references",
        single_paths_need_their_references,
    ),
    ("moving::a_stop_leaves_whole_batches", a_stop_leaves_whole_batches),
    (
        "moving::realisations_come_where_there_is_a_place_for_them",
        realisations_come_where_there_is_a_place_for_them,
    ),
    (
        "moving::other_store_directories_are_refused",
        other_store_directories_are_refused,
    ),
    (
        "moving::loading_keeps_what_the_text_cannot_say",
        loading_keeps_what_the_text_cannot_say,
    ),
    (
        "moving::objects_put_there_by_hand_become_valid",
        objects_put_there_by_hand_become_valid,
    ),
    ("moving::signatures_are_counted", signatures_are_counted),
];

fn copy(
    store: &mut Store,
    from: &Store,
    paths: &[&StorePath],
    options: &CopyOptions,
) -> Result<Vec<StorePath>, Error> {
    let paths: Vec<StorePath> = paths.iter().map(|path| (*path).clone()).collect();
    store
        .copy_from(&view(from), &paths, options)
        .map(|copied| copied.paths)
}

fn trusting_all() -> CopyOptions {
    let mut options = CopyOptions::default();
    options.signatures = SignatureCheck::Skipped;
    options
}

/// A chain of three, the last of which is returned too.
fn chain(store: &mut Store) -> [StorePath; 3] {
    let ground = add_tree(store, "ground", &[("a", "1"), ("d/b", "2")]);
    let middle = add_text(store, "middle", "3", &[&ground]);
    let top = add_text(store, "top", "4", &[&middle, &ground]);
    [ground, middle, top]
}

fn all_that_is_known_comes_along() {
    let (_base, mut from) = elsewhere();
    let [ground, middle, top] = chain(&mut from);
    from.sign(std::slice::from_ref(&top), &key()).unwrap();
    let mut changed = info(&from.metadata(), &middle);
    changed.ultimate = true;
    from.register(&[changed]).unwrap();
    let (base, mut to) = elsewhere();
    let copied = copy(&mut to, &from, &[&top], &CopyOptions::default()).unwrap();
    assert_eq!(copied, [ground.clone(), middle.clone(), top.clone()]);
    for path in [&ground, &middle, &top] {
        let mut theirs = info(&from.metadata(), path);
        theirs.ultimate = false;
        assert_eq!(info(&to.metadata(), path), theirs, "times included");
        let real = |store: &Store| tree(&store.layout().settings().real_dir.join(path.base_name()));
        assert_eq!(real(&to), real(&from));
    }
    assert_eq!(
        copy(&mut to, &from, &[&top, &middle], &CopyOptions::default()).unwrap(),
        []
    );
    assert!(base.path().join("nix/store").join(top.base_name()).exists());
}

/// Rows may claim any size.
fn impossible_sizes_are_errors() {
    let (_base, mut from) = elsewhere();
    let chain = chain(&mut from);
    for path in &chain {
        let mut wrong = info(&from.metadata(), path);
        wrong.nar_size = i64::MAX.unsigned_abs();
        from.register(&[wrong]).unwrap();
    }
    let (_other, mut to) = elsewhere();
    let error = copy(&mut to, &from, &[&chain[2]], &CopyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    assert_eq!(to.metadata().count().unwrap(), 0);
    let mut stream = Vec::new();
    view(&from)
        .export(&chain, &mut stream, &Watch::default())
        .unwrap();
}

fn single_paths_need_their_references() {
    let (_base, mut from) = elsewhere();
    let [ground, middle, top] = chain(&mut from);
    let (_other, mut to) = elsewhere();
    let mut options = CopyOptions::default();
    options.recursion = Recursion::PathsOnly;
    copy(&mut to, &from, &[&top], &options).unwrap_err();
    assert_eq!(to.metadata().count().unwrap(), 0);
    assert_eq!(
        copy(&mut to, &from, &[&middle, &ground], &options).unwrap(),
        [ground, middle]
    );
    assert_eq!(copy(&mut to, &from, &[&top], &options).unwrap(), [top]);
}

fn a_closure_comes_into_the_upper_layer() {
    let (_base, mut from) = elsewhere();
    let [ground, middle, top] = chain(&mut from);
    let stage = Stage::over(|lower| drop(copy(lower, &from, &[&ground], &CopyOptions::default()).unwrap()));
    let before = stage.lower_tree();
    let mut store = stage.open();
    let copied = copy(&mut store, &from, &[&top], &CopyOptions::default()).unwrap();
    assert_eq!(copied, [middle.clone(), top.clone()], "what is below is there");
    let mut names = [middle.base_name(), top.base_name()];
    names.sort_unstable();
    assert_eq!(stage.upper_names(), names);
    assert!(
        is_valid(store.upper_metadata(), &ground),
        "its row came up, as the others refer to it"
    );
    assert_eq!(stage.lower_tree(), before);
}

fn a_merged_closure_goes_to_a_local_store() {
    let mut ground = None;
    let stage = Stage::over(|lower| ground = Some(add_tree(lower, "ground", &[("a", "1")])));
    let ground = ground.unwrap();
    let mut store = stage.open();
    let top = add_text(&mut store, "top", "2", &[&ground]);
    let (base, mut to) = elsewhere();
    to.copy_from(&stage.view(), std::slice::from_ref(&top), &CopyOptions::default())
        .unwrap();
    assert_eq!(to.metadata().count().unwrap(), 2);
    let copy = base.path().join("nix/store").join(ground.base_name()).join("a");
    assert_eq!(fs::read_to_string(copy).unwrap(), "1");
}

/// Stops when it has heard of that many objects.
#[derive(Debug)]
struct Impatient {
    left: AtomicU64,
}

impl Watcher for Impatient {
    fn progress(&self, progress: &Progress) {
        assert!(progress.done <= progress.all && progress.all_bytes.is_some());
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
    }

    fn wants_to_stop(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

fn a_stop_leaves_whole_batches() {
    let (_base, mut from) = elsewhere();
    let mut unsynced = OpenOptions::default();
    unsynced.durability = superpose_overlay::Durability::Unsynced;
    drop(from);
    let base = tempfile::tempdir().unwrap();
    from = open_local(base.path(), unsynced.clone());
    let mut paths: Vec<StorePath> = Vec::new();
    // More than a batch, and less than two.
    for number in 0..600 {
        paths.push(add_text(&mut from, &format!("object-{number}"), "text", &[]));
    }
    let other = tempfile::tempdir().unwrap();
    let mut options = unsynced;
    options.watch = Watch::new(Arc::new(Impatient {
        left: AtomicU64::new(520),
    }));
    let mut to = open_local(other.path(), options);
    let error = to
        .copy_from(&view(&from), &paths, &CopyOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    let rows = to.metadata().count().unwrap();
    assert_eq!(rows, 512, "the batch that was finished");
    let names = fs::read_dir(other.path().join("nix/store")).unwrap().count();
    assert_eq!(names as u64, rows + 1, "nothing but that, and the link farm");
    drop(to);
    let mut to = open_local(other.path(), OpenOptions::default());
    to.copy_from(&view(&from), &paths, &CopyOptions::default())
        .unwrap();
    assert_eq!(to.metadata().count().unwrap(), 600);
}

fn realisation(output: &StorePath) -> Realisation {
    Realisation {
        key: RealisationKey {
            kind: RealisationKind::BuildTrace,
            derivation: "akj8mbqjx8nzkql9142nb7103vwn0wa2-plain.drv".to_owned(),
            output: "out".to_owned(),
        },
        output_path: output.clone(),
        signatures: Vec::new(),
    }
}

fn record(base: &tempfile::TempDir, realisation: &Realisation) {
    let options = OpenDatabase::read_write(base.path().join("nix/var/nix/db"), StoreDir::default());
    let mut database = Database::open(&options).unwrap();
    database
        .register_realisations(std::slice::from_ref(realisation))
        .unwrap();
}

fn realisations_come_where_there_is_a_place_for_them() {
    let (base, mut from) = elsewhere();
    let [_, middle, top] = chain(&mut from);
    record(&base, &realisation(&top));
    let copied = |to: &mut Store, options: &CopyOptions| {
        let copied = to
            .copy_from(&view(&from), std::slice::from_ref(&top), options)
            .unwrap();
        (copied.realisations, copied.realisations_left)
    };
    let (_base, mut to) = elsewhere();
    assert_eq!(copied(&mut to, &trusting_all()), (0, 1), "there is no table");

    let with_table = |known: &Realisation| {
        let (base, to) = elsewhere();
        drop(to);
        record(&base, known);
        let to = open_local(base.path(), OpenOptions::default());
        (base, to)
    };
    let mut unrelated = realisation(&middle);
    unrelated.key.output = "dev".to_owned();
    let (_base, mut to) = with_table(&unrelated);
    assert_eq!(copied(&mut to, &trusting_all()), (1, 0));
    let key = realisation(&top).key;
    assert_eq!(
        to.metadata().realisations(&[key]).unwrap(),
        [Some(realisation(&top))]
    );
    let (_base, mut to) = with_table(&unrelated);
    assert_eq!(
        copied(&mut to, &CopyOptions::default()),
        (0, 1),
        "signatures are asked for"
    );
    let (_base, mut to) = with_table(&realisation(&middle));
    assert_eq!(copied(&mut to, &trusting_all()), (0, 1), "another is known");
}

fn other_store_directories_are_refused() {
    let (_base, mut from) = elsewhere();
    let [_, _, top] = chain(&mut from);
    let base = tempfile::tempdir().unwrap();
    let reference = StoreReference::local(base.path()).with_param("store", b"/gnu/store");
    let mut to = Store::open(resolve(&reference), OpenOptions::default()).unwrap();
    let error = copy(&mut to, &from, &[&top], &trusting_all()).unwrap_err();
    assert!(matches!(error, Error::ForeignSource { .. }), "{error}");
}

fn registration(source: &dyn MetadataSource, path: &StorePath) -> Registration {
    Registration::from(&info(source, path))
}

fn loading_keeps_what_the_text_cannot_say() {
    let (_base, mut store) = elsewhere();
    let [_, middle, _] = chain(&mut store);
    store.sign(std::slice::from_ref(&middle), &key()).unwrap();
    let before = info(&store.metadata(), &middle);
    let mut text = registration(&store.metadata(), &middle);
    store.load(vec![text.clone()]).unwrap();
    assert_eq!(info(&store.metadata(), &middle), before);
    assert!(before.content_address.is_some() && before.signatures.len() == 1);
    // Of another archive nothing is known.
    text.archive = Some((superpose_overlay::store_path::Hash::sha256([7; 32]), 9));
    store.load(vec![text]).unwrap();
    let after = info(&store.metadata(), &middle);
    assert_eq!(
        (after.nar_size, after.signatures, after.content_address),
        (9, vec![], None)
    );
}

fn objects_put_there_by_hand_become_valid() {
    let (_base, mut from) = elsewhere();
    let [ground, middle, top] = chain(&mut from);
    let (base, mut store) = elsewhere();
    let real = base.path().join("nix/store");
    fs::create_dir_all(real.join(ground.base_name()).join("d")).unwrap();
    fs::write(real.join(ground.base_name()).join("a"), "1").unwrap();
    fs::write(real.join(ground.base_name()).join("d/b"), "2").unwrap();
    fs::write(real.join(middle.base_name()), "3").unwrap();
    let absent = |path: &StorePath| {
        let mut text = registration(&from.metadata(), path);
        text.archive = None;
        text
    };
    // One is not there: none is registered.
    store
        .register_objects(
            vec![absent(&ground), absent(&top), absent(&middle)],
            &RegisterOptions::default(),
        )
        .unwrap_err();
    assert_eq!(store.metadata().count().unwrap(), 0);
    let registered = store
        .register_objects(
            vec![absent(&middle), absent(&ground)],
            &RegisterOptions::default(),
        )
        .unwrap();
    assert_eq!(registered.registered, 2);
    for path in [&ground, &middle] {
        let (ours, theirs) = (info(&store.metadata(), path), info(&from.metadata(), path));
        assert_eq!(
            (ours.nar_hash, ours.nar_size, ours.references),
            (theirs.nar_hash, theirs.nar_size, theirs.references)
        );
    }
    let look = fs::metadata(real.join(ground.base_name()).join("d/b")).unwrap();
    assert_eq!((look.permissions().mode() & 0o7777, look.mtime()), (0o444, 1));
    // What is valid is left alone, unless it is to be registered again.
    let mut other = registration(&from.metadata(), &ground);
    other.archive = Some((superpose_overlay::store_path::Hash::sha256([7; 32]), 9));
    let size = |store: &Store| info(&store.metadata(), &ground).nar_size;
    let before = size(&store);
    store
        .register_objects(vec![other.clone()], &RegisterOptions::default())
        .unwrap();
    assert_eq!(size(&store), before);
    let mut again = RegisterOptions::default();
    again.presence = Presence::Update;
    store.register_objects(vec![other], &again).unwrap();
    assert_eq!(size(&store), 9);
}

fn registering_never_touches_a_lower_object() {
    let (_base, mut other) = elsewhere();
    let path = add_tree(&mut other, "tree", &[("a", "1")]);
    let stage = Stage::unmounted(|_| {});
    // It lies below, is not valid, and does not look as an object should.
    let object = stage.lower_dir().join(path.base_name());
    fs::create_dir(&object).unwrap();
    fs::write(object.join("a"), "1").unwrap();
    stage.mount();
    let before = stage.lower_tree();
    let registration = Registration {
        path: path.clone(),
        archive: None,
        deriver: None,
        references: Vec::new(),
    };
    let mut store = stage.open();
    store
        .register_objects(vec![registration], &RegisterOptions::default())
        .unwrap();
    assert!(is_valid(store.upper_metadata(), &path));
    assert_eq!(stage.upper_names(), Vec::<String>::new(), "nothing was copied up");
    assert_eq!(stage.lower_tree(), before);
}

fn lower_objects_are_signed_above() {
    let mut path = None;
    let stage = Stage::over(|lower| {
        let ground = add_text(lower, "ground", "1", &[]);
        path = Some(add_text(lower, "top", "2", &[&ground]));
    });
    let path = path.unwrap();
    let before = stage.lower_tree();
    let mut store = stage.open_with(trusting());
    assert_eq!(store.sign(&[path.clone(), path.clone()], &key()).unwrap(), 1);
    assert_eq!(
        store.sign(std::slice::from_ref(&path), &key()).unwrap(),
        0,
        "it is there"
    );
    assert_eq!(info(store.upper_metadata(), &path).signatures.len(), 1);
    assert_eq!(store.upper_metadata().count().unwrap(), 2, "with what it needs");
    assert_eq!(stage.lower_tree(), before);
    let unknown = StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-unknown").unwrap();
    store.sign(&[unknown], &key()).unwrap_err();
}

fn signatures_are_counted() {
    let base = tempfile::tempdir().unwrap();
    let mut store = open_local(base.path(), trusting());
    let [ground, middle, top] = chain(&mut store);
    let untrusted = |store: &Store, needed| -> Vec<(StorePath, usize)> {
        let found = store.untrusted(needed).unwrap();
        found.into_iter().map(|one| (one.path, one.found)).collect()
    };
    assert_eq!(untrusted(&store, 5), [], "they follow from their content");
    for path in [&ground, &middle, &top] {
        let mut info = info(&store.metadata(), path);
        info.content_address = None;
        info.ultimate = *path == middle;
        store.register(&[info]).unwrap();
    }
    store.sign(std::slice::from_ref(&top), &key()).unwrap();
    let mut expected = [(ground.clone(), 0), (middle.clone(), 0)];
    expected.sort();
    assert_eq!(untrusted(&store, 1), expected);
    assert_eq!(
        untrusted(&store, 0),
        [(ground, 0)],
        "what was built here needs none"
    );
    assert_eq!(untrusted(&store, 2).len(), 3);
    drop(store);
    assert_eq!(
        untrusted(&open_local(base.path(), OpenOptions::default()), 1).len(),
        3,
        "nobody trusts the key"
    );
}
