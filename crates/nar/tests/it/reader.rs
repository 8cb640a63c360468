// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pull parser by itself.

use std::io::{self, Read};

use superpose_nar::{Event, Reader};

use crate::model::{archive, directory, executable, file, link, string, strings};

#[test]
fn events_come_in_order() {
    let tree = directory([
        ("a", file("abc")),
        ("b", executable("")),
        ("c", directory([("d", link("t"))])),
        ("e", directory::<&str>([])),
    ]);
    let bytes = archive(&tree);
    let mut reader = Reader::new(&bytes[..]);
    let expected = [
        Event::Directory,
        Event::Entry(b"a"),
        // The contents are skipped.
        Event::File {
            executable: false,
            size: 3,
        },
        Event::Entry(b"b"),
        Event::File {
            executable: true,
            size: 0,
        },
        Event::Entry(b"c"),
        Event::Directory,
        Event::Entry(b"d"),
        Event::Symlink(b"t"),
        Event::EndDirectory,
        Event::Entry(b"e"),
        Event::Directory,
        Event::EndDirectory,
        Event::EndDirectory,
        Event::End,
        Event::End,
    ];
    for event in expected {
        assert_eq!(reader.next_event().unwrap(), event);
    }
    assert_eq!(reader.offset(), bytes.len() as u64);
    assert!(reader.into_inner().is_empty());
}

#[test]
fn contents_may_be_left_in_the_middle() {
    let large = vec![7; 300_000];
    let bytes = archive(&directory([("a", file(large)), ("b", file("b"))]));
    let mut reader = Reader::new(&bytes[..]);
    reader.next_event().unwrap();
    assert_eq!(reader.next_chunk().unwrap(), b"", "no file is current");
    reader.next_event().unwrap();
    assert_eq!(
        reader.next_event().unwrap(),
        Event::File {
            executable: false,
            size: 300_000
        }
    );
    let first = reader.next_chunk().unwrap();
    assert!(!first.is_empty() && first.iter().all(|byte| *byte == 7));
    assert_eq!(reader.next_event().unwrap(), Event::Entry(b"b"));
    assert_eq!(
        reader.next_event().unwrap(),
        Event::File {
            executable: false,
            size: 1
        }
    );
    assert_eq!(reader.next_chunk().unwrap(), b"b");
    assert_eq!(reader.next_chunk().unwrap(), b"");
    assert_eq!(reader.next_event().unwrap(), Event::EndDirectory);
    assert_eq!(reader.next_event().unwrap(), Event::End);
}

#[test]
fn archives_may_stand_one_behind_the_other() {
    let (first, second) = (archive(&link("one")), archive(&file("two")));
    let both = [first, second, b"rest".to_vec()].concat();
    let mut source = &both[..];
    for expected in [link("one"), file("two")] {
        assert_eq!(crate::model::parse(&mut source).unwrap().0, expected);
    }
    assert_eq!(source, b"rest");
}

#[test]
fn contents_of_more_than_four_gibibytes() {
    let size: u64 = (4 << 30) + 1;
    let mut head = strings(["nix-archive-1", "(", "type", "regular", "contents"]);
    head.extend(size.to_le_bytes());
    let end = string(")");
    let source = (&head[..]).chain(io::repeat(0).take(size + 7)).chain(&end[..]);
    let mut reader = Reader::new(source);
    assert_eq!(
        reader.next_event().unwrap(),
        Event::File {
            executable: false,
            size
        }
    );
    let mut read = 0;
    loop {
        let chunk = reader.next_chunk().unwrap();
        if chunk.is_empty() {
            break;
        }
        read += chunk.len() as u64;
    }
    assert_eq!(read, size);
    assert_eq!(reader.next_event().unwrap(), Event::End);
    assert_eq!(reader.offset(), 112 + size + 7);
}
