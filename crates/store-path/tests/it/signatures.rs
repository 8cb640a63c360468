// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signatures.

use superpose_store_path::Signature;

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
fn order_is_that_of_the_text() {
    let signature = |text: &str| Signature::parse(text.as_bytes()).unwrap();
    assert!([signature("a-1:YWJj"), signature("a:YWJj"), signature("b:YWJj")].is_sorted());
}
