// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signatures.

use superpose_store_path::{HashAlgorithm, Signature, StoreDir, StorePath, hash_bytes};

#[test]
fn forms() {
    fn check(text: &str, key: Option<&str>) {
        let parsed = Signature::parse(text.as_bytes()).ok();
        assert_eq!(parsed.as_ref().map(Signature::key_name), key, "{text:?}");
        assert!(parsed.is_none_or(|signature| signature.as_str() == text && signature.to_string() == text));
    }
    check("cache.example.org-1:YWJj", Some("cache.example.org-1"));
    check("k:YQ==", Some("k"));
    check("k:YQ", Some("k"));
    check("k:", None);
    check(":YWJj", None);
    check("YWJj", None);
    check("", None);
    check("k:not base64", None);
    check("a b:YWJj", None);
    check("k:YWJj\n", None);
    check("k:YWJj k2:YWJj", None);
    check("k:x:YWJj", None);
    assert!(Signature::parse(b"\xff:YWJj").is_err());
}

#[test]
fn sloppy_forms_on_record() {
    fn check(text: &str, expected: Option<&str>) {
        let parsed = Signature::parse_lenient(text.as_bytes()).ok();
        assert_eq!(parsed.as_ref().map(Signature::as_str), expected, "{text:?}");
        if expected.is_some_and(|expected| expected != text) {
            assert!(Signature::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
    check("k:YQ==", Some("k:YQ=="));
    check("k:YQ", Some("k:YQ"));
    check("k:YQ=", Some("k:YQ=="));
    check("k:YR==", Some("k:YQ=="));
    check("k:Y\nQ", Some("k:YQ=="));
    check("k:YQ==YQ", Some("k:YQ=="));
    check("k:YWJj====", Some("k:YWJj"));
    check("k:", None);
    check("k:Y", None);
    check("k:====", None);
    check("k:Y Q", None);
    check("k::YQ", None);
    check("a b:YR==", None);
    check(":YR==", None);
    check("YR==", None);
    assert!(Signature::parse_lenient(b"\xff:YR==").is_err());
}

#[test]
fn order_is_that_of_the_text() {
    let signature = |text: &str| Signature::parse(text.as_bytes()).unwrap();
    assert!([signature("a-1:YWJj"), signature("a:YWJj"), signature("b:YWJj")].is_sorted());
}

#[test]
fn the_signed_text_names_path_hash_size_and_references() {
    let dir = StoreDir::default();
    let path = |text: &str| StorePath::from_base_name(text.as_bytes()).unwrap();
    let (one, two) = (
        path("0g1savw1cf7pji42hasyx0smc4aw15nw-one"),
        path("26nci8mz5f9aldbsgmalpkj20xyqqd5c-two"),
    );
    let hash = hash_bytes(HashAlgorithm::Sha256, b"abc");
    let digits = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
    assert_eq!(
        dir.fingerprint(&two, &hash, 120, []),
        format!("1;/nix/store/{two};sha256:{digits};120;")
    );
    assert_eq!(
        dir.fingerprint(&two, &hash, 120, [&two, &one, &two]),
        format!("1;/nix/store/{two};sha256:{digits};120;/nix/store/{one},/nix/store/{two}")
    );
}
