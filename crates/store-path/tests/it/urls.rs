// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store URLs, read and written.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use superpose_store_path::{Error, MAX_NESTING, MAX_URL_LEN, StoreKind, StoreReference, UrlWarning};

const CWD: &[u8] = b"/w";

fn parse(text: &str) -> (StoreReference, Vec<UrlWarning>) {
    StoreReference::parse(text.as_bytes(), CWD).unwrap()
}

/// Parses without a warning, and gives the full form.
fn check(text: &str, expected: &str) {
    let (reference, warnings) = parse(text);
    assert_eq!(warnings, [], "{text}");
    assert_eq!(reference.to_string(), expected, "{text}");
    let (again, warnings) = parse(expected);
    assert_eq!(warnings, [], "{expected}");
    assert_eq!(again, reference, "{text}");
    assert_eq!(again.to_string(), expected, "{expected}");
}

fn check_warning(text: &str, expected: &str, warning: &str) {
    let (reference, warnings) = parse(text);
    assert_eq!(reference.to_string(), expected, "{text}");
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, [warning], "{text}");
}

fn check_refused(text: &[u8]) {
    let result = StoreReference::parse(text, CWD);
    assert!(
        result.is_err(),
        "{:?} gave {result:?}",
        String::from_utf8_lossy(text)
    );
}

#[test]
fn short_forms() {
    check("", "auto");
    check("auto", "auto");
    check("local", "local");
    check("daemon", "daemon");
    check("?root=/x", "auto?root=/x");
    check("auto?root=/x", "auto?root=/x");
    check("daemon?max-connections=2", "unix://?max-connections=2");
    check("local?", "local");
    check("local?root=/x", "local://?root=/x");
    // A later `?` belongs to the value.
    check("local?root=/x?y", "local://?root=/x?y");
}

#[test]
fn plain_paths() {
    check("/mnt/a", "local://?root=/mnt/a");
    check("/mnt//a/./b/..", "local://?root=/mnt/a");
    check("./x", "local://?root=/w/x");
    check("../x/", "local://?root=/x");
    check("a/b", "local://?root=/w/a/b");
    check("/", "local://?root=/");
    check("/a#b%20c+d e", "local://?root=/a%23b%2520c%2Bd%20e");
    check("/a?state=/b", "local://?root=/a&state=/b");
    check("/\u{e4}", "local://?root=/%C3%A4");
    check("/a:b", "local://?root=/a:b");
    check("./a:b", "local://?root=/w/a:b");
    check("1a:/b", "local://?root=/w/1a:/b");
}

#[test]
fn urls() {
    check("local://", "local");
    check("local:", "local");
    check("local:/x", "local://?root=/x");
    check("local:///a%20b", "local://?root=/a%20b");
    check("local:///a+b", "local://?root=/a%2Bb");
    check("local:///x//y/..", "local://?root=/x");
    check("local://?root=", "local://?root=");
    check("unix://", "daemon");
    check("unix:///run/s.sock", "unix:///run/s.sock");
    check(
        "unix:///run/s%3Fx%23?root=/mnt/a",
        "unix:///run/s%3Fx%23?root=/mnt/a",
    );
    check("local-overlay:?root=/x", "local-overlay://?root=/x");
    check("local-overlay:///x", "local-overlay://?root=/x");
    check(
        "https://cache.example.org/a%20b?priority=1",
        "https://cache.example.org/a%20b?priority=1",
    );
    check("ssh-ng://user@host:22", "ssh-ng://user@host:22");
    check("ssh://[::1]", "ssh://[::1]");
    check("dummy:", "dummy://");
    check("file:////x", "file:////x");
}

#[test]
fn queries() {
    check("local?a=+", "local://?a=%2B");
    check("local?a=%2b", "local://?a=%2B");
    check("local?a=x y\"", "local://?a=x%20y%22");
    check("local?%61=b", "local://?a=b");
    check("local?a=%00", "local://?a=%00");
    check("local?a=-._~:@/?", "local://?a=-._~:@/?");
    check("local?a==", "local://?a=%3D");
    check("local?b=1&a=2", "local://?a=2&b=1");
    check("local?a=%ff", "local://?a=%FF");
    check("local?a=%2525", "local://?a=%2525");
    check("local?=x", "local://?=x");
}

#[test]
fn odd_urls_are_reported() {
    check_warning(
        "local?root=/a&root=/b",
        "local://?root=/a",
        "setting `root` is given twice: using `/a`, ignoring `/b`",
    );
    check_warning(
        "local?ro%6ft=/a&root=/b",
        "local://?root=/a",
        "setting `root` is given twice: using `/a`, ignoring `/b`",
    );
    check_warning(
        "local?root=/a&",
        "local://?root=/a",
        "ignoring `` in the query of a store URL: it has no `=`",
    );
    check_warning(
        "local?x%&root=/a",
        "local://?root=/a",
        "ignoring `x%` in the query of a store URL: it has no `=`",
    );
    check_warning(
        "local://?root=/a#b?c=d",
        "local://?root=/a",
        "ignoring `#b?c=d` in a store URL: write `#` as `%23` where it is meant",
    );
    check_warning(
        "local:///a?root=/b",
        "local://?root=/b",
        "ignoring the path `/a` of a store URL: its setting `root` is `/b`",
    );
    check_warning(
        "/a?root=",
        "local://?root=",
        "ignoring the path `/a` of a store URL: its setting `root` is ``",
    );
    check_warning(
        "local-overlay://?lower-store=/a?x",
        "local-overlay://?lower-store=local://?root%3D/a",
        "in the setting `lower-store`: ignoring `x` in the query of a store URL: it has no `=`",
    );
}

#[test]
fn refused_texts() {
    for text in [
        "l1",
        "local-overlay",
        "unix",
        "Local://",
        "LOCAL",
        "Foo://x",
        "local://host/x",
        "local://x",
        "unix://x",
        "unix:x",
        "local-overlay://host",
        "local:x",
        "local:/a b",
        "local:///\u{e4}",
        "local:///a%",
        "local:///a%2",
        "local:///a%zz",
        "local:///a%00",
        "local?a=%",
        "local?a=%2",
        "local?a=%g0",
        "local?a=% 1",
        "local?a=%+1",
        "local?%=1",
        "local?root=/x#y",
        "/a\0",
        "l1?root=/x",
        "local-overlay://?lower-store=l1",
        "local-overlay://?lower-store=%252Fmnt%252Fa",
    ] {
        check_refused(text.as_bytes());
    }
    check_refused(b"local:///\xff");
    assert!(
        StoreReference::parse(b"./x", b"w").is_err(),
        "the working directory must be absolute"
    );
    assert!(StoreReference::parse(b"/x", b"").is_ok(), "it is not needed here");
}

#[test]
fn overlay_urls_are_complete() {
    check(
        "local-overlay://?root=/mnt/m&lower-store=/mnt/a%3Fread-only%3Dtrue&upper-layer=/mnt/b",
        "local-overlay://?lower-store=local://?read-only%3Dtrue%26root%3D/mnt/a&root=/mnt/m&upper-layer=/mnt/b",
    );
    check(
        "local-overlay://?check-mount=false&lower-store=unix:///run/lower.sock%3Froot%3D/mnt/a&root=/mnt/m",
        "local-overlay://?check-mount=false&lower-store=unix:///run/lower.sock?root%3D/mnt/a&root=/mnt/m",
    );
    // Only `&`, `#` and `%` need to be encoded.
    check(
        "local-overlay://?lower-store=local://?root=/mnt/a%26read-only=true",
        "local-overlay://?lower-store=local://?read-only%3Dtrue%26root%3D/mnt/a",
    );
    check(
        "local-overlay://?lower-store=",
        "local-overlay://?lower-store=auto",
    );
    check(
        "local-overlay://?lower-store=./a",
        "local-overlay://?lower-store=local://?root%3D/w/a",
    );
    check("local-overlay://", "local-overlay://");
}

#[test]
fn overlays_nest() {
    let bottom = StoreReference::local("/mnt/a b").with_param("read-only", "true");
    let middle = StoreReference::overlay(&bottom, "/mnt/u1", "/mnt/m1");
    let top = StoreReference::overlay(&middle, "/mnt/u2&x", "/mnt/m2").with_param("check-mount", "false");
    let text = top.to_string();
    assert_eq!(
        text,
        "local-overlay://?check-mount=false&lower-store=local-overlay://?lower-store%3D\
         local://?read-only%253Dtrue%2526root%253D/mnt/a%252520b%26root%3D/mnt/m1%26\
         upper-layer%3D/mnt/u1&root=/mnt/m2&upper-layer=/mnt/u2%26x"
    );
    let (parsed, warnings) = parse(&text);
    assert_eq!(warnings, []);
    assert_eq!(parsed, top);
    assert_eq!(parsed.param("lower-store"), Some(middle.to_string().as_bytes()));
}

#[test]
fn paths_are_bytes() {
    let root = Path::new(std::ffi::OsStr::from_bytes(b"/mnt/\xff\xfe+ %"));
    let reference = StoreReference::local(root);
    assert_eq!(reference.to_string(), "local://?root=/mnt/%FF%FE%2B%20%25");
    assert_eq!(parse(&reference.to_string()).0, reference);
    let (plain, _) = StoreReference::parse(root.as_os_str().as_bytes(), CWD).unwrap();
    assert_eq!(plain, reference);
    let socket = Path::new(std::ffi::OsStr::from_bytes(b"/run/\xff?#"));
    let reference = StoreReference::daemon(Some(socket));
    assert_eq!(reference.to_string(), "unix:///run/%FF%3F%23");
    assert_eq!(
        parse(&reference.to_string()).0.kind(),
        &StoreKind::Daemon {
            socket: Some(socket.into())
        }
    );
}

#[test]
fn references_are_put_together() {
    assert_eq!(StoreReference::auto().to_string(), "auto");
    assert_eq!(StoreReference::default_local().to_string(), "local");
    assert_eq!(StoreReference::daemon(None).to_string(), "daemon");
    assert_eq!(
        StoreReference::daemon(Some(Path::new("/run//s"))).to_string(),
        "unix:///run/s"
    );
    let reference = StoreReference::local("/a")
        .with_param("root", "/b")
        .with_path("state", "/c");
    assert_eq!(reference.to_string(), "local://?root=/b&state=/c");
    assert_eq!(reference.param("root"), Some(&b"/b"[..]));
    assert_eq!(reference.param("log"), None);
    assert_eq!(reference.params().len(), 2);
    assert_eq!(reference.kind(), &StoreKind::Local);
}

#[test]
fn length_and_nesting_are_bounded() {
    let long = format!("/{}", "a".repeat(MAX_URL_LEN));
    assert!(matches!(
        StoreReference::parse(long.as_bytes(), CWD),
        Err(Error::TooLarge { .. })
    ));
    let nested = |levels: usize| "local-overlay://?lower-store=".repeat(levels) + "/a";
    let parse = |levels: usize| StoreReference::parse(nested(levels).as_bytes(), CWD);
    assert!(parse(MAX_NESTING).is_ok());
    let mut error = parse(MAX_NESTING + 1).unwrap_err();
    while let Error::NestedStoreUrl { source, .. } = error {
        error = *source;
    }
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(parse(MAX_URL_LEN / 30).is_err());
}

#[test]
fn a_lower_store_whose_full_form_is_too_long_is_refused() {
    for (lower, fits) in [(20_000, true), (30_000, false)] {
        let mut text = b"local-overlay://?lower-store=/".to_vec();
        text.resize(text.len() + lower, b'\xc3');
        let parsed = StoreReference::parse(&text, CWD);
        assert_eq!(parsed.is_ok(), fits, "each of {lower} bytes is written as three");
        if let Err(error) = parsed {
            assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        }
    }
}
