// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of which it is known what they are: from archives and from streams.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use superpose_overlay::metadata::{MetadataSource, PathInfo};
use superpose_overlay::nar::{HashingWriter, dump_path};
use superpose_overlay::store_path::{
    ContentAddress, ContentMethod, HashAlgorithm, HashPart, ModuloGeneration, ModuloHasher, Name, References,
    SecretKey, StoreDir, StorePath, StoreReference, TrustedKeys,
};
use superpose_overlay::{
    AddOptions, Error, Imported, Layer, NewObject, ObjectSource, OpenOptions, Outcome, SignatureCheck,
    Source, Store, StoreView, Watch,
};

use crate::crashing::traced;
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve, tree};

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
        "importing::what_is_exported_is_imported",
        what_is_exported_is_imported,
    ),
    (
        "importing::archives_are_compared_with_what_is_known",
        archives_are_compared_with_what_is_known,
    ),
    (
        "importing::content_addresses_are_recomputed",
        content_addresses_are_recomputed,
    ),
    (
        "importing::both_generations_of_self_references_are_known",
        both_generations_of_self_references_are_known,
    ),
    ("importing::signatures_are_asked_for", signatures_are_asked_for),
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

fn archive(store: &Store, path: &StorePath) -> Vec<u8> {
    let mut nar = Vec::new();
    let real = store.layout().settings().real_dir.join(path.base_name());
    dump_path(real, &mut nar).unwrap();
    nar
}

fn object(info: &PathInfo, nar: &[u8]) -> NewObject<'static> {
    NewObject {
        info: info.clone(),
        source: ObjectSource::Nar(Box::new(std::io::Cursor::new(nar.to_vec()))),
    }
}

fn outcomes(imported: &[Imported]) -> Vec<Outcome> {
    imported.iter().map(|one| one.outcome).collect()
}

/// A library, a program that refers to it, and a lone tree, in a store of their own.
fn three() -> (tempfile::TempDir, Store, [StorePath; 3]) {
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
    // In the archive, between the archive and what is said of it, and in the object behind it.
    for end in [
        1 << 20,
        2 << 20,
        (3 << 20) + 400,
        stream.len() - 400,
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

fn archives_are_compared_with_what_is_known() {
    let (_base, elsewhere, [library, ..]) = three();
    let right = info(&elsewhere.metadata(), &library);
    let nar = archive(&elsewhere, &library);
    let (_other, mut store) = self::elsewhere();
    let mut refused = |info: &PathInfo, nar: &[u8]| {
        let error = store
            .add_objects([object(info, nar)], SignatureCheck::Skipped)
            .unwrap_err();
        assert_eq!(store.metadata().count().unwrap(), 0);
        error
    };
    let mut wrong = right.clone();
    wrong.nar_hash = superpose_overlay::store_path::Hash::sha256([7; 32]);
    let error = refused(&wrong, &nar);
    assert!(
        matches!(&error, Error::HashMismatch { what: "hash", expected, .. } if *expected == wrong.nar_hash.to_string())
            || error
                .to_string()
                .contains("hash mismatch importing path '/nix/store/"),
        "{error}"
    );
    wrong = right.clone();
    wrong.nar_size += 8;
    assert!(matches!(refused(&wrong, &nar), Error::SizeMismatch { .. }));
    // A source that goes on beyond what was announced is not read to its end.
    wrong.nar_size = 200;
    let error = refused(&wrong, &nar);
    assert!(matches!(error, Error::CannotAdd { .. }), "{error}");
    for end in [0, 1, 100, nar.len() - 1] {
        assert!(matches!(refused(&right, &nar[..end]), Error::CannotAdd { .. }));
    }
    drop(
        store
            .add_objects([object(&right, &nar)], SignatureCheck::Required)
            .unwrap(),
    );
}

fn content_addresses_are_recomputed() {
    for (method, algorithm) in [
        (ContentMethod::Nar, HashAlgorithm::Sha256),
        (ContentMethod::Nar, HashAlgorithm::Sha1),
        (ContentMethod::Flat, HashAlgorithm::Sha256),
        (ContentMethod::Flat, HashAlgorithm::Md5),
        (ContentMethod::Text, HashAlgorithm::Sha256),
    ] {
        let (_base, mut elsewhere) = elsewhere();
        let mut add = |text: &str| {
            let options = AddOptions::source(Name::new(b"abc").unwrap()).with_method(method, algorithm);
            elsewhere
                .add(Source::Bytes(text.as_bytes()), &options)
                .unwrap()
                .path
        };
        let (one, other) = (add("abc"), add("abd"));
        let (right, nar) = (info(&elsewhere.metadata(), &one), archive(&elsewhere, &one));
        // The hash of the archive is right; the content is another one than the path follows from.
        let mut wrong = info(&elsewhere.metadata(), &other);
        wrong.nar_hash = right.nar_hash;
        let (_other, mut store) = self::elsewhere();
        let error = store
            .add_objects([object(&wrong, &nar)], SignatureCheck::Required)
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::HashMismatch {
                    what: "content address",
                    ..
                }
            ),
            "{method:?} {algorithm}: {error}"
        );
        assert_eq!(store.metadata().count().unwrap(), 0);
        store
            .add_objects([object(&right, &nar)], SignatureCheck::Required)
            .unwrap();
        let mut found = info(&store.metadata(), &one);
        found.registration_time = right.registration_time;
        assert_eq!(found, right);
        // A directory has no bare contents.
        if method != ContentMethod::Nar {
            let directory = add_tree(&mut elsewhere, "abc", &[("a", "1")]);
            let nar = archive(&elsewhere, &directory);
            wrong.nar_hash = info(&elsewhere.metadata(), &directory).nar_hash;
            wrong.nar_size = nar.len() as u64;
            let error = store
                .add_objects([object(&wrong, &nar)], SignatureCheck::Required)
                .unwrap_err();
            assert!(error.to_string().contains("found no regular file"), "{error}");
        }
    }
}

/// An object that refers to itself, as that generation of Nix makes it.
fn self_referential(generation: ModuloGeneration) -> (PathInfo, Vec<u8>) {
    let dir = StoreDir::default();
    let name = Name::new(b"self").unwrap();
    let nar = |path: &StorePath| {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("self"), format!("me={}\n", dir.display(path))).unwrap();
        let mut nar = HashingWriter::new(Vec::new());
        dump_path(scratch.path().join("self"), &mut nar).unwrap();
        nar.finish()
    };
    let nobody = StorePath::from_parts(HashPart::new([0; 20]), &name);
    let mut hasher = ModuloHasher::new(HashAlgorithm::Sha256, nobody.hash_part(), generation);
    hasher.update(&nar(&nobody).0);
    let address = ContentAddress {
        method: ContentMethod::Nar,
        hash: hasher.finish(),
    };
    let references = References {
        itself: true,
        ..References::default()
    };
    let path = dir.content_path(&name, &address, &references).unwrap();
    let (nar, found) = nar(&path);
    let mut info = PathInfo::new(path.clone(), found.hash, found.size);
    info.references = vec![path];
    info.content_address = Some(address);
    (info, nar)
}

fn both_generations_of_self_references_are_known() {
    let (old, old_nar) = self_referential(ModuloGeneration::Plain);
    // What Nix 2.34 makes of it.
    assert_eq!(old.path.base_name(), "cpv036s16plfxg66s29rvfz3bn0cd63k-self");
    let (new, new_nar) = self_referential(ModuloGeneration::WithOffsets);
    assert_ne!(old.path, new.path);
    let (_base, mut store) = elsewhere();
    let objects = [object(&old, &old_nar), object(&new, &new_nar)];
    let imported = store.add_objects(objects, SignatureCheck::Required).unwrap();
    assert_eq!(outcomes(&imported), [Outcome::Stored; 2]);
    // Neither is taken for the other.
    let (_base, mut store) = elsewhere();
    let mut wrong = new.clone();
    (wrong.nar_hash, wrong.nar_size) = (old.nar_hash, old.nar_size);
    let error = store
        .add_objects([object(&wrong, &old_nar)], SignatureCheck::Required)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::HashMismatch {
                what: "content address",
                ..
            }
        ),
        "{error}"
    );
}

/// A key of nobody, for tests.
pub(crate) fn key() -> SecretKey {
    SecretKey::parse(
        b"test-1:9DGFYRm0owKiMqsAdOwykae8XJzefyUn75OUb4uovj8s0887pONLSXKVTs+L+KvwcS8Dar8ZBU4Jw6nSZAuQUg==",
    )
    .unwrap()
}

pub(crate) fn trusting() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.trusted_keys = TrustedKeys::from_iter([key().public()]);
    options
}

fn signatures_are_asked_for() {
    let (_base, elsewhere, [library, ..]) = three();
    let nar = archive(&elsewhere, &library);
    let addressed = info(&elsewhere.metadata(), &library);
    let mut unsigned = addressed.clone();
    unsigned.content_address = None;
    let mut signed = unsigned.clone();
    let text = StoreDir::default().fingerprint(
        &signed.path,
        &signed.nar_hash,
        signed.nar_size,
        &signed.references,
    );
    signed.signatures = vec![key().sign(text.as_bytes())];

    let check =
        |info: &PathInfo, options: OpenOptions, setting: &[u8], check: SignatureCheck, is_added: bool| {
            let base = tempfile::tempdir().unwrap();
            let reference = StoreReference::local(base.path()).with_param("require-sigs", setting);
            let mut store = Store::open(resolve(&reference), options).unwrap();
            let added = store.add_objects([object(info, &nar)], check);
            match added {
                Ok(_) => assert!(is_added, "{info:?}"),
                Err(Error::Untrusted { .. }) => assert!(!is_added, "{info:?}"),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(is_valid(&store.metadata(), &info.path), is_added);
            let there = base.path().join("nix/store").join(info.path.base_name());
            assert_eq!(there.exists(), is_added);
            if is_added {
                let found = self::info(&store.metadata(), &info.path);
                assert_eq!(
                    (found.signatures, found.ultimate),
                    (info.signatures.clone(), false)
                );
            }
        };
    let default = OpenOptions::default;
    check(&addressed, default(), b"true", SignatureCheck::Required, true);
    check(&unsigned, default(), b"true", SignatureCheck::Required, false);
    check(&unsigned, default(), b"false", SignatureCheck::Required, true);
    check(&unsigned, default(), b"true", SignatureCheck::Skipped, true);
    check(&signed, default(), b"true", SignatureCheck::Required, false);
    check(&signed, trusting(), b"true", SignatureCheck::Required, true);
    // That it was built there is no reason to trust it here.
    let mut built = unsigned.clone();
    built.ultimate = true;
    check(&built, trusting(), b"true", SignatureCheck::Required, false);
    check(&built, trusting(), b"false", SignatureCheck::Required, true);
    // The signature is over something else.
    let mut other = signed.clone();
    other.references = vec![other.path.clone()];
    check(&other, trusting(), b"true", SignatureCheck::Required, false);
    // A content address from which the path does not follow vouches for nothing, nor does one that is not recomputed.
    let mut claimed = addressed.clone();
    claimed.references = vec![claimed.path.clone()];
    check(&claimed, default(), b"true", SignatureCheck::Required, false);
    let address = ContentAddress {
        method: ContentMethod::Git,
        hash: superpose_overlay::store_path::hash_bytes(HashAlgorithm::Sha1, b"x"),
    };
    let name = Name::new(library.name().as_bytes()).unwrap();
    let mut git = unsigned;
    git.path = StoreDir::default()
        .content_path(&name, &address, &References::default())
        .unwrap();
    git.content_address = Some(address);
    check(&git, default(), b"true", SignatureCheck::Required, false);
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
