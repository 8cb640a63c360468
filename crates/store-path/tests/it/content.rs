// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content addresses, and the paths that follow from them.

use superpose_store_path::{
    ContentAddress, ContentMethod, Hash, HashAlgorithm, Name, References, StoreDir, StorePath, hash_bytes,
};

fn refs(paths: &[&str], itself: bool) -> References {
    let others = paths.iter().map(|path| path.parse().unwrap()).collect();
    References { others, itself }
}

#[test]
fn paths_of_the_file_abc() {
    fn check(path: &str, ca: &str) {
        let dir = StoreDir::default();
        let path: StorePath = path.parse().unwrap();
        let parsed = ContentAddress::parse(ca.as_bytes()).unwrap();
        assert_eq!(parsed.to_string(), ca);
        let name = Name::new(path.name().as_bytes()).unwrap();
        assert_eq!(
            dir.content_path(&name, &parsed, &References::default()).unwrap(),
            path
        );
        assert!(dir.is_content_addressed(&path, &parsed, []));
        assert!(
            !StoreDir::new(b"/foo")
                .unwrap()
                .is_content_addressed(&path, &parsed, [])
        );
    }
    check(
        "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc",
        "fixed:r:sha256:0c2jffsl15masdjkw0akr32jl4daplrwaq81lapg84nqai3ip9qi",
    );
    check(
        "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc",
        "fixed:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    );
    check(
        "4m8jzc77isfnw2l9w1hk7a98zpirgrwv-abc",
        "fixed:sha1:kpcd173cq987hw957sx6m0868wv3x6d9",
    );
    check(
        "0fmibi09sjy2mxap87y4kibl1n7caidm-abc",
        "fixed:md5:3jgzhjhz9zjvbb0kyj7jc500ch",
    );
    check(
        "rjjvrs6jsa7i9ii7z79qz9wflrwb21lj-abc",
        "fixed:r:sha1:309rcyrpi82p2kl4d3iv23lb3i6zq90k",
    );
    check(
        "lxmglk2bg5jgcc2iznfxj6b2qrx6zpk4-abc",
        "fixed:r:sha512:2qbna8nnd2hhifz0jjl96x34caw0rp17cyrsshcxcslspsmhvcqnxbw8icpcq35pfzi5i94xphys31ay143p\
         633rq2vq98gyxy56m6h",
    );
    check(
        "cs3aa00vzd3c96ym3qkk497fm2vyn9fq-abc",
        "fixed:git:sha1:gwxhkiygb4cwnhdlly2cw6swmf28zfpj",
    );
    check(
        "fl30xbg34jlv7n3q433hv84yn8cmwc28-abc",
        "fixed:git:sha256:19impbm3k5hfsqkzd5nrvlls4wig80fn8djivj40x4vpa136xky1",
    );
    check(
        "26nci8mz5f9aldbsgmalpkj20xyqqd5c-abc",
        "text:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    );
    check(
        "0g1savw1cf7pji42hasyx0smc4aw15nw-t.txt",
        "text:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    );
}

#[test]
fn text_with_a_reference() {
    let reference = "0g1savw1cf7pji42hasyx0smc4aw15nw-t.txt";
    let hash = hash_bytes(
        HashAlgorithm::Sha256,
        format!("ref /nix/store/{reference}").as_bytes(),
    );
    let ca = ContentAddress {
        method: ContentMethod::Text,
        hash,
    };
    let references = refs(&[reference], false);
    let name = Name::new(b"t2.txt").unwrap();
    let path = StoreDir::default().content_path(&name, &ca, &references).unwrap();
    assert_eq!(path.base_name(), "yk40fqi6fqr6wylxn2daisj3b91gdvqh-t2.txt");
    assert!(StoreDir::default().is_content_addressed(&path, &ca, &references.others));
    assert!(!StoreDir::default().is_content_addressed(&path, &ca, []));
}

#[test]
fn source_that_refers_to_itself() {
    let ca: ContentAddress = "fixed:r:sha256:1ai5yh0kgw48rd682qlhycg40cizpxdq3kqwydzni9dldvn0dylk"
        .parse()
        .unwrap();
    let path: StorePath = "cpv036s16plfxg66s29rvfz3bn0cd63k-self".parse().unwrap();
    let name = Name::new(b"self").unwrap();
    assert_eq!(
        StoreDir::default()
            .content_path(&name, &ca, &refs(&[], true))
            .unwrap(),
        path
    );
    assert!(StoreDir::default().is_content_addressed(&path, &ca, [&path]));
    assert!(!StoreDir::default().is_content_addressed(&path, &ca, []));
}

#[test]
fn the_store_directory_is_part_of_the_path() {
    // The archive of a file that holds `one` and a newline.
    let mut archive = Vec::new();
    for text in [
        &b"nix-archive-1"[..],
        b"(",
        b"type",
        b"regular",
        b"contents",
        b"one\n",
        b")",
    ] {
        archive.extend_from_slice(&(text.len() as u64).to_le_bytes());
        archive.extend_from_slice(text);
        archive.resize(archive.len().next_multiple_of(8), 0);
    }
    let hash = hash_bytes(HashAlgorithm::Sha256, &archive);
    let ca = ContentAddress {
        method: ContentMethod::Nar,
        hash,
    };
    for (dir, expected) in [
        ("/nix/store", "6r2iy86mpsrlyhz18a9ydvsf3qsybjw2-one"),
        ("/foo/store", "kjjlqbxk8gc7p6mbwbp3d17ix3szp715-one"),
    ] {
        let dir = StoreDir::new(dir.as_bytes()).unwrap();
        let path = dir
            .content_path(&Name::new(b"one").unwrap(), &ca, &References::default())
            .unwrap();
        assert_eq!(path.base_name(), expected);
    }
}

#[test]
fn combinations_that_cannot_be() {
    fn check(method: ContentMethod, algorithm: HashAlgorithm, references: &References) {
        let ca = ContentAddress {
            method,
            hash: hash_bytes(algorithm, b""),
        };
        let path = StoreDir::default().content_path(&Name::new(b"a").unwrap(), &ca, references);
        assert!(path.is_err(), "{method:?} {algorithm} {references:?}");
    }
    let none = References::default();
    let other = refs(&["0g1savw1cf7pji42hasyx0smc4aw15nw-t.txt"], false);
    let itself = refs(&[], true);
    for references in [&other, &itself] {
        check(ContentMethod::Flat, HashAlgorithm::Sha256, references);
        check(ContentMethod::Nar, HashAlgorithm::Sha1, references);
        check(ContentMethod::Nar, HashAlgorithm::Sha512, references);
        check(ContentMethod::Git, HashAlgorithm::Sha1, references);
    }
    check(ContentMethod::Text, HashAlgorithm::Sha256, &itself);
    check(ContentMethod::Text, HashAlgorithm::Sha1, &none);
    check(ContentMethod::Git, HashAlgorithm::Md5, &none);
    check(ContentMethod::Git, HashAlgorithm::Sha512, &none);
}

#[test]
fn accepted_content_addresses() {
    let hash = hash_bytes(HashAlgorithm::Sha256, b"abc");
    for (text, method) in [
        ("text:", ContentMethod::Text),
        ("fixed:", ContentMethod::Flat),
        ("fixed:r:", ContentMethod::Nar),
        ("fixed:git:", ContentMethod::Git),
    ] {
        for body in [
            "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        ] {
            let parsed = ContentAddress::parse(format!("{text}sha256:{body}").as_bytes()).unwrap();
            assert_eq!(parsed, ContentAddress { method, hash });
        }
    }
}

#[test]
fn refused_content_addresses() {
    let hash = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
    for text in [
        String::new(),
        format!("sha256:{hash}"),
        format!("fixed:text:sha256:{hash}"),
        format!("fixed:x:sha256:{hash}"),
        format!("text:r:sha256:{hash}"),
        format!("path:sha256:{hash}"),
        format!("fixed:sha256{hash}"),
        format!("fixed:r:{hash}"),
        "fixed:sha256:abc".to_owned(),
        "fixed:sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
        "fixed".to_owned(),
        "text:".to_owned(),
    ] {
        assert!(ContentAddress::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn references_of_an_object() {
    let itself: StorePath = "cpv036s16plfxg66s29rvfz3bn0cd63k-self".parse().unwrap();
    let other: StorePath = "0g1savw1cf7pji42hasyx0smc4aw15nw-t.txt".parse().unwrap();
    let found = References::of(&itself, [&itself, &other, &other]);
    assert_eq!(found, refs(&[other.base_name()], true));
    assert!(!found.is_empty());
    assert!(References::of(&itself, []).is_empty());
}

#[test]
fn output_names() {
    let dir = StoreDir::default();
    let hash = Hash::sha256([7; 32]);
    let drv = Name::new(b"multi").unwrap();
    assert_eq!(dir.output_path(&hash, &drv, "out").unwrap().name(), "multi");
    assert_eq!(dir.output_path(&hash, &drv, "dev").unwrap().name(), "multi-dev");
    let out = dir.output_path(&hash, &drv, "out").unwrap();
    assert_ne!(
        dir.output_path(&hash, &drv, "dev").unwrap().hash_part(),
        out.hash_part()
    );
    assert!(dir.output_path(&hash, &drv, "a/b").is_err());
    assert!(dir.output_path(&hash, &drv, &"x".repeat(211)).is_err());
}
