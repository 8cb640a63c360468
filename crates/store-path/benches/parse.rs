// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long the texts take that are read and written for each path of a query, and store URLs.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use superpose_store_path::{
    Defaults, Derivation, Hash, HashAlgorithm, HashEncoding, HashPart, ModuloGeneration, ModuloHasher,
    ModuloMemo, Name, StoreDir, StorePath, StoreReference, hash_bytes, nix32,
};

fn nix32(c: &mut Criterion) {
    let bytes: [u8; 32] = std::array::from_fn(|at| at as u8 * 7);
    let short: [u8; 20] = std::array::from_fn(|at| at as u8 * 11);
    let text = nix32::encode(&bytes);
    let short_text = nix32::encode(&short);
    let mut group = c.benchmark_group("nix32");
    group.bench_function("encode32", |b| b.iter(|| nix32::encode(black_box(&bytes))));
    group.bench_function("encode20_array", |b| {
        b.iter(|| nix32::encode20(black_box(&short)))
    });
    group.bench_function("decode32", |b| {
        b.iter(|| nix32::decode(black_box(text.as_bytes()), 32))
    });
    group.bench_function("decode20_array", |b| {
        b.iter(|| nix32::decode_array::<20>(black_box(short_text.as_bytes())));
    });
    group.finish();
}

fn paths(c: &mut Criterion) {
    let dir = StoreDir::default();
    let base = "0y839a054fcnhjcd2w1pb6a4k4fl38iw-python3.12-cryptography-43.0.1-dist";
    let full = format!("/nix/store/{base}");
    let odd = format!("/nix/./store//{base}/bin/..");
    let path: StorePath = base.parse().expect("a good path");
    let mut group = c.benchmark_group("path");
    group.bench_function("base_name", |b| {
        b.iter(|| StorePath::from_base_name(black_box(base.as_bytes())))
    });
    group.bench_function("full", |b| b.iter(|| dir.parse_path(black_box(full.as_bytes()))));
    group.bench_function("full_not_canonical", |b| {
        b.iter(|| dir.parse_path(black_box(odd.as_bytes())))
    });
    group.bench_function("hash_part", |b| b.iter(|| black_box(&path).hash_part()));
    group.bench_function("join", |b| b.iter(|| dir.join(black_box(&path))));
    group.finish();
}

fn hashes(c: &mut Criterion) {
    let hash = hash_bytes(HashAlgorithm::Sha256, b"abc");
    let mut group = c.benchmark_group("hash");
    for (name, encoding) in [
        ("base16", HashEncoding::Base16),
        ("nix32", HashEncoding::Nix32),
        ("sri", HashEncoding::Sri),
    ] {
        let text = hash.render(encoding);
        group.bench_function(format!("parse_{name}"), |b| {
            b.iter(|| Hash::parse(black_box(text.as_bytes())))
        });
        group.bench_function(format!("render_{name}"), |b| {
            b.iter(|| black_box(&hash).render(encoding))
        });
    }
    group.finish();

    let stream = vec![b'x'; 1 << 20];
    let modulus = HashPart::parse(b"0y839a054fcnhjcd2w1pb6a4k4fl38iw").expect("a good hash part");
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("sha256", |b| {
        b.iter(|| hash_bytes(HashAlgorithm::Sha256, black_box(&stream)))
    });
    group.bench_function("sha256_modulo", |b| {
        b.iter(|| {
            let mut hasher = ModuloHasher::new(HashAlgorithm::Sha256, modulus, ModuloGeneration::WithOffsets);
            hasher.update(black_box(&stream));
            hasher.finish()
        });
    });
    group.finish();
}

fn urls(c: &mut Criterion) {
    let plain = b"/mnt/a?read-only=true";
    let overlay = b"local-overlay://?root=/mnt/m&lower-store=/mnt/a%3Fread-only%3Dtrue&upper-layer=/mnt/b";
    let (reference, _) = StoreReference::parse(overlay, b"/").expect("a good URL");
    let mut group = c.benchmark_group("url");
    group.bench_function("plain", |b| {
        b.iter(|| StoreReference::parse(black_box(plain), b"/"))
    });
    group.bench_function("overlay", |b| {
        b.iter(|| StoreReference::parse(black_box(overlay), b"/"))
    });
    group.bench_function("render", |b| b.iter(|| black_box(&reference).to_string()));
    let defaults = Defaults::default();
    group.bench_function("settings", |b| {
        b.iter(|| black_box(&reference).settings(&defaults))
    });
    group.finish();
}

fn derivations(c: &mut Criterion) {
    let dir = StoreDir::default();
    let text = include_bytes!("../tests/it/derivations/arwfdzpy5hyainy3jj0x4mz65i7bc2j8-multi.drv");
    let path: StorePath = "arwfdzpy5hyainy3jj0x4mz65i7bc2j8-multi.drv"
        .parse()
        .expect("a good path");
    let name = Name::new(b"multi").expect("a good name");
    let derivation = Derivation::parse(text, &dir, &name).expect("a good derivation");
    let mut group = c.benchmark_group("derivation");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| Derivation::parse(black_box(text), &dir, &name))
    });
    group.bench_function("render", |b| b.iter(|| black_box(&derivation).render(&dir)));
    group.bench_function("check", |b| {
        b.iter(|| {
            derivation.check(&path, &dir, &mut ModuloMemo::new(), &mut |_| {
                Err("has no inputs".into())
            })
        });
    });
    group.finish();
}

criterion_group!(benches, nix32, paths, hashes, urls, derivations);
criterion_main!(benches);
