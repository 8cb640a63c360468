// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names, base names, store directories and nix32.

use superpose_store_path::{HashPart, MAX_BASE_NAME_LEN, MAX_NAME_LEN, Name, StoreDir, StorePath, nix32};

const HASH: &str = "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp";

#[test]
fn nix32_vectors() {
    fn check(bytes: &[u8], text: &str) {
        assert_eq!(nix32::encode(bytes), text);
        assert_eq!(nix32::encoded_len(bytes.len()), text.len());
        assert_eq!(nix32::decode(text.as_bytes(), bytes.len()).unwrap(), bytes);
    }
    let counting: Vec<u8> = (0..32).collect();
    check(&[], "");
    check(&[0x01], "01");
    check(&[0xff], "7z");
    check(&[0x01, 0x02], "00h1");
    check(&counting[..20], "2c91240g1q6hq2qa1440f1h50h1h4080");
    check(&counting, "07qy3lf1n6hr30bic58l2c91240g1q6hq2qa1440f1h50h1h4080");
}

#[test]
fn nix32_refusals() {
    fn check(text: &str, bytes: usize) {
        assert!(
            nix32::decode(text.as_bytes(), bytes).is_err(),
            "{text:?} as {bytes} bytes"
        );
    }
    check("7Z", 1);
    check("e0", 1);
    check("0o", 1);
    check("0u", 1);
    check("t0", 1);
    check("\u{e4}", 1);
    // The ninth bit.
    check("80", 1);
    check("zz", 1);
    check("0", 1);
    check("007z", 1);
    check("", 1);
    check("0", 0);
    check("7z", usize::MAX);
}

#[test]
fn names() {
    fn check(text: &[u8], valid: bool) {
        assert_eq!(
            Name::new(text).is_ok(),
            valid,
            "{:?}",
            String::from_utf8_lossy(text)
        );
        let base = [HASH.as_bytes(), b"-", text].concat();
        assert_eq!(StorePath::from_base_name(&base).is_ok(), valid, "in a base name");
    }
    for good in [
        "a",
        "abc",
        ".dot",
        ".a",
        "..a",
        "...",
        "-",
        "a+b-c._?=",
        "0",
        "Z",
        "_",
    ] {
        check(good.as_bytes(), true);
    }
    for bad in [
        "", ".", "..", ".-", ".-a", "..-", "..-a", "a b", "a/b", "a\0", "a\n", "\u{e4}", "a~", "a%", "a:",
    ] {
        check(bad.as_bytes(), false);
    }
    check(b"\xff", false);
    check(&[b'a'; MAX_NAME_LEN], true);
    check(&[b'a'; MAX_NAME_LEN + 1], false);
    assert_eq!(MAX_NAME_LEN, 211);
    assert_eq!(MAX_BASE_NAME_LEN, 244);
    for byte in 0..=u8::MAX {
        check(
            &[b'a', byte],
            byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte),
        );
    }
}

#[test]
fn base_names() {
    let path = StorePath::from_base_name(format!("{HASH}-abc-1.0.drv").as_bytes()).unwrap();
    assert_eq!(path.name(), "abc-1.0.drv");
    assert_eq!(path.hash_part_str(), HASH);
    assert_eq!(path.hash_part().to_string(), HASH);
    assert!(path.is_derivation());
    assert_eq!(path.derivation_name(), Some("abc-1.0"));
    let again = StorePath::from_parts(path.hash_part(), &Name::new(b"abc-1.0.drv").unwrap());
    assert_eq!(again, path);
    assert_eq!(HashPart::parse(HASH.as_bytes()).unwrap(), path.hash_part());

    fn check(base: &str) {
        assert!(StorePath::from_base_name(base.as_bytes()).is_err(), "{base:?}");
    }
    check("");
    check(HASH);
    check(&format!("{HASH}-"));
    check(&format!("{HASH}+abc"));
    check(&format!("{HASH}abc"));
    check(&format!("{}-abc", &HASH[1..]));
    check(&format!("{}-abc", HASH.to_uppercase()));
    check(&format!("e{}-abc", &HASH[1..]));
    check(&format!("/nix/store/{HASH}-abc"));
}

#[test]
fn order_is_that_of_the_base_name() {
    let digits = ["0", "1", "9", "a", "z"];
    let paths =
        digits.map(|digit| StorePath::from_base_name(format!("{}-a", digit.repeat(32)).as_bytes()).unwrap());
    assert!(paths.is_sorted());
    let path = |name: &str| StorePath::from_base_name(format!("{HASH}-{name}").as_bytes()).unwrap();
    let names = ["+", "-", "...", "0", "=", "?", "A", "Z", "_", "a", "aa", "z"].map(path);
    assert!(names.is_sorted());
}

#[test]
fn store_dirs() {
    fn check(text: &[u8], expected: Option<&str>) {
        let found = StoreDir::new(text).ok();
        assert_eq!(
            found.as_ref().map(StoreDir::as_str),
            expected,
            "{:?}",
            String::from_utf8_lossy(text)
        );
    }
    check(b"/nix/store", Some("/nix/store"));
    check(b"//nix/./x/../store/", Some("/nix/store"));
    check("/\u{e4}".as_bytes(), Some("/\u{e4}"));
    check(b"/", None);
    check(b"/a/..", None);
    check(b"", None);
    check(b"nix/store", None);
    check(b"/nix\0", None);
    check(b"/nix/\xff", None);
    assert_eq!(StoreDir::default().as_str(), "/nix/store");
}

#[test]
fn full_paths() {
    fn check(text: &str, object: bool, rest: Option<&str>) {
        let dir = StoreDir::default();
        assert_eq!(
            dir.parse_path(text.as_bytes()).is_ok(),
            object,
            "{text:?} as a path"
        );
        let found = dir.parse_inside(text.as_bytes()).ok().map(|(_, rest)| rest);
        assert_eq!(found.as_deref(), rest.map(str::as_bytes), "{text:?} inside");
    }
    let base = format!("{HASH}-abc");
    check(&format!("/nix/store/{base}"), true, Some(""));
    check(&format!("/nix/store/{base}/"), true, Some(""));
    check(&format!("//nix/./store/x/../{base}/."), true, Some(""));
    check(&format!("/nix/store/{base}/bin/sh"), false, Some("bin/sh"));
    check(
        &format!("/nix/store/{base}//bin/./x/../sh/"),
        false,
        Some("bin/sh"),
    );
    check(&format!("/nix/store/{base}/.."), false, None);
    check(&format!("/nix/store2/{base}"), false, None);
    check(&format!("/nix/store{base}"), false, None);
    check(&format!("/nix/{base}"), false, None);
    check(&format!("nix/store/{base}"), false, None);
    check(&format!("/nix/store/{base}\0"), false, None);
    check(&base, false, None);
    check("/nix/store", false, None);
    check("/nix/store/", false, None);
    check("/nix/store/.links", false, None);
    check("/nix/store/.", false, None);
    check("", false, None);
}

#[test]
fn full_paths_are_written_back() {
    let dir = StoreDir::new(b"/foo/store").unwrap();
    let text = format!("/foo/store/{HASH}-abc");
    let path = dir.parse_path(text.as_bytes()).unwrap();
    assert_eq!(dir.join(&path), text);
    assert_eq!(dir.display(&path).to_string(), text);
    assert_eq!(path.to_string(), format!("{HASH}-abc"));
}

#[test]
fn what_follows_an_object_is_bytes() {
    let text = [b"/nix/store/", HASH.as_bytes(), b"-abc/\xff"].concat();
    let (_, rest) = StoreDir::default().parse_inside(&text).unwrap();
    assert_eq!(rest, b"\xff");
}
