// SPDX-License-Identifier: MIT OR Apache-2.0
//! What errors say.

use std::error::Error as _;

use superpose_store_path::{ContentAddress, Defaults, Hash, Name, StoreDir, StorePath, StoreReference};

/// The error and its sources, each on a line.
fn told<T: std::fmt::Debug>(result: superpose_store_path::Result<T>) -> String {
    let error = result.unwrap_err();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += "\n";
        text += &inner.to_string();
        source = inner.source();
    }
    text
}

#[test]
fn errors_say_what_was_expected_and_found() {
    assert_eq!(
        told(StoreDir::new(b"nix")),
        "store directory `nix` is not usable: expected an absolute path without NUL"
    );
    assert_eq!(
        told(Name::new(b"a b")),
        "store object name `a b` is not valid: expected only 0-9 A-Z a-z + - . _ ? ="
    );
    assert_eq!(
        told(StorePath::from_base_name(b".links")),
        "`.links` is not the base name of a store path: expected 32 nix32 digits, `-` and a name"
    );
    assert_eq!(
        told(StoreDir::default().parse_path(b"/foo/x")),
        "`/foo/x` is not in the store: expected a path below `/nix/store`"
    );
    assert_eq!(
        told(Hash::parse(b"sha1:abc")),
        "`abc` is not a hash: expected 40 (hexadecimal), 32 (nix32) or 28 (base64) characters for sha1"
    );
    assert_eq!(
        told(ContentAddress::parse(b"fixed:sha1:abc")),
        "hash of the content address `fixed:sha1:abc` is not valid\n\
         `abc` is not a hash: expected 40 (hexadecimal), 32 (nix32) or 28 (base64) characters for sha1"
    );
    assert_eq!(
        told(StoreReference::parse(b"l1", b"/")),
        "cannot parse store URL `l1`: expected `auto`, `local`, `daemon`, `local-overlay://?…`, \
         `unix:///socket`, or a path with a `/`"
    );
    assert_eq!(
        told(StoreReference::parse(b"local-overlay://?lower-store=l1", b"/")),
        "store URL in the setting `lower-store` is not usable\n\
         cannot parse store URL `l1`: expected `auto`, `local`, `daemon`, `local-overlay://?…`, \
         `unix:///socket`, or a path with a `/`"
    );
    let settings = |url: &[u8]| {
        StoreReference::parse(url, b"/")
            .unwrap()
            .0
            .settings(&Defaults::default())
    };
    assert_eq!(
        told(settings(b"local?read-only=maybe")),
        "setting `read-only` is `maybe`: expected `true`, `yes`, `1`, `false`, `no` or `0`"
    );
    assert_eq!(
        told(settings(b"local?state=x")),
        "setting `state` is `x`: expected an absolute path without NUL"
    );
    assert_eq!(
        told(settings(b"ssh://host")),
        "store `ssh://host` cannot be used: expected a store on this file system or behind a socket: `local`, \
         `unix` or `local-overlay`"
    );
}

#[test]
fn quoted_texts_are_escaped_and_shortened() {
    let text = told(Name::new(
        &[b"\x1b[31m\n\xff\xfe\xc3\xa4".as_slice(), &[b'x'; 1000]].concat(),
    ));
    assert!(
        text.contains("`\\u{1b}[31m\\n\u{fffd}\u{fffd}\u{e4}xxx"),
        "{text}"
    );
    assert!(text.contains("x…`"), "{text}");
    assert!(text.len() < 300, "{text}");
}
