// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies, and the hashes that come with them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;

use superpose_nar::{
    Error, ObjectKind, ReferenceScanner, RestoreOptions, SyncPolicy, Taps, copy_tree, hash_object,
};
use superpose_store_path::HashPart;

use crate::files::{Scratch, assert_canonical, nar_hash};
use crate::model::{archive, directory, executable, file, link, make};

#[test]
fn a_copy_has_canonical_metadata_whatever_the_source_has() {
    let scratch = Scratch::new();
    let tree = directory([
        ("e", executable("x")),
        ("f", file("x")),
        ("l", link("f")),
        ("s", directory([("g", file(""))])),
    ]);
    make(&tree, &scratch.path("x"));
    fs::set_permissions(scratch.path("x/e"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(scratch.path("x/s"), fs::Permissions::from_mode(0o2777)).unwrap();
    let options = RestoreOptions::default().sync(SyncPolicy::WholeTree);
    let copied = copy_tree(
        (&scratch.directory, "x"),
        (&scratch.directory, "copy"),
        &options,
        Taps::none(),
    )
    .unwrap();
    assert_eq!(copied.nar, nar_hash(&archive(&tree)));
    assert_eq!(copied.tree.kind, ObjectKind::Directory);
    assert_eq!(
        (copied.tree.files, copied.tree.symlinks, copied.tree.directories),
        (3, 1, 2)
    );
    assert_canonical(&scratch.path("copy"));
    assert_eq!(hash_object(&scratch.directory, "copy").unwrap(), copied.nar);
}

#[test]
fn many_buffers_go_through_in_order() {
    let scratch = Scratch::new();
    let contents: Vec<u8> = (0..5_000_011_u32)
        .flat_map(|number| (number / 7).to_le_bytes())
        .collect();
    let tree = directory([
        ("a", file(contents.clone())),
        (
            "b",
            directory((0..3000).map(|number| (format!("{number:04}"), file(format!("{number}").repeat(50))))),
        ),
        ("c", file(contents)),
    ]);
    make(&tree, &scratch.path("x"));
    let (mut tap, mut nothing) = (Vec::new(), Vec::new());
    let taps = Taps::none().archive(&mut tap).contents(&mut nothing);
    let to = (&scratch.directory, "copy");
    let copied = copy_tree((&scratch.directory, "x"), to, &RestoreOptions::default(), taps).unwrap();
    let expected = archive(&tree);
    assert!(tap == expected, "the tap received another archive");
    assert!(nothing.is_empty());
    assert_eq!(copied.nar, nar_hash(&expected));
    assert!(scratch.dump("copy") == expected, "the copy has another archive");
}

#[test]
fn references_are_found_in_passing() {
    let parts = [
        "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp",
        "0y839a054fcnhjcd2w1pb6a4k4fl38iw",
        "1b8m03r63zqhnjf7l5wnldhh7c134ap5",
    ]
    .map(|text| HashPart::parse(text.as_bytes()).unwrap());
    let scratch = Scratch::new();
    let tree = directory([
        ("link", link(format!("/nix/store/{}-x", parts[0]))),
        (&format!("in-a-name-{}", parts[1]), file("")),
    ]);
    make(&tree, &scratch.path("x"));
    let mut scanner = ReferenceScanner::new(parts);
    let taps = Taps::none().archive(&mut scanner);
    let to = (&scratch.directory, "copy");
    copy_tree((&scratch.directory, "x"), to, &RestoreOptions::default(), taps).unwrap();
    assert_eq!(scanner.found(), [parts[1], parts[0]]);
}

#[test]
fn the_target_may_not_exist() {
    let scratch = Scratch::new();
    make(&file("new"), &scratch.path("x"));
    make(&file("old"), &scratch.path("there"));
    let to = (&scratch.directory, "there");
    let found = copy_tree(
        (&scratch.directory, "x"),
        to,
        &RestoreOptions::default(),
        Taps::none(),
    )
    .unwrap_err();
    assert_eq!(found.io_kind(), Some(io::ErrorKind::AlreadyExists));
    assert_eq!(scratch.dump("there"), archive(&file("old")));
}

/// Lets a file shrink while it is being copied.
struct Meddler<'a>(&'a File);

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set_len(10)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_source_that_changes_leaves_no_copy() {
    let scratch = Scratch::new();
    make(&directory([("f", file(vec![1; 30 << 20]))]), &scratch.path("x"));
    let victim = File::options().write(true).open(scratch.path("x/f")).unwrap();
    let mut meddler = Meddler(&victim);
    let to = (&scratch.directory, "copy");
    let taps = Taps::none().archive(&mut meddler);
    match copy_tree((&scratch.directory, "x"), to, &RestoreOptions::default(), taps) {
        Err(Error::Changed { expected, .. }) => {
            assert_eq!(expected, 30 << 20);
            assert_eq!(scratch.names(), ["x"]);
        }
        // Where the copy shares blocks with the source, the source may change as it likes.
        Ok(copied) => assert_eq!(copied.nar, hash_object(&scratch.directory, "copy").unwrap()),
        Err(other) => panic!("{other:?}"),
    }
}
