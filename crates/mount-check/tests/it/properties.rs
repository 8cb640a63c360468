// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parsers on anything: they never panic, and what is escaped comes back.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use superpose_mount_check::escape::{self, Layers};
use superpose_mount_check::mountinfo;
use superpose_mount_check::options::OverlayOptions;

/// Path bytes, with a liking for those that have a meaning somewhere.
fn path_byte() -> impl Strategy<Value = u8> {
    prop_oneof![1..=255_u8, prop::sample::select(b"\\,: \t\n#=0123\"'".to_vec())]
}

fn path() -> impl Strategy<Value = PathBuf> {
    vec(path_byte(), 1..20).prop_map(|name| PathBuf::from(OsString::from_vec([b"/".to_vec(), name].concat())))
}

/// A mount table of pieces that look like one.
fn table() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b" ".to_vec()),
        Just(b" - ".to_vec()),
        Just(b"0:1".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"12".to_vec()),
        Just(b"lowerdir=".to_vec()),
        Just(b"lowerdir+=".to_vec()),
        Just(b"::".to_vec()),
        Just(b"\\".to_vec()),
        Just(b",".to_vec()),
        vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Escapes as the kernel does for its text files (`mangle`, `seq_escape`).
fn octal(bytes: &[u8], special: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| match special.contains(&byte) {
        true => format!("\\{byte:03o}").into_bytes(),
        false => vec![byte],
    };
    bytes.iter().flat_map(escape).collect()
}

/// The line a kernel shows for a mount made with this data string.
fn line(mount_point: &[u8], source: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = b"36 35 0:40 / ".to_vec();
    out.extend(octal(mount_point, b" \t\n\\"));
    out.extend_from_slice(b" rw,relatime shared:1 - overlay ");
    out.extend(octal(source, b" \t\n\\#"));
    out.extend_from_slice(b" rw,");
    // An escaped comma is part of a value, a bare one separates; the kernel shows the value escaped, and then
    // in octal.
    let mut rest = data;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after.split_first()) {
            (b'\\', Some((&escaped, tail))) => {
                out.extend_from_slice(b"\\134");
                out.extend(octal(&[escaped], b" \t\n\\,"));
                rest = tail;
            }
            _ => {
                out.extend(octal(&[byte], b" \t\n\\"));
                rest = after;
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn no_bytes_panic(text in vec(any::<u8>(), 0..300)) {
        for mount in mountinfo::lines(&text).flatten() {
            let _decoded = OverlayOptions::decode(&mount.super_options);
        }
    }

    #[test]
    fn no_likely_table_panics(text in table()) {
        for mount in mountinfo::lines(&text).flatten() {
            let _decoded = OverlayOptions::decode(&mount.super_options);
        }
    }

    #[test]
    fn no_options_panic(options in vec(path_byte(), 0..80)) {
        let text = [&b"1 2 0:3 / /m rw - overlay o lowerdir="[..], &options].concat();
        for mount in mountinfo::lines(&text).flatten() {
            let _decoded = OverlayOptions::decode(&mount.super_options);
        }
    }

    #[test]
    fn octal_comes_back(bytes in vec(any::<u8>(), 0..50)) {
        prop_assert_eq!(mountinfo::unescape_octal(&octal(&bytes, b" \t\n\\,#")), bytes);
    }

    #[test]
    fn escaping_comes_back(bytes in vec(any::<u8>(), 0..50)) {
        prop_assert_eq!(escape::unescape(&escape::escape_lowerdir(&bytes)), bytes.clone());
        prop_assert_eq!(escape::unescape(&escape::escape_upperdir(&bytes)), bytes);
    }

    #[test]
    fn a_mount_table_gives_back_what_was_mounted(
        lower in vec(path(), 1..4),
        upper in path(),
        work in path(),
        mount_point in path(),
        source in vec(path_byte(), 0..10),
    ) {
        let data = Layers { lower: &lower, upper: &upper, work: &work }.options();
        let text = line(mount_point.as_os_str().as_bytes(), &source, &data);
        let mounts = mountinfo::parse(&text).unwrap();
        prop_assert_eq!(mounts.len(), 1);
        prop_assert_eq!(mounts[0].mount_point_path(), mount_point);
        prop_assert_eq!(&mounts[0].source, &source);
        let decoded = OverlayOptions::decode(&mounts[0].super_options);
        let found: Vec<_> = decoded.lower.iter().map(|layer| layer.path.clone()).collect();
        prop_assert_eq!(found, lower);
        prop_assert!(decoded.lower.iter().all(|layer| !layer.data_only));
        prop_assert_eq!(decoded.upper.unwrap().path, upper);
        prop_assert_eq!(decoded.work.unwrap().path, work);
    }
}
