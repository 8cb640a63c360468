// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives and hashes that Nix 2.34.8 made.

use std::io::Write;

use superpose_nar::{
    HashingWriter, ObjectKind, RestoreOptions, Taps, copy_tree, dump_path, hash_object, restore,
    restore_hashed,
};
use superpose_store_path::{Hash, HashAlgorithm, HashEncoding, hash_bytes};

use crate::files::Scratch;
use crate::model::{Node, archive, directory, executable, file, link, make, parse};

fn sha256(hexadecimal: &str) -> Hash {
    Hash::parse_unprefixed(hexadecimal.as_bytes(), HashAlgorithm::Sha256).unwrap()
}

/// Each way of making the archive, or of going through it, gives this size and hash.
fn check(node: &Node, size: u64, hexadecimal: &str, nix32: &str) {
    let scratch = Scratch::new();
    make(node, &scratch.path("x"));
    let expected = sha256(hexadecimal);
    assert_eq!(expected.render_bare(HashEncoding::Nix32), nix32);

    let bytes = scratch.dump("x");
    assert_eq!(
        (bytes.len() as u64, hash_bytes(HashAlgorithm::Sha256, &bytes)),
        (size, expected)
    );
    assert_eq!(bytes, archive(node));
    assert_eq!(parse(&bytes[..]).unwrap(), (node.clone(), size));

    let mut hashing = HashingWriter::new(std::io::sink());
    dump_path(scratch.path("x"), &mut hashing).unwrap();
    let (_, nar) = hashing.finish();
    assert_eq!((nar.size, nar.hash), (size, expected));
    assert_eq!(hash_object(&scratch.directory, "x").unwrap(), nar);

    let options = RestoreOptions::default();
    let tree = restore(&mut &bytes[..], &scratch.directory, "restored", &options).unwrap();
    assert_eq!(tree.nar_size, size);
    let hashed = restore_hashed(
        &mut &bytes[..],
        &scratch.directory,
        "hashed",
        &options,
        Taps::none(),
    )
    .unwrap();
    assert_eq!((hashed.nar, hashed.tree), (nar, tree));
    let from = (&scratch.directory, "x");
    let copied = copy_tree(from, (&scratch.directory, "copied"), &options, Taps::none()).unwrap();
    assert_eq!((copied.nar, copied.tree), (nar, tree));
    for made in ["restored", "hashed", "copied"] {
        assert_eq!(scratch.dump(made), bytes, "{made}");
    }
}

#[test]
fn files() {
    check(
        &file(""),
        112,
        "77ac62e2629d8e45f624589c0c8bf99e24b3a722349bf1e79bc186008534e246",
        "0ip26j2h11n1kgkz36rl4akv694yz65hr72q4kv4b3lxcbi65b3p",
    );
    check(
        &executable(""),
        144,
        "34e00b8592a6ad465851a46a67464e076102fd5106ca6cb33a2f15009d30d590",
        "146m62fh059g7arnrjh6a7yh4q879r36fsm4a5c4dbd6ja2hpq1l",
    );
    check(
        &file("abc"),
        120,
        "11a71b4754d812f4aea20161c533bdaa112ac5c853013e65d3aa9640b5735230",
        "0c2jffsl15masdjkw0akr32jl4daplrwaq81lapg84nqai3ip9qi",
    );
    check(
        &executable("abc"),
        152,
        "04583e14eca2499ffa993852389e3a193aab5da20abc3b625a75d3f9876dc99e",
        "17n9dn3zklvmb9i3pg0al9fsnfhr7ag3hliqk7x9yjd2xha3wn04",
    );
}

#[test]
fn links_and_directories() {
    check(
        &link("f1"),
        120,
        "ea72774162b48e6cc8fadb76e18db66a80ff797315838d5c5e26cbac19fa8d4f",
        "0kwdz8csrjr6brf8v0qmfdwzz03ans6y2xnvzb46r3mlc90pfwpa",
    );
    check(
        &Node::Directory([].into()),
        96,
        "a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a",
        "0sjjj9z1dhilhpc8pq4154czrb79z9cm044jvn75kxcjv6v5l2m5",
    );
    check(
        &directory([
            ("f1", file("abc")),
            ("lnk", link("f1")),
            ("sub", directory([("f2", executable("abc"))])),
        ]),
        872,
        "0abd056feea3dbbaa67379d6c2130ac769b30efe0c46aaf0b130856b56bb2538",
        "0f15pdb6p19hn7qalihczq7b6sf7189w5mkrffkbmnx3xrphbg8a",
    );
}

#[test]
fn the_bytes_of_a_small_file() {
    let expected: &[&[u8]] = &[
        b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0",
        b"\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0",
        b"\x04\0\0\0\0\0\0\0type\0\0\0\0",
        b"\x07\0\0\0\0\0\0\0regular\0",
        b"\x08\0\0\0\0\0\0\0contents",
        b"\x06\0\0\0\0\0\0\0hello\n\0\0",
        b"\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0",
    ];
    let scratch = Scratch::new();
    make(&file("hello\n"), &scratch.path("x"));
    let bytes = scratch.dump("x");
    assert_eq!(bytes, expected.concat());
    assert_eq!(bytes.len(), 120);
}

#[test]
fn the_hash_folds_to_the_store_path() {
    let nar = sha256("63a20a62c36d7282bfb02ddaf756bcf2ce33f0ef1458a2e8f5a7bf46095fb7bb");
    let folded = Hash::new(HashAlgorithm::Sha1, &nar.compress()).unwrap();
    assert_eq!(
        folded.render_bare(HashEncoding::Base16),
        "77faa88a36cacdc4b6ef9a61f756bcf2ce33f0ef"
    );
}

#[test]
fn the_archive_of_a_self_reference() {
    // A floating output named `self` holds its own path; its archive had 168 bytes and the hash part at offset 110.
    let contents = b"me=/nix/store/cpv036s16plfxg66s29rvfz3bn0cd63k-self\n";
    let bytes = archive(&file(*contents));
    assert_eq!(bytes.len(), 168);
    assert_eq!(
        bytes
            .windows(32)
            .position(|w| w == b"cpv036s16plfxg66s29rvfz3bn0cd63k"),
        Some(110)
    );
    let part = superpose_store_path::HashPart::parse(b"cpv036s16plfxg66s29rvfz3bn0cd63k").unwrap();
    let mut scanner = superpose_nar::ReferenceScanner::new([part]);
    scanner.write_all(&bytes).unwrap();
    assert!(scanner.has_found(part));
}

#[test]
fn an_object_tells_what_it_is() {
    for (node, kind) in [
        (file("x"), ObjectKind::File),
        (link("x"), ObjectKind::Symlink),
        (
            directory([("f", file("x")), ("l", link("y"))]),
            ObjectKind::Directory,
        ),
    ] {
        let scratch = Scratch::new();
        make(&node, &scratch.path("x"));
        let tree = superpose_nar::dump(&scratch.directory, "x", &mut std::io::sink()).unwrap();
        assert_eq!(tree.kind, kind);
        if kind == ObjectKind::Directory {
            assert_eq!(
                (tree.files, tree.symlinks, tree.directories, tree.content_bytes),
                (1, 1, 1, 1)
            );
        }
    }
}
