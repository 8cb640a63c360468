// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random trees, there and back.

use std::io::Write;

use proptest::prelude::*;
use superpose_nar::{HashingReader, RestoreOptions, Taps, copy_tree, hash_object, restore, restore_hashed};
use superpose_store_path::{HashAlgorithm, Hasher};

use crate::files::{Scratch, assert_canonical, nar_hash};
use crate::model::{Node, archive, make, parse, trees};

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trees_survive(node in trees(false)) {
        let scratch = Scratch::new();
        let expected = archive(&node);
        let nar = nar_hash(&expected);
        make(&node, &scratch.path("x"));
        prop_assert!(scratch.dump("x") == expected);
        prop_assert_eq!(hash_object(&scratch.directory, "x").unwrap(), nar);
        let (parsed, size) = parse(&expected[..]).unwrap();
        prop_assert!(parsed == node);
        prop_assert_eq!(size, expected.len() as u64);

        let options = RestoreOptions::default();
        restore(&mut &expected[..], &scratch.directory, "restored", &options).unwrap();
        let (mut tapped, mut contents) = (Vec::new(), Vec::new());
        let taps = Taps::none().archive(&mut tapped).contents(&mut contents);
        let to = (&scratch.directory, "copied");
        let copied = copy_tree((&scratch.directory, "x"), to, &options, taps).unwrap();
        prop_assert_eq!(copied.nar, nar);
        prop_assert!(tapped == expected);
        let alone = match &node {
            Node::File { contents, .. } => &contents[..],
            Node::Symlink(_) | Node::Directory(_) => &[],
        };
        prop_assert!(contents == alone);
        for name in ["restored", "copied"] {
            assert_canonical(&scratch.path(name));
            prop_assert!(scratch.dump(name) == expected);
        }
    }

    /// Whatever the pieces in which the source gives the archive, no byte behind it is taken.
    #[test]
    fn nothing_behind_the_archive_is_read(node in trees(false), piece in 1..200_usize, more in 0..100_usize) {
        let scratch = Scratch::new();
        let expected = archive(&node);
        let mut stream = expected.clone();
        stream.resize(stream.len() + more, b'x');
        let mut source = HashingReader::new(Pieces { left: &stream, piece });
        let options = RestoreOptions::default();
        let taps = Taps::none();
        let hashed = restore_hashed(&mut source, &scratch.directory, "x", &options, taps).unwrap();
        let (rest, nar) = source.finish();
        prop_assert_eq!(rest.left.len(), more);
        prop_assert_eq!(nar, nar_hash(&expected));
        prop_assert_eq!(nar, hashed.nar);
        prop_assert!(scratch.dump("x") == expected);
    }

    /// An archive with some bytes changed is refused, or is the canonical archive of what was read from it.
    #[test]
    fn what_is_accepted_is_canonical(
        node in trees(false),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = archive(&node);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok((node, size)) = parse(&bytes[..]) {
            let size = usize::try_from(size).unwrap();
            prop_assert!(archive(&node) == bytes[..size]);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_archive(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse(&bytes[..]).is_err());
        let behind_the_magic = [crate::model::string("nix-archive-1"), bytes].concat();
        prop_assert!(parse(&behind_the_magic[..]).is_err());
    }

    /// Sequences of real keywords get further than bytes do.
    #[test]
    fn arbitrary_keywords_do_no_harm(words in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..24)) {
        let bytes = crate::model::strings(["nix-archive-1"].into_iter().chain(words));
        if let Ok((node, size)) = parse(&bytes[..]) {
            prop_assert!(archive(&node) == bytes[..usize::try_from(size).unwrap()]);
        }
    }
}

const WORDS: [&str; 14] = [
    "(",
    ")",
    "type",
    "regular",
    "symlink",
    "directory",
    "executable",
    "",
    "contents",
    "target",
    "entry",
    "name",
    "node",
    "a",
];

/// Gives a few bytes at a time.
struct Pieces<'a> {
    left: &'a [u8],
    piece: usize,
}

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.piece).min(self.left.len());
        let (now, later) = self.left.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.left = later;
        Ok(length)
    }
}

#[test]
fn a_tap_may_hash_with_another_algorithm() {
    let scratch = Scratch::new();
    let contents = vec![b'y'; 3_000_000];
    std::fs::write(scratch.path("x"), &contents).unwrap();
    let mut sha1 = Hasher::new(HashAlgorithm::Sha1);
    let mut flat = Hasher::new(HashAlgorithm::Sha512);
    let taps = Taps::none().archive(&mut sha1).contents(&mut flat);
    let found = superpose_nar::hash_object_with(&scratch.directory, "x", taps).unwrap();
    let bytes = scratch.dump("x");
    assert_eq!(found.nar, nar_hash(&bytes));
    let mut expected = Hasher::new(HashAlgorithm::Sha1);
    expected.write_all(&bytes).unwrap();
    assert_eq!(sha1.finish(), expected.finish());
    let mut expected = Hasher::new(HashAlgorithm::Sha512);
    expected.write_all(&contents).unwrap();
    assert_eq!(flat.finish(), expected.finish());
}
