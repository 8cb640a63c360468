// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees as values, with a serialiser of their own that the tests compare with.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use superpose_nar::{Event, Reader, Result};

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Node>),
}

pub(crate) fn file(contents: impl Into<Vec<u8>>) -> Node {
    Node::File {
        executable: false,
        contents: contents.into(),
    }
}

pub(crate) fn executable(contents: impl Into<Vec<u8>>) -> Node {
    Node::File {
        executable: true,
        contents: contents.into(),
    }
}

pub(crate) fn link(target: impl Into<Vec<u8>>) -> Node {
    Node::Symlink(target.into())
}

pub(crate) fn directory<N: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (N, Node)>) -> Node {
    Node::Directory(
        entries
            .into_iter()
            .map(|(name, node)| (name.into(), node))
            .collect(),
    )
}

/// A node inside this many directories.
pub(crate) fn nested(depth: usize, inner: Node) -> Node {
    (0..depth).fold(inner, |node, _| directory([("d", node)]))
}

/// One string of the format.
pub(crate) fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// Several strings of the format.
pub(crate) fn strings<S: AsRef<[u8]>>(list: impl IntoIterator<Item = S>) -> Vec<u8> {
    list.into_iter().flat_map(string).collect()
}

/// The archive of a tree.
pub(crate) fn archive(node: &Node) -> Vec<u8> {
    fn put(node: &Node, out: &mut Vec<u8>) {
        out.extend(strings(["(", "type"]));
        match node {
            Node::File { executable, contents } => {
                out.extend(string("regular"));
                if *executable {
                    out.extend(strings(["executable", ""]));
                }
                out.extend(string("contents"));
                out.extend(string(contents));
            }
            Node::Symlink(target) => {
                out.extend(strings(["symlink", "target"]));
                out.extend(string(target));
            }
            Node::Directory(entries) => {
                out.extend(string("directory"));
                for (name, child) in entries {
                    out.extend(strings(["entry", "(", "name"]));
                    out.extend(string(name));
                    out.extend(string("node"));
                    put(child, out);
                    out.extend(string(")"));
                }
            }
        }
        out.extend(string(")"));
    }
    let mut out = string("nix-archive-1");
    put(node, &mut out);
    out
}

/// Makes a tree on disk, with ordinary metadata.
pub(crate) fn make(node: &Node, path: &Path) {
    match node {
        Node::File { executable, contents } => {
            fs::write(path, contents).unwrap();
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Node::Symlink(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
        Node::Directory(entries) => {
            fs::create_dir(path).unwrap();
            for (name, child) in entries {
                make(child, &path.join(OsStr::from_bytes(name)));
            }
        }
    }
}

/// Reads an archive into a tree; also says how many bytes it had.
pub(crate) fn parse(source: impl Read) -> Result<(Node, u64)> {
    let mut reader = Reader::new(source);
    let node = match parse_node(&mut reader)? {
        Some(node) => node,
        None => unreachable!("an archive begins with a node"),
    };
    assert_eq!(reader.next_event()?, Event::End);
    assert_eq!(reader.next_event()?, Event::End, "the end is said again");
    Ok((node, reader.offset()))
}

/// Nothing at the end of a directory.
fn parse_node<R: Read>(reader: &mut Reader<R>) -> Result<Option<Node>> {
    Ok(Some(match reader.next_event()? {
        Event::Symlink(target) => link(target),
        Event::File { executable, size } => {
            let mut contents = Vec::new();
            loop {
                let chunk = reader.next_chunk()?;
                if chunk.is_empty() {
                    break;
                }
                contents.extend_from_slice(chunk);
            }
            assert_eq!(contents.len() as u64, size);
            Node::File { executable, contents }
        }
        Event::Directory => {
            let mut entries = BTreeMap::new();
            loop {
                let name = match reader.next_event()? {
                    Event::EndDirectory => break,
                    Event::Entry(name) => name.to_vec(),
                    other => unreachable!("{other:?} in a directory"),
                };
                if let Some(node) = parse_node(reader)? {
                    entries.insert(name, node);
                }
            }
            Node::Directory(entries)
        }
        Event::Entry(_) | Event::EndDirectory | Event::End => return Ok(None),
    }))
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..64),
        1 => proptest::collection::vec(any::<u8>(), 4000..5000),
        // Around the sizes of the buffers.
        1 => (0..4_usize, 0..40_usize).prop_map(|(half, more)| vec![b'x'; half * 65_536 + more]),
    ]
}

fn name(utf8: bool) -> BoxedStrategy<Vec<u8>> {
    let letters = proptest::collection::vec(proptest::sample::select(b"ab.-_~Z09 \n".to_vec()), 1..12);
    let ordinary = letters.prop_filter("reserved", |name| name != b"." && name != b"..");
    if utf8 {
        return ordinary.boxed();
    }
    let any = proptest::collection::vec(
        any::<u8>().prop_filter("not in a name", |b| !b"/\0".contains(b)),
        1..=255,
    )
    .prop_filter("reserved", |name| name != b"." && name != b"..");
    prop_oneof![4 => ordinary, 1 => any].boxed()
}

fn target(utf8: bool) -> BoxedStrategy<Vec<u8>> {
    if utf8 {
        return proptest::collection::vec(proptest::sample::select(b"ab./".to_vec()), 1..40).boxed();
    }
    proptest::collection::vec(1..=u8::MAX, 1..100).boxed()
}

/// Any tree of moderate size; with names and targets of UTF-8 only, if asked to.
pub(crate) fn trees(utf8: bool) -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        (any::<bool>(), contents()).prop_map(|(executable, contents)| Node::File { executable, contents }),
        target(utf8).prop_map(Node::Symlink),
    ];
    leaf.prop_recursive(6, 40, 8, move |inner| {
        proptest::collection::btree_map(name(utf8), inner, 0..8).prop_map(Node::Directory)
    })
}
