// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashes and their text forms.

use std::io::Write;

use superpose_store_path::{Hash, HashAlgorithm, HashEncoding, Hasher, hash_bytes, nix32};

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn algorithms() -> Vec<HashAlgorithm> {
    vec![
        HashAlgorithm::Md5,
        HashAlgorithm::Sha1,
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha512,
        #[cfg(feature = "blake3")]
        HashAlgorithm::Blake3,
    ]
}

#[test]
fn digests_of_abc() {
    fn check(algorithm: HashAlgorithm, encoding: HashEncoding, expected: &str) {
        let mut hasher = Hasher::new(algorithm);
        hasher.write_all(b"a").unwrap();
        hasher.update(b"bc");
        let hash = hasher.finish();
        assert_eq!(hash, hash_bytes(algorithm, b"abc"));
        assert_eq!(hash.render_bare(encoding), expected);
    }
    check(
        HashAlgorithm::Sha256,
        HashEncoding::Nix32,
        "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    );
    check(HashAlgorithm::Sha256, HashEncoding::Base16, ABC);
    check(
        HashAlgorithm::Sha1,
        HashEncoding::Nix32,
        "kpcd173cq987hw957sx6m0868wv3x6d9",
    );
    check(
        HashAlgorithm::Md5,
        HashEncoding::Nix32,
        "3jgzhjhz9zjvbb0kyj7jc500ch",
    );
    check(
        HashAlgorithm::Sha512,
        HashEncoding::Base16,
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    );
    #[cfg(feature = "blake3")]
    check(
        HashAlgorithm::Blake3,
        HashEncoding::Base16,
        "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
    );
}

#[test]
fn lengths_of_the_encodings() {
    fn check(algorithm: HashAlgorithm, base16: usize, base32: usize, base64: usize) {
        let hash = hash_bytes(algorithm, b"");
        assert_eq!(hash.digest().len(), algorithm.digest_len());
        assert_eq!(hash.render_bare(HashEncoding::Base16).len(), base16);
        assert_eq!(hash.render_bare(HashEncoding::Nix32).len(), base32);
        assert_eq!(hash.render_bare(HashEncoding::Base64).len(), base64);
    }
    check(HashAlgorithm::Md5, 32, 26, 24);
    check(HashAlgorithm::Sha1, 40, 32, 28);
    check(HashAlgorithm::Sha256, 64, 52, 44);
    check(HashAlgorithm::Sha512, 128, 103, 88);
    #[cfg(feature = "blake3")]
    check(HashAlgorithm::Blake3, 64, 52, 44);
}

#[test]
fn every_form_is_read_back() {
    for algorithm in algorithms() {
        let hash = hash_bytes(algorithm, b"abc");
        for encoding in [
            HashEncoding::Base16,
            HashEncoding::Nix32,
            HashEncoding::Base64,
            HashEncoding::Sri,
        ] {
            let text = hash.render(encoding);
            assert_eq!(Hash::parse(text.as_bytes()).unwrap(), hash, "{text}");
            let bare = hash.render_bare(encoding);
            assert_eq!(
                Hash::parse_unprefixed(bare.as_bytes(), algorithm).unwrap(),
                hash,
                "{bare}"
            );
        }
        assert_eq!(hash.to_string(), hash.render(HashEncoding::Nix32));
        assert_eq!(algorithm.to_string().parse::<HashAlgorithm>().unwrap(), algorithm);
        assert_eq!(Hash::new(algorithm, hash.digest()).unwrap(), hash);
        assert!(Hash::new(algorithm, &hash.digest()[1..]).is_err());
        assert!(Hash::new(algorithm, &[0; 65]).is_err());
    }
}

#[test]
fn accepted_forms() {
    let expected = Hash::parse(format!("sha256:{ABC}").as_bytes()).unwrap();
    for text in [
        format!("sha256:{}", ABC.to_uppercase()),
        "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s".to_owned(),
        "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
        "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
        "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0".to_owned(),
    ] {
        assert_eq!(Hash::parse(text.as_bytes()).unwrap(), expected, "{text}");
    }
}

#[test]
fn refused_forms() {
    for text in [
        String::new(),
        "sha256".to_owned(),
        "sha256:".to_owned(),
        "sha256-".to_owned(),
        ABC.to_owned(),
        format!("SHA256:{ABC}"),
        format!("sha257:{ABC}"),
        format!("sha1:{ABC}"),
        format!("sha256-{ABC}"),
        format!("sha256:{ABC}0"),
        format!("sha256:g{}", &ABC[1..]),
        // Upper-case nix32, and a bit too many in it.
        "sha256:1B8M03R63ZQHNJF7L5WNLDHH7C134AP5VPJ0850YMKQ1IYZICY5S".to_owned(),
        "sha256:zb8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s".to_owned(),
        // With `:` the padding counts.
        "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0".to_owned(),
        "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0==".to_owned(),
        "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0A".to_owned(),
        "sha512-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
    ] {
        assert!(Hash::parse(text.as_bytes()).is_err(), "{text}");
    }
    #[cfg(not(feature = "blake3"))]
    assert!(Hash::parse(format!("blake3:{ABC}").as_bytes()).is_err());
}

#[test]
fn folding() {
    let hash =
        Hash::parse(b"sha256:63a20a62c36d7282bfb02ddaf756bcf2ce33f0ef1458a2e8f5a7bf46095fb7bb").unwrap();
    assert_eq!(
        nix32::encode(&hash.compress()),
        "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp"
    );
    let sha1 = hash_bytes(HashAlgorithm::Sha1, b"abc");
    assert_eq!(&sha1.compress()[..], sha1.digest());
}

#[test]
fn sloppy_base64_is_read_as_by_nix() {
    const DIGITS: &str = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa";
    fn check(text: &str, is_hash: bool) {
        let expected: Hash = format!("sha256:{ABC}").parse().unwrap();
        let parsed = Hash::parse(text.as_bytes()).ok();
        assert_eq!(parsed, is_hash.then_some(expected), "{text:?}");
    }
    for (tail, is_hash) in [
        ("0=", true),
        ("1=", true),
        ("0", true),
        ("\n0=", true),
        ("0=xyz", true),
        ("0==", true),
        ("", false),
        ("00", false),
        ("000", false),
        ("-=", false),
    ] {
        check(&format!("sha256-{DIGITS}{tail}"), is_hash);
        // Without the dash the length has to be that of base64 with padding.
        let fits = DIGITS.len() + tail.len() == 44;
        check(&format!("sha256:{DIGITS}{tail}"), is_hash && fits);
    }
}

#[test]
fn an_algorithm_that_is_left_out_is_said_to_be() {
    let parsed = HashAlgorithm::parse(b"blake3");
    if cfg!(feature = "blake3") {
        assert_eq!(parsed.unwrap().as_str(), "blake3");
    } else {
        let message = parsed.unwrap_err().to_string();
        assert!(
            message.ends_with("as this build is without its feature `blake3`"),
            "{message}"
        );
    }
}
