// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that come one after the other in one stream, contents of unknown length, and what is recorded besides.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;

use superpose_overlay::metadata::{MetadataSource, PathInfo, Realisation, RealisationKey, RealisationKind};
use superpose_overlay::store_path::{ContentMethod, Hash, HashAlgorithm, Name, Signature, StorePath};
use superpose_overlay::{
    AddOptions, Error, Layer, ObjectStream, OpenOptions, Outcome, SignatureCheck, Source,
};

use crate::arriving::{archive, key};
use crate::importing::{elsewhere, info, open_local, outcomes};
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "uploading::a_stream_over_what_lies_below_writes_only_what_is_new",
        a_stream_over_what_lies_below_writes_only_what_is_new,
    ),
    (
        "uploading::signatures_of_lower_paths_stay_above",
        signatures_of_lower_paths_stay_above,
    ),
];

pub(crate) const LOCAL_TRIALS: &[Named] = &[
    (
        "uploading::objects_are_added_in_the_order_of_the_stream",
        objects_are_added_in_the_order_of_the_stream,
    ),
    (
        "uploading::with_little_memory_more_goes_to_the_disk_at_once",
        with_little_memory_more_goes_to_the_disk_at_once,
    ),
    (
        "uploading::a_stream_that_fails_leaves_nothing_of_its_batch",
        a_stream_that_fails_leaves_nothing_of_its_batch,
    ),
    (
        "uploading::who_vouches_is_asked_before_anything_is_read",
        who_vouches_is_asked_before_anything_is_read,
    ),
    (
        "uploading::a_batch_ends_when_much_is_known_of_it",
        a_batch_ends_when_much_is_known_of_it,
    ),
    (
        "uploading::a_path_gets_no_more_signatures_than_it_may_have",
        a_path_gets_no_more_signatures_than_it_may_have,
    ),
    (
        "uploading::contents_of_unknown_length_get_the_path_of_the_file",
        contents_of_unknown_length_get_the_path_of_the_file,
    ),
    (
        "uploading::a_store_without_the_table_takes_no_realisations",
        a_store_without_the_table_takes_no_realisations,
    ),
];

/// A stream of objects, each with its archive.
struct Objects {
    left: Vec<(PathInfo, Vec<u8>)>,
    current: Cursor<Vec<u8>>,
    /// How many objects each batch had.
    batches: Vec<usize>,
}

impl Objects {
    fn new(objects: &[(PathInfo, Vec<u8>)]) -> Self {
        Objects {
            left: objects.iter().rev().cloned().collect(),
            current: Cursor::default(),
            batches: Vec::new(),
        }
    }

    fn is_untouched(&self) -> bool {
        self.current.position() == 0
    }
}

impl Read for Objects {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.current.read(buffer)
    }
}

impl ObjectStream for Objects {
    fn next_object(&mut self) -> io::Result<Option<PathInfo>> {
        Ok(self.left.pop().map(|(info, nar)| {
            self.current = Cursor::new(nar);
            *self.batches.last_mut().unwrap() += 1;
            info
        }))
    }

    fn begin_batch(&mut self) {
        self.batches.push(0);
    }
}

/// A small object, a large one that refers to it, and a small one that refers to that.
fn three() -> [(PathInfo, Vec<u8>); 3] {
    let (_base, mut store) = elsewhere();
    let first = add_text(&mut store, "first", "1", &[]);
    let large = add_text(&mut store, "large", &"x".repeat(3 << 20), &[&first]);
    let last = add_text(&mut store, "last", "3", &[&large]);
    [first, large, last].map(|path| (info(&store.metadata(), &path), archive(&store, &path)))
}

fn names(base: &Path) -> usize {
    let names = fs::read_dir(base.join("nix/store")).unwrap();
    names
        .map(|name| name.unwrap().file_name())
        .filter(|name| name != OsStr::new(".links"))
        .count()
}

fn objects_are_added_in_the_order_of_the_stream() {
    let objects = three();
    let (base, mut store) = elsewhere();
    let mut add = |objects: &[(PathInfo, Vec<u8>)]| {
        store
            .add_stream(&mut Objects::new(objects), SignatureCheck::Required)
            .unwrap()
    };
    assert_eq!(outcomes(&add(&objects[..2])), [Outcome::Stored; 2]);
    // The large one is valid now, and read no more than it has to be.
    let valid = Outcome::AlreadyValid(Layer::Upper);
    let imported = add(&objects);
    assert_eq!(outcomes(&imported), [valid, valid, Outcome::Stored]);
    assert!(
        imported
            .iter()
            .zip(&objects)
            .all(|(one, (info, _))| one.path == info.path)
    );
    for (expected, nar) in &objects {
        assert_eq!(&info(&store.metadata(), &expected.path), expected);
        assert_eq!(&archive(&store, &expected.path), nar);
    }
    assert_eq!(names(base.path()), 3);
}

fn with_little_memory_more_goes_to_the_disk_at_once() {
    let objects = three();
    let base = tempfile::tempdir().unwrap();
    let mut options = OpenOptions::default();
    // The first fits, and then nothing any more.
    options.arriving_memory = 200;
    let mut store = open_local(base.path(), options);
    let mut add = |wrong: usize| {
        let mut objects = objects.clone();
        if let Some((info, _)) = objects.get_mut(wrong) {
            info.nar_hash = Hash::sha256([7; 32]);
        }
        let result = store.add_stream(&mut Objects::new(&objects), SignatureCheck::Skipped);
        (result, names(base.path()))
    };
    for wrong in 0..3 {
        let (result, left) = add(wrong);
        assert!(matches!(result, Err(Error::HashMismatch { .. })));
        assert_eq!(left, 0);
    }
    let (result, _) = add(usize::MAX);
    assert_eq!(outcomes(&result.unwrap()), [Outcome::Stored; 3]);
}

fn a_stream_that_fails_leaves_nothing_of_its_batch() {
    let objects = three();
    let (base, mut store) = elsewhere();
    let mut refused = |objects: &[(PathInfo, Vec<u8>)]| {
        let error = store
            .add_stream(&mut Objects::new(objects), SignatureCheck::Skipped)
            .unwrap_err();
        assert_eq!(store.metadata().count().unwrap(), 0, "{error}");
        assert_eq!(names(base.path()), 0, "{error}");
        error
    };
    for number in 0..3 {
        let mut wrong = objects.clone();
        wrong[number].0.nar_hash = Hash::sha256([7; 32]);
        assert!(matches!(refused(&wrong), Error::HashMismatch { .. }));
        let mut wrong = objects.clone();
        wrong[number].0.nar_size -= 8;
        assert!(matches!(refused(&wrong), Error::CannotAdd { .. }));
        let mut wrong = objects.clone();
        let half = wrong[number].1.len() / 2;
        wrong[number].1.truncate(half);
        assert!(matches!(refused(&wrong), Error::CannotAdd { .. }));
    }
    // What is referred to does not come.
    refused(&objects[1..]);
}

fn who_vouches_is_asked_before_anything_is_read() {
    let (mut unsigned, nar) = three()[1].clone();
    unsigned.content_address = None;
    unsigned.references.clear();
    let (_base, mut store) = elsewhere();
    let mut stream = Objects::new(&[(unsigned.clone(), nar.clone())]);
    let error = store
        .add_stream(&mut stream, SignatureCheck::Required)
        .unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert!(stream.is_untouched());
    store
        .add_stream(
            &mut Objects::new(&[(unsigned.clone(), nar)]),
            SignatureCheck::Skipped,
        )
        .unwrap();
    assert!(is_valid(&store.metadata(), &unsigned.path));
}

fn a_batch_ends_when_much_is_known_of_it() {
    let objects = three();
    let (_base, mut store) = elsewhere();
    let mut stream = Objects::new(&objects);
    store.add_stream(&mut stream, SignatureCheck::Required).unwrap();
    assert_eq!(stream.batches, [3]);
    // Each with five megabytes of signatures.
    let many = objects.map(|(mut info, nar)| {
        info.signatures = (1000..2000)
            .map(|number| {
                let text = format!("key-{number}:{}", "A".repeat(5000));
                Signature::parse(text.as_bytes()).unwrap()
            })
            .collect();
        (info, nar)
    });
    let many: Vec<_> = many.iter().cycle().take(9).cloned().collect();
    let mut stream = Objects::new(&many);
    store.add_stream(&mut stream, SignatureCheck::Required).unwrap();
    assert_eq!(stream.batches, [4, 4, 1]);
}

fn a_path_gets_no_more_signatures_than_it_may_have() {
    let (_base, mut store) = elsewhere();
    let path = add_text(&mut store, "path", "1", &[]);
    let signatures: Vec<Signature> = (10..16)
        .map(|number| Signature::parse(format!("key-{number}:AAAA").as_bytes()).unwrap())
        .collect();
    store.add_signatures(&path, &signatures[..3], 4).unwrap();
    let error = store.add_signatures(&path, &signatures[2..5], 4).unwrap_err();
    let text = error.to_string();
    for part in [path.base_name(), "at most 4", "found 5"] {
        assert!(text.contains(part), "{text}");
    }
    // None was added, also of those for which there was room.
    assert_eq!(info(&store.metadata(), &path).signatures, signatures[..3]);
    store.add_signatures(&path, &signatures[1..4], 4).unwrap();
    assert_eq!(info(&store.metadata(), &path).signatures, signatures[..4]);
    // What it has it may be given again, however many they are.
    store.add_signatures(&path, &signatures[..4], 1).unwrap();
    store.add_signatures(&path, &signatures[4..], 1).unwrap_err();
}

/// Bytes without an end that anybody knows; after so many of them it fails, or ends.
struct Bytes {
    left: usize,
    fails: bool,
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.fails {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let read = self.left.min(buffer.len());
        buffer[..read].fill(b'x');
        self.left -= read;
        Ok(read)
    }
}

fn contents_of_unknown_length_get_the_path_of_the_file() {
    let (base, mut store) = elsewhere();
    let scratch = tempfile::tempdir().unwrap();
    for (size, method) in [
        (5, ContentMethod::Text),
        (5, ContentMethod::Flat),
        (33 << 20, ContentMethod::Flat),
        (33 << 20, ContentMethod::Nar),
    ] {
        let name = format!("{method:?}-{size}");
        let options = AddOptions::source(Name::new(name.as_bytes()).unwrap())
            .with_method(method, HashAlgorithm::Sha256);
        let before = names(base.path());
        let mut cut = Bytes {
            left: size,
            fails: true,
        };
        store.add(Source::Contents(&mut cut), &options).unwrap_err();
        assert_eq!(names(base.path()), before, "what was cut is gone");
        let mut bytes = Bytes {
            left: size,
            fails: false,
        };
        let added = store.add(Source::Contents(&mut bytes), &options).unwrap();
        assert_eq!(added.outcome, Outcome::Stored);
        // As it is with a file whose length is known, to the modes and times.
        let file = scratch.path().join(&name);
        fs::write(&file, "x".repeat(size)).unwrap();
        let (other_base, mut other) = elsewhere();
        let expected = other.add(Source::Path(&file), &options).unwrap();
        assert_eq!(added, expected);
        let object = |base: &Path| tree(&base.join("nix/store").join(added.path.base_name()));
        assert_eq!(object(base.path()), object(other_base.path()));
    }
}

fn a_stream_over_what_lies_below_writes_only_what_is_new() {
    let objects = three();
    let stage = Stage::over(|lower| {
        lower
            .add_stream(&mut Objects::new(&objects[..2]), SignatureCheck::Required)
            .unwrap();
    });
    let before = stage.lower_tree();
    let mut store = stage.open();
    let imported = store
        .add_stream(&mut Objects::new(&objects), SignatureCheck::Required)
        .unwrap();
    let below = Outcome::AlreadyValid(Layer::Lower);
    assert_eq!(outcomes(&imported), [below, below, Outcome::Stored]);
    assert_eq!(stage.upper_names(), [objects[2].0.path.base_name()]);
    assert_eq!(stage.lower_tree(), before);
}

fn signatures_of_lower_paths_stay_above() {
    let mut below = None;
    let stage = Stage::over(|lower| below = Some(add_tree(lower, "below", &[("a", "1")])));
    let below = below.unwrap();
    let before = stage.lower_tree();
    let mut store = stage.open();
    let key = key();
    let signature: Signature = key.sign(b"whatever it says");
    store
        .add_signatures(&below, std::slice::from_ref(&signature), 1)
        .unwrap();
    store
        .add_signatures(&below, std::slice::from_ref(&signature), 1)
        .unwrap();
    assert_eq!(
        info(&store.metadata(), &below).signatures,
        std::slice::from_ref(&signature)
    );
    assert_eq!(
        info(&stage.view(), &below).signatures,
        std::slice::from_ref(&signature)
    );
    assert_eq!(stage.lower_tree(), before);
    let nowhere = StorePath::from_base_name(b"00000000000000000000000000000000-nowhere").unwrap();
    store.add_signatures(&nowhere, &[signature], 1).unwrap_err();
}

fn a_store_without_the_table_takes_no_realisations() {
    let (_base, mut store) = elsewhere();
    let output_path = add_text(&mut store, "output", "1", &[]);
    let realisation = Realisation {
        key: RealisationKey {
            kind: RealisationKind::HashModulo,
            derivation: "sha256:0000000000000000000000000000000000000000000000000000000000000000".to_owned(),
            output: "out".to_owned(),
        },
        output_path,
        signatures: Vec::new(),
    };
    let error = store.register_realisations(&[realisation]).unwrap_err();
    assert!(matches!(error, Error::NoRealisations { .. }), "{error}");
}
