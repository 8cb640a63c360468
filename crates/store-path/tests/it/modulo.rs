// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashes modulo self references.

use std::io::Write;

use superpose_store_path::{
    Hash, HashAlgorithm, HashEncoding, HashPart, ModuloGeneration, ModuloHasher, hash_bytes,
};

const MODULUS: &str = "cpv036s16plfxg66s29rvfz3bn0cd63k";

/// The hash by definition: on the whole text, without any streaming.
fn reference(text: &[u8], generation: ModuloGeneration) -> Hash {
    let mut blanked = text.to_vec();
    let mut trailer = String::new();
    let mut at = 0;
    while at + 32 <= blanked.len() {
        if &blanked[at..at + 32] == MODULUS.as_bytes() {
            blanked[at..at + 32].fill(0);
            trailer += &format!("|{at}");
            at += 32;
        } else {
            at += 1;
        }
    }
    if generation == ModuloGeneration::WithOffsets {
        blanked.extend_from_slice(trailer.as_bytes());
    }
    hash_bytes(HashAlgorithm::Sha256, &blanked)
}

pub(crate) fn streamed(text: &[u8], cuts: &[usize], generation: ModuloGeneration) -> (Hash, u64) {
    let modulus = HashPart::parse(MODULUS.as_bytes()).unwrap();
    let mut hasher = ModuloHasher::new(HashAlgorithm::Sha256, modulus, generation);
    let mut rest = text;
    for &cut in cuts {
        let (now, later) = rest.split_at(cut.min(rest.len()));
        hasher.write_all(now).unwrap();
        rest = later;
    }
    hasher.update(rest);
    let occurrences = hasher.occurrences();
    (hasher.finish(), occurrences)
}

pub(crate) fn check(text: &[u8], cuts: &[usize]) {
    for generation in [ModuloGeneration::Plain, ModuloGeneration::WithOffsets] {
        let (hash, _) = streamed(text, cuts, generation);
        assert_eq!(
            hash,
            reference(text, generation),
            "{generation:?}, cut at {cuts:?}"
        );
    }
}

#[test]
fn both_generations() {
    let text = format!("nix-archive-1 demo {MODULUS} and {MODULUS} end");
    for (generation, expected) in [
        (
            ModuloGeneration::Plain,
            "5a20ceb580225bea52f892879e18c627c2dd6b0df0faf71075d27ebc29694dd9",
        ),
        (
            ModuloGeneration::WithOffsets,
            "351f14d9c53e9b37a13d149cc2874294a7f6134709391c07623445912f299a5f",
        ),
    ] {
        let (hash, occurrences) = streamed(text.as_bytes(), &[], generation);
        assert_eq!(hash.render_bare(HashEncoding::Base16), expected);
        assert_eq!(occurrences, 2);
    }
}

#[test]
fn archive_of_an_object_that_holds_its_own_path() {
    let content = format!("me=/nix/store/{MODULUS}-self\n");
    let mut archive = Vec::new();
    for text in [
        &b"nix-archive-1"[..],
        b"(",
        b"type",
        b"regular",
        b"contents",
        content.as_bytes(),
        b")",
    ] {
        archive.extend_from_slice(&(text.len() as u64).to_le_bytes());
        archive.extend_from_slice(text);
        archive.resize(archive.len().next_multiple_of(8), 0);
    }
    assert_eq!(archive.len(), 168);
    assert_eq!(&archive[110..142], MODULUS.as_bytes());
    let (hash, _) = streamed(&archive, &[], ModuloGeneration::Plain);
    assert_eq!(
        hash.render_bare(HashEncoding::Nix32),
        "1ai5yh0kgw48rd682qlhycg40cizpxdq3kqwydzni9dldvn0dylk"
    );
}

#[test]
fn without_occurrence_nothing_changes() {
    for text in [&b""[..], b"a", &MODULUS.as_bytes()[..31], &[b'c'; 100]] {
        for generation in [ModuloGeneration::Plain, ModuloGeneration::WithOffsets] {
            let (hash, occurrences) = streamed(text, &[], generation);
            assert_eq!(hash, hash_bytes(HashAlgorithm::Sha256, text));
            assert_eq!(occurrences, 0);
        }
    }
}

#[test]
fn occurrences_across_every_cut() {
    let text = format!("{}{MODULUS}c{MODULUS}{MODULUS}{}k", &MODULUS[..17], &MODULUS[5..]);
    for first in 0..text.len() {
        for second in [0, 1, 2, 31, 32, 33, 64] {
            check(text.as_bytes(), &[first, second]);
        }
    }
    check(text.as_bytes(), &vec![1; text.len()]);
    check(text.as_bytes(), &vec![3; text.len()]);
    check(text.as_bytes(), &vec![31; text.len()]);
}

#[test]
fn far_apart_occurrences() {
    let mut text = vec![b'x'; 70_000];
    for at in [0, 127, 255, 16_384, 16_500, 69_968] {
        text[at..at + 32].copy_from_slice(MODULUS.as_bytes());
    }
    check(&text, &[]);
    check(&text, &[4096; 20]);
}
