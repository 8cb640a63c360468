// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding objects, to a local store and to an overlay store.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use superpose_overlay::store_path::{ContentMethod, HashAlgorithm, Name, StoreReference};
use superpose_overlay::{AddOptions, Layer, OpenOptions, Outcome, Source, Store};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve};

pub(crate) const TRIALS: &[Named] = &[
    (
        "adding::what_is_valid_below_is_not_written_again",
        what_is_valid_below_is_not_written_again,
    ),
    (
        "adding::an_object_lands_in_the_upper_layer",
        an_object_lands_in_the_upper_layer,
    ),
    (
        "adding::junk_below_does_not_shine_through",
        junk_below_does_not_shine_through,
    ),
    (
        "adding::a_large_duplicate_leaves_nothing",
        a_large_duplicate_leaves_nothing,
    ),
    (
        "adding::a_lock_file_below_gets_no_whiteout",
        a_lock_file_below_gets_no_whiteout,
    ),
];

pub(crate) const LOCAL_TRIALS: &[Named] = &[
    ("adding::paths_are_those_of_nix", paths_are_those_of_nix),
    (
        "adding::metadata_on_disk_is_canonical",
        metadata_on_disk_is_canonical,
    ),
    (
        "adding::large_objects_get_the_same_paths",
        large_objects_get_the_same_paths,
    ),
    ("adding::archives_are_checked", archives_are_checked),
    (
        "adding::a_failed_source_leaves_nothing",
        a_failed_source_leaves_nothing,
    ),
];

fn local() -> (tempfile::TempDir, Store) {
    let base = tempfile::tempdir().unwrap();
    let store = Store::open(
        resolve(&StoreReference::local(base.path())),
        OpenOptions::default(),
    )
    .unwrap();
    (base, store)
}

fn options(name: &str, method: ContentMethod, algorithm: HashAlgorithm) -> AddOptions {
    AddOptions::source(Name::new(name.as_bytes()).unwrap()).with_method(method, algorithm)
}

fn paths_are_those_of_nix() {
    let (_base, mut store) = local();
    let cases = [
        (
            "abc",
            ContentMethod::Nar,
            HashAlgorithm::Sha256,
            "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc",
        ),
        (
            "abc",
            ContentMethod::Flat,
            HashAlgorithm::Sha256,
            "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc",
        ),
        (
            "abc",
            ContentMethod::Flat,
            HashAlgorithm::Sha1,
            "4m8jzc77isfnw2l9w1hk7a98zpirgrwv-abc",
        ),
        (
            "abc",
            ContentMethod::Flat,
            HashAlgorithm::Md5,
            "0fmibi09sjy2mxap87y4kibl1n7caidm-abc",
        ),
        (
            "abc",
            ContentMethod::Nar,
            HashAlgorithm::Sha1,
            "rjjvrs6jsa7i9ii7z79qz9wflrwb21lj-abc",
        ),
        (
            "abc",
            ContentMethod::Nar,
            HashAlgorithm::Sha512,
            "lxmglk2bg5jgcc2iznfxj6b2qrx6zpk4-abc",
        ),
        (
            "abc",
            ContentMethod::Text,
            HashAlgorithm::Sha256,
            "26nci8mz5f9aldbsgmalpkj20xyqqd5c-abc",
        ),
        (
            "t.txt",
            ContentMethod::Text,
            HashAlgorithm::Sha256,
            "0g1savw1cf7pji42hasyx0smc4aw15nw-t.txt",
        ),
    ];
    for (name, method, algorithm, expected) in cases {
        let added = store
            .add(Source::Bytes(b"abc"), &options(name, method, algorithm))
            .unwrap();
        assert_eq!(added.path.base_name(), expected);
        assert_eq!(added.outcome, Outcome::Stored);
        let again = store
            .add(Source::Bytes(b"abc"), &options(name, method, algorithm))
            .unwrap();
        assert_eq!(again.outcome, Outcome::AlreadyValid(Layer::Upper));
    }
    let first = store
        .add(
            Source::Bytes(b"abc"),
            &options("t.txt", ContentMethod::Text, HashAlgorithm::Sha256),
        )
        .unwrap()
        .path;
    let second = add_text(
        &mut store,
        "t2.txt",
        &format!("ref /nix/store/{first}"),
        &[&first],
    );
    assert_eq!(second.base_name(), "yk40fqi6fqr6wylxn2daisj3b91gdvqh-t2.txt");
}

fn metadata_on_disk_is_canonical() {
    let (base, mut store) = local();
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("plain"), "1").unwrap();
    fs::write(tree.join("program"), "2").unwrap();
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("plain", tree.join("link")).unwrap();
    let path = store
        .add(
            Source::Path(&tree),
            &options("tree", ContentMethod::Nar, HashAlgorithm::Sha256),
        )
        .unwrap()
        .path;
    let object = base.path().join("nix/store").join(path.base_name());
    for (name, mode) in [
        ("", 0o40555),
        ("plain", 0o100_444),
        ("program", 0o100_555),
        ("link", 0o120_777),
    ] {
        let stat = fs::symlink_metadata(if name.is_empty() {
            object.clone()
        } else {
            object.join(name)
        })
        .unwrap();
        assert_eq!(
            (stat.mode(), stat.mtime(), stat.mtime_nsec()),
            (mode, 1, 0),
            "{name}"
        );
    }
    let rest: Vec<_> = fs::read_dir(base.path().join("nix/store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(rest.len(), 2, "only the object and .links: {rest:?}");
}

/// Beyond the size of the buffer objects go another way, to the same result.
fn large_objects_get_the_same_paths() {
    const SIZE: u64 = (32 << 20) + 12_345;
    let (_base, mut store) = local();
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("large");
    io::copy(
        &mut io::repeat(7).take(SIZE),
        &mut fs::File::create(&file).unwrap(),
    )
    .unwrap();
    let bytes = fs::read(&file).unwrap();
    for (method, algorithm) in [
        (ContentMethod::Nar, HashAlgorithm::Sha1),
        (ContentMethod::Flat, HashAlgorithm::Sha256),
    ] {
        let from_path = store
            .add(Source::Path(&file), &options("large", method, algorithm))
            .unwrap();
        assert_eq!(from_path.outcome, Outcome::Stored);
        let from_bytes = store
            .add(Source::Bytes(&bytes), &options("large", method, algorithm))
            .unwrap();
        assert_eq!(from_bytes.path, from_path.path);
        assert_eq!(from_bytes.outcome, Outcome::AlreadyValid(Layer::Upper));
    }
    let mut archive = Vec::new();
    superpose_overlay::nar::dump_path(&file, &mut archive).unwrap();
    let from_archive = store
        .add(
            Source::Nar(&mut &archive[..]),
            &options("large", ContentMethod::Nar, HashAlgorithm::Sha1),
        )
        .unwrap();
    assert_eq!(from_archive.outcome, Outcome::AlreadyValid(Layer::Upper));
}

fn archives_are_checked() {
    let (base, mut store) = local();
    let mut archive = Vec::new();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("abc"), "abc").unwrap();
    superpose_overlay::nar::dump_path(source.path().join("abc"), &mut archive).unwrap();
    let named = options("abc", ContentMethod::Nar, HashAlgorithm::Sha256);
    for cut in [0, 1, 24, 119] {
        store.add(Source::Nar(&mut &archive[..cut]), &named).unwrap_err();
    }
    assert_eq!(
        fs::read_dir(base.path().join("nix/store")).unwrap().count(),
        1,
        "only .links"
    );
    // What follows the archive in the stream is not part of the object.
    archive.extend_from_slice(b"trailing");
    let added = store.add(Source::Nar(&mut &archive[..]), &named).unwrap();
    assert_eq!(added.path.base_name(), "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc");
}

fn a_failed_source_leaves_nothing() {
    struct Failing(u64);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the source failed"));
            }
            let length = buffer.len().min(usize::try_from(self.0).unwrap());
            buffer[..length].fill(0);
            self.0 -= length as u64;
            Ok(length)
        }
    }
    let (base, mut store) = local();
    let mut archive = superpose_overlay::nar::FileArchive::new(Failing(40 << 20), 50 << 20);
    store
        .add(
            Source::Nar(&mut archive),
            &options("x", ContentMethod::Nar, HashAlgorithm::Sha256),
        )
        .unwrap_err();
    assert_eq!(
        fs::read_dir(base.path().join("nix/store")).unwrap().count(),
        1,
        "only .links"
    );
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
}

fn what_is_valid_below_is_not_written_again() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_tree(lower, "tree", &[("a", "1"), ("d/b", "2")])));
    let path = path.unwrap();
    let before = stage.lower_tree();
    let mut store = stage.open();
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("a"), "1").unwrap();
    fs::write(tree.join("d/b"), "2").unwrap();
    let added = store
        .add(
            Source::Path(&tree),
            &options("tree", ContentMethod::Nar, HashAlgorithm::Sha256),
        )
        .unwrap();
    assert_eq!(
        (added.path, added.outcome),
        (path, Outcome::AlreadyValid(Layer::Lower))
    );
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn an_object_lands_in_the_upper_layer() {
    let mut below = None;
    let stage = Stage::over(|lower| below = Some(add_text(lower, "below", "1", &[])));
    let below = below.unwrap();
    let before = stage.lower_tree();
    let mut store = stage.open();
    let above = add_text(&mut store, "above", "2", &[&below]);
    assert_eq!(stage.upper_names(), [above.base_name()]);
    assert_eq!(
        store.locate(&[above.clone(), below.clone()]).unwrap(),
        [Layer::Upper, Layer::Lower]
    );
    // The reference that was only below got its row in the same transaction.
    assert!(is_valid(store.upper_metadata(), &below));
    assert_eq!(
        fs::read_to_string(stage.merged_dir().join(above.base_name())).unwrap(),
        "2"
    );
    assert_eq!(stage.lower_tree(), before);
}

/// An unregistered directory below, say of a build that was killed, must not become part of our object.
fn junk_below_does_not_shine_through() {
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("ours"), "1").unwrap();
    let probe = tempfile::tempdir().unwrap();
    let named = options("tree", ContentMethod::Nar, HashAlgorithm::Sha256);
    let path = Store::open(
        resolve(&StoreReference::local(probe.path())),
        OpenOptions::default(),
    )
    .unwrap()
    .add(Source::Path(&tree), &named)
    .unwrap()
    .path;
    let stage = Stage::unmounted(|_| {});
    let junk = stage.lower_dir().join(path.base_name());
    fs::create_dir(&junk).unwrap();
    fs::write(junk.join("theirs"), "2").unwrap();
    stage.mount();
    let before = stage.lower_tree();
    let mut store = stage.open();
    let added = store.add(Source::Path(&tree), &named).unwrap();
    assert_eq!(added.path, path);
    let merged = stage.merged_dir().join(path.base_name());
    let names: Vec<_> = fs::read_dir(&merged)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["ours"]);
    drop(store);
    assert_eq!(stage.lower_tree(), before);
}

fn a_large_duplicate_leaves_nothing() {
    const SIZE: u64 = (32 << 20) + 1;
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("large");
    io::copy(
        &mut io::repeat(3).take(SIZE),
        &mut fs::File::create(&file).unwrap(),
    )
    .unwrap();
    let named = options("large", ContentMethod::Nar, HashAlgorithm::Sha256);
    let stage = Stage::over(|lower| drop(lower.add(Source::Path(&file), &named).unwrap()));
    let mut store = stage.open();
    let added = store.add(Source::Path(&file), &named).unwrap();
    assert_eq!(added.outcome, Outcome::AlreadyValid(Layer::Lower));
    assert_eq!(stage.upper_names(), Vec::<String>::new());
}

fn a_lock_file_below_gets_no_whiteout() {
    let name = "26nci8mz5f9aldbsgmalpkj20xyqqd5c-abc";
    let stage = Stage::unmounted(|_| {});
    fs::write(stage.lower_dir().join(format!("{name}.lock")), "").unwrap();
    stage.mount();
    let mut store = stage.open();
    assert_eq!(add_text(&mut store, "abc", "abc", &[]).base_name(), name);
    let lock = stage.merged_dir().join(format!("{name}.lock"));
    assert!(lock.exists(), "the lower entry still shows");
    assert_eq!(fs::metadata(lock).unwrap().len(), 0);
}
