// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of which it is known what they are: from archives and from streams.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use superpose_overlay::metadata::{MetadataSource, PathInfo};
use superpose_overlay::store_path::{StorePath, StoreReference};
use superpose_overlay::{
    Error, Imported, Layer, OpenOptions, Outcome, SignatureCheck, Store, StoreView, Watch,
};

use crate::arriving::{archive, object};
use crate::crashing::traced;
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, resolve, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "importing::what_is_valid_in_either_layer_writes_nothing",
        what_is_valid_in_either_layer_writes_nothing,
    ),
    (
        "importing::a_failed_batch_leaves_and_hides_nothing",
        a_failed_batch_leaves_and_hides_nothing,
    ),
    (
        "importing::a_stream_that_is_cut_anywhere_changes_nothing",
        a_stream_that_is_cut_anywhere_changes_nothing,
    ),
    (
        "importing::syncs_and_transactions_are_those_of_a_batch",
        syncs_and_transactions_are_those_of_a_batch,
    ),
    (
        "importing::objects_reach_the_disk_before_their_rows",
        objects_reach_the_disk_before_their_rows,
    ),
    (
        "importing::references_that_are_only_below_are_copied",
        references_that_are_only_below_are_copied,
    ),
];

pub(crate) const LOCAL_TRIALS: &[Named] = &[
    (
        "importing::what_arrives_is_protected_with_what_it_needs",
        what_arrives_is_protected_with_what_it_needs,
    ),
    (
        "importing::what_is_exported_is_imported",
        what_is_exported_is_imported,
    ),
    (
        "importing::an_object_that_was_changed_is_not_exported",
        an_object_that_was_changed_is_not_exported,
    ),
    (
        "importing::large_objects_go_to_the_disk_at_once",
        large_objects_go_to_the_disk_at_once,
    ),
];

/// A local store beside everything.
pub(crate) fn elsewhere() -> (tempfile::TempDir, Store) {
    let base = tempfile::tempdir().unwrap();
    let store = open_local(base.path(), OpenOptions::default());
    (base, store)
}

pub(crate) fn open_local(base: &Path, options: OpenOptions) -> Store {
    Store::open(resolve(&StoreReference::local(base)), options).unwrap()
}

pub(crate) fn view(store: &Store) -> StoreView {
    StoreView::open(store.layout()).unwrap()
}

pub(crate) fn info(source: &dyn MetadataSource, path: &StorePath) -> PathInfo {
    let infos = source.path_infos(std::slice::from_ref(path)).unwrap();
    infos.into_iter().next().flatten().unwrap()
}

pub(crate) fn exported(store: &Store, paths: &[&StorePath]) -> Vec<u8> {
    let paths: Vec<StorePath> = paths.iter().map(|path| (*path).clone()).collect();
    let mut stream = Vec::new();
    view(store)
        .export(&paths, &mut stream, &Watch::default())
        .unwrap();
    stream
}

pub(crate) fn outcomes(imported: &[Imported]) -> Vec<Outcome> {
    imported.iter().map(|one| one.outcome).collect()
}

/// A library, a program that refers to it, and a lone tree, in a store of their own.
pub(crate) fn three() -> (tempfile::TempDir, Store, [StorePath; 3]) {
    let (base, mut store) = elsewhere();
    let library = add_tree(&mut store, "library", &[("lib", "1"), ("share/doc", "2")]);
    let program = add_text(&mut store, "program", "3", &[&library]);
    let lone = add_tree(&mut store, "lone", &[("a", "4")]);
    (base, store, [library, program, lone])
}

fn what_is_exported_is_imported() {
    let (_base, store, [library, program, lone]) = three();
    let stream = exported(&store, &[&program, &lone, &library, &program]);
    let (_other, mut other) = elsewhere();
    let imported = other.import(&mut &stream[..]).unwrap();
    assert_eq!(outcomes(&imported), [Outcome::Stored; 3]);
    let order: Vec<&StorePath> = imported.iter().map(|one| &one.path).collect();
    let place = |path: &StorePath| order.iter().position(|one| *one == path).unwrap();
    assert!(place(&library) < place(&program), "{order:?}");
    for path in [&library, &program, &lone] {
        let (ours, theirs) = (info(&other.metadata(), path), info(&store.metadata(), path));
        assert_eq!(
            (
                ours.nar_hash,
                ours.nar_size,
                &ours.references,
                ours.content_address
            ),
            (theirs.nar_hash, theirs.nar_size, &theirs.references, None)
        );
        let real = |store: &Store| tree(&store.layout().settings().real_dir.join(path.base_name()));
        assert_eq!(real(&other), real(&store), "modes, times and contents of {path}");
    }
    let again = other.import(&mut &stream[..]).unwrap();
    assert_eq!(outcomes(&again), [Outcome::AlreadyValid(Layer::Upper); 3]);
}

fn what_is_valid_in_either_layer_writes_nothing() {
    let (_base, elsewhere, [library, program, lone]) = three();
    let stream = exported(&elsewhere, &[&library, &program, &lone]);
    let stage = Stage::over(|lower| drop(lower.import(&mut &exported(&elsewhere, &[&library])[..]).unwrap()));
    let before = stage.lower_tree();
    let mut store = stage.open();
    store.import(&mut &exported(&elsewhere, &[&lone])[..]).unwrap();
    let imported = store.import(&mut &stream[..]).unwrap();
    let found: Vec<(&StorePath, Outcome)> = imported.iter().map(|one| (&one.path, one.outcome)).collect();
    for expected in [
        (&library, Outcome::AlreadyValid(Layer::Lower)),
        (&lone, Outcome::AlreadyValid(Layer::Upper)),
        (&program, Outcome::Stored),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    let mut names = [lone.base_name(), program.base_name()];
    names.sort_unstable();
    assert_eq!(stage.upper_names(), names);
    let rows = store.upper_metadata().count().unwrap();
    store.import(&mut &stream[..]).unwrap();
    assert_eq!(stage.upper_names(), names);
    assert_eq!(store.upper_metadata().count().unwrap(), rows);
    assert_eq!(stage.lower_tree(), before);
}

fn a_failed_batch_leaves_and_hides_nothing() {
    let (_base, elsewhere, [library, program, lone]) = three();
    let stage = Stage::unmounted(|_| {});
    // Something of that name lies below, and is not valid.
    fs::create_dir(stage.lower_dir().join(lone.base_name())).unwrap();
    stage.mount();
    let mut store = stage.open();
    // Both can be unpacked; what the one refers to is valid nowhere.
    let stream = exported(&elsewhere, &[&lone, &program]);
    let error = store.import(&mut &stream[..]).unwrap_err();
    assert!(error.to_string().contains(library.base_name()), "{error}");
    assert_eq!(
        stage.upper_names(),
        Vec::<String>::new(),
        "neither object, whiteout nor lock"
    );
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
    assert!(
        stage.merged_dir().join(lone.base_name()).is_dir(),
        "what lies below shows"
    );
    // The last object of a batch is not what it should be.
    let mut wrong = info(&elsewhere.metadata(), &program);
    wrong.nar_hash = info(&elsewhere.metadata(), &lone).nar_hash;
    let batch =
        [&library, &lone].map(|path| object(&info(&elsewhere.metadata(), path), &archive(&elsewhere, path)));
    let batch = batch
        .into_iter()
        .chain([object(&wrong, &archive(&elsewhere, &program))]);
    let error = store.add_objects(batch, SignatureCheck::Required).unwrap_err();
    assert!(matches!(error, Error::HashMismatch { .. }), "{error}");
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
    // And the same again, as it should be.
    let stream = exported(&elsewhere, &[&library, &lone, &program]);
    store.import(&mut &stream[..]).unwrap();
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(lone.base_name()).join("a")).unwrap(),
        "4"
    );
}

fn a_stream_that_is_cut_anywhere_changes_nothing() {
    let (_base, elsewhere, [library, program, _]) = three();
    let stream = exported(&elsewhere, &[&library, &program]);
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    for end in 0..stream.len() {
        let error = store.import(&mut &stream[..end]).unwrap_err();
        assert!(
            matches!(error, Error::ExportStream { .. } | Error::Nar(_)),
            "{end}: {error}"
        );
        assert_eq!(stage.upper_names(), Vec::<String>::new(), "cut at {end}");
    }
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
    assert_eq!(store.import(&mut &stream[..]).unwrap().len(), 2);
}

fn large_objects_go_to_the_disk_at_once() {
    let (_base, mut elsewhere) = elsewhere();
    let large = "x".repeat(3 << 20);
    let path = add_tree(&mut elsewhere, "large", &[("a", &large), ("b", "2")]);
    let small = add_text(&mut elsewhere, "small", "1", &[&path]);
    let stream = exported(&elsewhere, &[&path, &small]);
    let (base, mut store) = self::elsewhere();
    let names = || {
        let names = fs::read_dir(base.path().join("nix/store")).unwrap();
        names
            .map(|name| name.unwrap().file_name())
            .filter(|name| name != OsStr::new(".links"))
            .count()
    };
    // In the archive, right behind it, in what is said of it, and in the object that follows.
    let behind = 8 + usize::try_from(info(&elsewhere.metadata(), &path).nar_size).unwrap();
    for end in [
        1 << 20,
        2 << 20,
        behind - 1,
        behind,
        behind + 12,
        behind + 40,
        stream.len() - 300,
        stream.len() - 8,
    ] {
        store.import(&mut &stream[..end]).unwrap_err();
        assert_eq!(names(), 0, "cut at {end}");
    }
    assert_eq!(
        outcomes(&store.import(&mut &stream[..]).unwrap()),
        [Outcome::Stored; 2]
    );
    let again = store.import(&mut &stream[..]).unwrap();
    assert_eq!(outcomes(&again), [Outcome::AlreadyValid(Layer::Upper); 2]);
    assert_eq!(names(), 2);
}

fn an_object_that_was_changed_is_not_exported() {
    let (base, mut store) = elsewhere();
    let path = add_tree(&mut store, "tree", &[("a", "1")]);
    let file = base.path().join("nix/store").join(path.base_name()).join("a");
    // Root may.
    fs::write(file, "2").unwrap();
    let mut stream = Vec::new();
    let error = view(&store)
        .export(std::slice::from_ref(&path), &mut stream, &Watch::default())
        .unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    let (_other, mut other) = elsewhere();
    other.import(&mut &stream[..]).unwrap_err();
    assert_eq!(
        other.metadata().count().unwrap(),
        0,
        "what was written is no stream"
    );
    // What is not valid is noticed before anything is written.
    let unknown = StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-unknown").unwrap();
    let mut stream = Vec::new();
    view(&store)
        .export(&[path, unknown], &mut stream, &Watch::default())
        .unwrap_err();
    assert_eq!(stream, []);
}

fn references_that_are_only_below_are_copied() {
    let (_base, elsewhere, [library, program, _]) = three();
    let stage = Stage::over(|lower| drop(lower.import(&mut &exported(&elsewhere, &[&library])[..]).unwrap()));
    let mut store = stage.open();
    store.import(&mut &exported(&elsewhere, &[&program])[..]).unwrap();
    assert_eq!(
        store.upper_metadata().count().unwrap(),
        2,
        "the row of the library came up"
    );
    assert_eq!(stage.upper_names(), [program.base_name()], "its object did not");
}

/// Writes a stream of that many objects, some of which refer to others, for a child to import.
fn write_stream(stage: &Stage, objects: usize) {
    let (_base, mut elsewhere) = elsewhere();
    let mut paths: Vec<StorePath> = Vec::new();
    for number in 0..objects {
        let references: Vec<&StorePath> = paths.last().filter(|_| number % 3 != 0).into_iter().collect();
        let path = add_text(&mut elsewhere, &format!("object-{number}"), "text", &references);
        paths.push(path);
    }
    let paths: Vec<&StorePath> = paths.iter().collect();
    fs::write(stage.path("stream"), exported(&elsewhere, &paths)).unwrap();
}

fn trace_of(objects: usize) -> Option<Vec<String>> {
    let stage = Stage::over(|_| {});
    write_stream(&stage, objects);
    // The database is there already: making one has syncs of its own.
    drop(stage.open());
    let trace = traced(&stage, "import", &[])?;
    assert_eq!(stage.open().upper_metadata().count().unwrap(), objects as u64);
    Some(trace)
}

fn needs_strace() {
    assert!(
        std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
        "strace is not installed"
    );
}

fn syncs_and_transactions_are_those_of_a_batch() {
    let (Some(few), Some(many)) = (trace_of(10), trace_of(300)) else {
        return needs_strace();
    };
    let syncs = |trace: &[String]| {
        trace
            .iter()
            .filter(|line| line.contains("sync(") || line.contains("syncfs("))
            .count()
    };
    assert_eq!(syncs(&few), syncs(&many), "{few:#?}");
    // Objects, names and rows, and what SQLite does when the database is closed.
    assert!((3..=7).contains(&syncs(&many)), "{}", syncs(&many));
    let renames = |trace: &[String]| trace.iter().filter(|line| line.contains("renameat")).count();
    assert_eq!((renames(&few), renames(&many)), (10, 300));
}

fn objects_reach_the_disk_before_their_rows() {
    let Some(trace) = trace_of(3) else {
        return needs_strace();
    };
    let first = |what: &str, line: &dyn Fn(&str) -> bool| {
        let place = trace.iter().position(|text| line(text));
        place.unwrap_or_else(|| panic!("{what} in {trace:#?}"))
    };
    let last_move = trace.iter().rposition(|line| line.contains("renameat")).unwrap();
    let objects = first("the objects", &|line| line.contains("syncfs("));
    let moved = first("the moves", &|line| line.contains("renameat"));
    let names = first("the names", &|line| {
        line.contains("fsync(") && line.contains("nix/store>")
    });
    let rows = first("the rows", &|line| {
        line.contains("fdatasync(") && line.contains("-wal>")
    });
    let unlocked = first("the locks", &|line| {
        line.contains("unlinkat") && line.contains(".lock")
    });
    assert!(
        objects < moved && last_move < names && names < rows && rows < unlocked,
        "{trace:#?}"
    );
}

/// Also what is valid already: a collector must not take it between the question and its use.
fn what_arrives_is_protected_with_what_it_needs() {
    let (_base, from, [library, program, lone]) = three();
    let base = tempfile::tempdir().unwrap();
    let import = |paths: &[&StorePath]| {
        let mut store = open_local(base.path(), OpenOptions::default());
        store.import(&mut &exported(&from, paths)[..]).unwrap();
        let files = fs::read_dir(base.path().join("nix/var/nix/temproots")).unwrap();
        let roots = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        roots.collect::<String>()
    };
    import(&[&library, &lone]);
    let roots = import(&[&program, &lone]);
    for path in [&library, &program, &lone] {
        assert!(roots.contains(path.base_name()), "{path} in {roots:?}");
    }
    // And the name under which the new one was made; the other one was not made again.
    assert_eq!(roots.matches("-superpose-tmp").count(), 1, "{roots:?}");
}
