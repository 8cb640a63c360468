// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two trees are the same exactly when their archives are.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use superpose_nar::{Compared, Comparison, Difference, Error, Found, Side, compare_trees};

use crate::files::Scratch;
use crate::model::{Node, archive, directory, executable, file, link, make, nested, trees};

fn compare(scratch: &Scratch) -> Comparison {
    compare_trees((&scratch.directory, "one"), (&scratch.directory, "other")).unwrap()
}

fn made(one: &Node, other: &Node) -> Scratch {
    let scratch = Scratch::new();
    make(one, &scratch.path("one"));
    make(other, &scratch.path("other"));
    scratch
}

fn check(one: Node, other: Node, path: impl AsRef<OsStr>, found: [&str; 2]) {
    let scratch = made(&one, &other);
    let Comparison::Different(Difference {
        path: place,
        one,
        other,
    }) = compare(&scratch)
    else {
        panic!("expected a difference at {:?}", path.as_ref());
    };
    assert_eq!(place, Path::new(path.as_ref()));
    assert_eq!([one.to_string(), other.to_string()], found);
}

fn tree(inner: Node) -> Node {
    directory([
        ("a", file("a")),
        ("d", directory([("e", inner)])),
        ("z", file("z")),
    ])
}

#[test]
fn every_kind_of_difference_is_named_with_its_place() {
    check(
        file("abc"),
        file("abd"),
        "",
        ["the byte 0x63 at offset 2", "the byte 0x64 at offset 2"],
    );
    check(
        file("abc"),
        executable("abc"),
        "",
        ["a file of 3 bytes", "an executable file of 3 bytes"],
    );
    check(
        tree(file("")),
        tree(file("1")),
        "d/e",
        ["a file of 0 bytes", "a file of 1 bytes"],
    );
    check(
        tree(link("x")),
        tree(link("y")),
        "d/e",
        ["a symbolic link to 'x'", "a symbolic link to 'y'"],
    );
    check(
        tree(file("x")),
        tree(link("x")),
        "d/e",
        ["a file of 1 bytes", "a symbolic link to 'x'"],
    );
    check(
        tree(file("x")),
        tree(directory([("f", file("x"))])),
        "d/e",
        ["a file of 1 bytes", "a directory"],
    );
    let none = || directory(<[(&str, Node); 0]>::default());
    check(
        tree(none()),
        tree(directory([("f", file("x"))])),
        "d/e/f",
        ["nothing", "a file of 1 bytes"],
    );
    check(
        directory([("b", none()), ("c", none())]),
        directory([("c", none())]),
        "b",
        ["a directory", "nothing"],
    );
    check(
        directory([("b", none())]),
        directory([("a", none()), ("b", none())]),
        "a",
        ["nothing", "a directory"],
    );
}

#[test]
fn names_are_bytes() {
    let name = |last: u8| [b'n', 0xff, last].to_vec();
    check(
        directory([(name(1), file("1"))]),
        directory([(name(2), file("1"))]),
        OsStr::from_bytes(&name(1)),
        ["a file of 1 bytes", "nothing"],
    );
}

#[test]
fn large_files_differ_in_their_last_byte() {
    for size in [128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 400_000] {
        let same = vec![7; size];
        let scratch = made(&file(same.clone()), &file(same.clone()));
        assert_eq!(
            compare(&scratch),
            Comparison::Same {
                content_bytes: size as u64
            }
        );
        let mut last = same.clone();
        last[size - 1] = 8;
        let offset = size - 1;
        check(
            file(same),
            file(last),
            "",
            [
                &format!("the byte 0x07 at offset {offset}"),
                &format!("the byte 0x08 at offset {offset}"),
            ],
        );
    }
}

#[test]
fn modes_and_times_that_no_archive_holds_do_not_matter() {
    let scratch = made(&tree(file("x")), &tree(file("x")));
    let mode = |name: &str, mode| {
        fs::set_permissions(scratch.path("other").join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("a", 0o464);
    mode("z", 0o611);
    mode("d", 0o500);
    assert_eq!(compare(&scratch), Comparison::Same { content_bytes: 3 });
}

#[test]
fn two_names_of_one_file_are_the_same() {
    let scratch = Scratch::new();
    make(&file("x"), &scratch.path("one"));
    fs::hard_link(scratch.path("one"), scratch.path("other")).unwrap();
    assert_eq!(compare(&scratch), Comparison::Same { content_bytes: 1 });
}

#[test]
fn links_are_not_followed() {
    let scratch = made(&link("target"), &file("x"));
    make(&file("x"), &scratch.path("target"));
    let Comparison::Different(difference) = compare(&scratch) else {
        panic!("a link is not what it points to");
    };
    assert_eq!(
        difference.one,
        Found::Symlink {
            target: "target".into()
        }
    );
}

#[test]
fn what_cannot_be_read_is_said_to_be_of_one_side() {
    let scratch = Scratch::new();
    make(&file("x"), &scratch.path("one"));
    let missing = compare_trees((&scratch.directory, "one"), (&scratch.directory, "other")).unwrap_err();
    assert_eq!(missing.side, Side::Other);
    assert_eq!(missing.error.io_kind(), Some(ErrorKind::NotFound));
    let missing = compare_trees((&scratch.directory, "other"), (&scratch.directory, "one")).unwrap_err();
    assert_eq!(missing.side, Side::One);
    let named = compare_trees((&scratch.directory, ".."), (&scratch.directory, "one")).unwrap_err();
    assert!(matches!(named.error, Error::ObjectName { .. }));
}

#[test]
fn what_was_examined_before_may_have_been_replaced() {
    let scratch = Scratch::new();
    make(&file("x"), &scratch.path("one"));
    make(&file("x"), &scratch.path("other"));
    let compare = |mode| {
        let one = Compared::new(scratch.directory.as_fd(), OsStr::new("one")).with_mode(0o100_444);
        let other = Compared::new(scratch.directory.as_fd(), OsStr::new("other")).with_mode(mode);
        compare_trees(one, other)
    };
    assert!(matches!(
        compare(0o100_444),
        Ok(Comparison::Same { content_bytes: 1 })
    ));
    let Ok(Comparison::Different(difference)) = compare(0o040_555) else {
        panic!("a directory is no file");
    };
    // What is said of it is what is there.
    assert!(matches!(difference.other, Found::File { .. }));
    fs::remove_file(scratch.path("other")).unwrap();
    make(&tree(file("x")), &scratch.path("other"));
    let error = compare(0o100_444).unwrap_err();
    assert_eq!(error.side, Side::Other);
    assert!(
        matches!(
            error.error,
            Error::UnsupportedType {
                found: "directory",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn what_no_archive_holds_is_a_difference_or_an_error() {
    let scratch = Scratch::new();
    make(&tree(file("x")), &scratch.path("one"));
    make(&tree(file("x")), &scratch.path("other"));
    let fifo = |object: &str| {
        let path = scratch.path(object).join("d/e");
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    fifo("other");
    let Comparison::Different(difference) = compare(&scratch) else {
        panic!("a fifo is no file");
    };
    assert_eq!(difference.other, Found::Unsupported("fifo"));
    fifo("one");
    let error = compare_trees((&scratch.directory, "one"), (&scratch.directory, "other")).unwrap_err();
    assert!(matches!(error.error, Error::UnsupportedType { ref path, .. } if path == Path::new("one/d/e")));
}

#[test]
fn depth_is_limited_as_in_archives() {
    let scratch = made(&nested(64, file("x")), &nested(64, file("x")));
    let error = compare_trees((&scratch.directory, "one"), (&scratch.directory, "other")).unwrap_err();
    assert!(matches!(error.error, Error::TooDeep { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_archive_is_the_same_tree(one in trees(false), other in trees(false)) {
        let scratch = made(&one, &other);
        let same = matches!(compare(&scratch), Comparison::Same { .. });
        prop_assert_eq!(same, archive(&one) == archive(&other));
        let twin = made(&one, &one);
        prop_assert!(matches!(compare(&twin), Comparison::Same { .. }), "a tree is its twin");
    }
}
