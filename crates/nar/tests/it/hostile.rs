// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives that Nix 2.34.8 refuses, and those next to them that it accepts.

use std::io::{self, Read};

use superpose_nar::{Error, Malformed, Reader, RestoreOptions, Taps, restore, restore_hashed};

use crate::files::Scratch;
use crate::model::{Node, archive, directory, executable, file, link, nested, parse, string, strings};

/// Both the parser and the restorer refuse the archive, and nothing is left.
#[track_caller]
fn refused(bytes: &[u8], expected: &Malformed) {
    let found = parse(bytes).unwrap_err();
    let Error::Malformed { problem, .. } = &found else {
        panic!("{found:?}")
    };
    assert_eq!(problem, expected);

    let scratch = Scratch::new();
    let options = RestoreOptions::default();
    for found in [
        restore(&mut &bytes[..], &scratch.directory, "x", &options).unwrap_err(),
        restore_hashed(&mut &bytes[..], &scratch.directory, "x", &options, Taps::none()).unwrap_err(),
    ] {
        let Error::Malformed { problem, .. } = &found else {
            panic!("{found:?}")
        };
        assert_eq!(problem, expected);
        assert_eq!(scratch.names(), [""; 0], "what was made is removed");
    }
}

#[track_caller]
fn accepted(bytes: &[u8]) {
    let scratch = Scratch::new();
    restore(
        &mut &bytes[..],
        &scratch.directory,
        "x",
        &RestoreOptions::default(),
    )
    .unwrap();
    assert_eq!(scratch.dump("x"), bytes);
}

fn keyword(expected: &'static str, found: &str) -> Malformed {
    Malformed::Keyword {
        expected,
        found: found.into(),
    }
}

/// A directory with entries as given, names and order unchecked.
fn raw_directory<N: AsRef<[u8]>>(entries: &[(N, Node)]) -> Vec<u8> {
    let mut out = strings(["nix-archive-1", "(", "type", "directory"]);
    for (name, node) in entries {
        out.extend(strings(["entry", "(", "name"]));
        out.extend(string(name));
        out.extend(string("node"));
        out.extend_from_slice(&archive(node)[24..]);
        out.extend(string(")"));
    }
    out.extend(string(")"));
    out
}

fn raw_link(target: &[u8]) -> Vec<u8> {
    let mut out = strings(["nix-archive-1", "(", "type", "symlink", "target"]);
    out.extend(string(target));
    out.extend(string(")"));
    out
}

#[test]
fn every_prefix_is_too_short() {
    let tree = directory([
        ("a", file("abc")),
        ("b", executable("0123456789")),
        ("c", link("target")),
        ("d", directory([("e", file(""))])),
    ]);
    let bytes = archive(&tree);
    let scratch = Scratch::new();
    for length in 0..bytes.len() {
        let mut source = &bytes[..length];
        let found = parse(source).unwrap_err();
        assert!(
            matches!(
                &found,
                Error::Malformed {
                    problem: Malformed::UnexpectedEnd,
                    ..
                }
            ),
            "{length}: {found:?}"
        );
        let options = RestoreOptions::default();
        assert!(
            restore(&mut source, &scratch.directory, "x", &options).is_err(),
            "{length}"
        );
        assert_eq!(scratch.names(), [""; 0], "{length}");
    }
    accepted(&bytes);
}

#[test]
fn names_that_lead_elsewhere() {
    for name in [".", "..", "/", "a/b", "/etc/passwd", "../x", "a\0b", "\0"] {
        let name = name.as_bytes();
        refused(
            &raw_directory(&[(name, file("x"))]),
            &Malformed::Name {
                name: name.escape_ascii().to_string(),
            },
        );
    }
    refused(
        &raw_directory(&[("", file("x"))]),
        &Malformed::NameLength { length: 0 },
    );
    accepted(&raw_directory(&[
        ("...", file("x")),
        ("..a", file("x")),
        (".a", file("x")),
    ]));
}

#[test]
fn names_out_of_order() {
    let order = |previous: &str, name: &str| Malformed::Order {
        previous: previous.into(),
        name: name.into(),
    };
    refused(
        &raw_directory(&[("b", file("")), ("a", file(""))]),
        &order("b", "a"),
    );
    refused(
        &raw_directory(&[("a", file("")), ("a", file(""))]),
        &order("a", "a"),
    );
    refused(
        &raw_directory(&[("ab", file("")), ("a", file(""))]),
        &order("ab", "a"),
    );
    // Bytes are unsigned.
    refused(
        &raw_directory(&[(&b"\xff"[..], file("")), (&b"a"[..], file(""))]),
        &order("\\xff", "a"),
    );
    // The duplicate of a directory or of a link through which a later entry would be written.
    refused(
        &raw_directory(&[("a", link("/tmp")), ("a", directory([("b", file(""))]))]),
        &order("a", "a"),
    );
    refused(
        &raw_directory(&[("a", directory([("b", file(""))])), ("a", file(""))]),
        &order("a", "a"),
    );
    accepted(&raw_directory(&[
        (&b"A"[..], file("")),
        (b"a", file("")),
        (b"a\xff", file("")),
        (b"\xff", file("")),
    ]));
}

#[test]
fn lengths_of_names_and_targets() {
    accepted(&raw_directory(&[("n".repeat(255), file("x"))]));
    refused(
        &raw_directory(&[("n".repeat(256), file("x"))]),
        &Malformed::NameLength { length: 256 },
    );
    accepted(&raw_link(&b"t".repeat(4095)));
    refused(
        &raw_link(&b"t".repeat(4096)),
        &Malformed::TargetLength { length: 4096 },
    );
    refused(&raw_link(b""), &Malformed::TargetLength { length: 0 });
    refused(&raw_link(b"a\0b"), &Malformed::TargetNul);
}

#[test]
fn depth() {
    accepted(&archive(&nested(63, file("x"))));
    accepted(&archive(&nested(63, link("x"))));
    accepted(&archive(&nested(63, Node::Directory([].into()))));
    for depth in [64, 65, 1000] {
        for inner in [file("x"), link("x"), Node::Directory([].into())] {
            refused(&archive(&nested(depth, inner)), &Malformed::TooDeep);
        }
    }
}

#[test]
fn padding_has_to_be_zero() {
    for node in [file("abc"), link("abc"), directory([("abc", file(""))])] {
        let bytes = archive(&node);
        let places: Vec<_> = bytes
            .windows(4)
            .enumerate()
            .filter(|(_, w)| w == b"abc\0")
            .map(|(at, _)| at)
            .collect();
        for place in places {
            for padding in 3..8 {
                let mut bytes = bytes.clone();
                bytes[place + padding] = 1;
                refused(&bytes, &Malformed::Padding);
            }
        }
    }
    let mut bytes = archive(&file(""));
    bytes[23] = 1;
    refused(&bytes, &Malformed::Padding);
}

#[test]
fn wrong_words() {
    let node = "`regular`, `symlink` or `directory`";
    let cases: &[(&[&str], Malformed)] = &[
        (&["nix-archive-2"], keyword("nix-archive-1", "nix-archive-2")),
        (&["nix-archive-1", ")"], keyword("(", ")")),
        (&["nix-archive-1", "(", "kind"], keyword("type", "kind")),
        (&["nix-archive-1", "(", "type", "fifo"], keyword(node, "fifo")),
        (
            &["nix-archive-1", "(", "type", "Regular"],
            keyword(node, "Regular"),
        ),
        // Files without contents were accepted once.
        (
            &["nix-archive-1", "(", "type", "regular", ")"],
            keyword("`executable` or `contents`", ")"),
        ),
        (
            &["nix-archive-1", "(", "type", "regular", "executable", "", ")"],
            keyword("contents", ")"),
        ),
        (
            &[
                "nix-archive-1",
                "(",
                "type",
                "regular",
                "executable",
                "",
                "executable",
            ],
            keyword("contents", "executable"),
        ),
        (
            &[
                "nix-archive-1",
                "(",
                "type",
                "regular",
                "contents",
                "x",
                "executable",
            ],
            keyword(")", "executable"),
        ),
        (
            &["nix-archive-1", "(", "type", "regular", "executable", "1"],
            Malformed::ExecutableValue { length: 1 },
        ),
        (
            &["nix-archive-1", "(", "type", "symlink", ")"],
            keyword("target", ")"),
        ),
        (
            &["nix-archive-1", "(", "type", "symlink", "target", "x", "target"],
            keyword(")", "target"),
        ),
        (
            &["nix-archive-1", "(", "type", "directory", "name"],
            keyword("`entry` or `)`", "name"),
        ),
        (
            &["nix-archive-1", "(", "type", "directory", "entry", "name"],
            keyword("(", "name"),
        ),
        (
            &["nix-archive-1", "(", "type", "directory", "entry", "(", "node"],
            keyword("name", "node"),
        ),
        (
            &[
                "nix-archive-1",
                "(",
                "type",
                "directory",
                "entry",
                "(",
                "name",
                "a",
                ")",
            ],
            keyword("node", ")"),
        ),
        (
            &["nix-archive-1", "(", "\n\x1b\u{e9}"],
            keyword("type", "\\n\\x1b\\xc3\\xa9"),
        ),
    ];
    for (words, expected) in cases {
        refused(&strings(*words), expected);
    }
    let long = "(".repeat(33);
    refused(
        &strings(["nix-archive-1", &long]),
        &Malformed::KeywordLength {
            expected: "(",
            length: 33,
        },
    );
    refused(
        &strings(["nix-archive-1", &long[..32]]),
        &keyword("(", &long[..32]),
    );
}

#[test]
fn lengths_without_data() {
    let huge = [u64::MAX, u64::MAX - 7, 1 << 63];
    for length in huge {
        let mut bytes = strings(["nix-archive-1", "(", "type", "regular", "contents"]);
        bytes.extend(length.to_le_bytes());
        refused(&bytes, &Malformed::ContentsLength { length });

        let mut bytes = strings(["nix-archive-1", "(", "type", "symlink", "target"]);
        bytes.extend(length.to_le_bytes());
        refused(&bytes, &Malformed::TargetLength { length });

        let mut bytes = strings(["nix-archive-1", "(", "type", "directory", "entry", "(", "name"]);
        bytes.extend(length.to_le_bytes());
        refused(&bytes, &Malformed::NameLength { length });

        refused(
            &length.to_le_bytes(),
            &Malformed::KeywordLength {
                expected: "nix-archive-1",
                length,
            },
        );
    }
    // The largest that a file may have: nothing is reserved for it, and it just ends too early.
    for length in [(1 << 63) - 1, 1 << 40] {
        let mut bytes = strings(["nix-archive-1", "(", "type", "regular", "contents"]);
        bytes.extend(u64::to_le_bytes(length));
        bytes.extend(b"some");
        refused(&bytes, &Malformed::UnexpectedEnd);
    }
}

#[test]
fn errors_say_where() {
    let bytes = raw_directory(&[("a", raw_child()), ("b", file("x"))]);
    let cut = &bytes[..bytes.len() - 40];
    let found = parse(cut).unwrap_err();
    assert_eq!(
        found.to_string(),
        r#"malformed archive at byte 608, in "b": the archive ends too early"#
    );
    let bytes = raw_directory(&[("a", directory([("sub", link("x"))])), ("..", file("x"))]);
    assert_eq!(
        parse(&bytes[..]).unwrap_err().to_string(),
        r#"malformed archive at byte 504, in its root: ".." is not the name of a directory entry"#
    );
}

fn raw_child() -> Node {
    directory([("sub", link("x"))])
}

#[test]
fn after_an_error_comes_none_but_errors() {
    let mut reader = Reader::new(&b"\x01"[..]);
    assert!(reader.next_event().is_err());
    for _ in 0..3 {
        let found = reader.next_event().unwrap_err();
        assert!(
            matches!(
                found,
                Error::Malformed {
                    problem: Malformed::AfterError,
                    ..
                }
            ),
            "{found:?}"
        );
        assert_eq!(reader.next_chunk().unwrap(), b"");
    }
}

#[test]
fn a_source_that_fails() {
    /// Gives an interruption, then a few bytes, then fails.
    struct Failing(Vec<io::Result<Vec<u8>>>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.remove(0)?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }
    let source = || {
        Failing(vec![
            Err(io::ErrorKind::Interrupted.into()),
            Ok(archive(&file(""))[..24].to_vec()),
            Err(io::ErrorKind::ConnectionReset.into()),
        ])
    };
    let found = parse(source()).unwrap_err();
    assert!(matches!(found, Error::Read { offset: 24, .. }), "{found:?}");
    assert_eq!(found.io_kind(), Some(io::ErrorKind::ConnectionReset));
    let scratch = Scratch::new();
    let options = RestoreOptions::default();
    let found = restore_hashed(&mut source(), &scratch.directory, "x", &options, Taps::none()).unwrap_err();
    assert!(matches!(found, Error::Read { offset: 24, .. }), "{found:?}");
}
