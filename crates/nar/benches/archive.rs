// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast archives are written, made into trees, scanned and copied.
//!
//! The trees are made below the directory that `TMPDIR` names; `TMPDIR=/dev/shm` takes the disk out of the figures.

#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot prepare its data has nothing to measure"
)]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use superpose_nar::{
    HashingWriter, ReferenceScanner, RestoreOptions, Taps, copy_tree, dump, hash_object, remove_tree,
    restore, restore_hashed,
};
use superpose_store_path::HashPart;

/// Size of the large file, in bytes.
const LARGE: usize = 256 << 20;
/// Shape of the tree of small files.
const DIRECTORIES: usize = 200;
const FILES_EACH: usize = 100;

/// Bytes without a pattern, the same in each run.
fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

fn prepare(base: &Path) {
    fs::write(base.join("large"), noise(LARGE, 1)).unwrap();
    fs::create_dir(base.join("small")).unwrap();
    for directory in 0..DIRECTORIES {
        let directory_path = base.join(format!("small/d{directory}"));
        fs::create_dir(&directory_path).unwrap();
        for file in 0..FILES_EACH {
            let seed = (directory * FILES_EACH + file + 1) as u64;
            fs::write(directory_path.join(format!("f{file}")), noise(1024, seed)).unwrap();
        }
    }
}

/// Times something that makes `made`, without the removal.
fn making(directory: &File, rounds: u64, mut make: impl FnMut()) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let start = Instant::now();
        make();
        total += start.elapsed();
        remove_tree(directory, "made").unwrap();
    }
    total
}

fn trees(c: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    prepare(scratch.path());
    let directory = File::open(scratch.path()).unwrap();
    let options = RestoreOptions::default();
    for name in ["large", "small"] {
        let mut archive = Vec::new();
        dump(&directory, name, &mut archive).unwrap();
        let mut group = c.benchmark_group(name);
        group
            .sample_size(10)
            .throughput(Throughput::Bytes(archive.len() as u64));
        group.bench_function("dump", |b| {
            b.iter(|| dump(&directory, name, &mut io::sink()).unwrap())
        });
        group.bench_function("dump-and-hash-in-turn", |b| {
            b.iter(|| dump(&directory, name, &mut HashingWriter::new(io::sink())).unwrap());
        });
        group.bench_function("hash", |b| b.iter(|| hash_object(&directory, name).unwrap()));
        group.bench_function("restore", |b| {
            b.iter_custom(|rounds| {
                making(&directory, rounds, || {
                    restore(&mut &archive[..], &directory, "made", &options).unwrap();
                })
            });
        });
        group.bench_function("restore-hashed", |b| {
            b.iter_custom(|rounds| {
                making(&directory, rounds, || {
                    restore_hashed(&mut &archive[..], &directory, "made", &options, Taps::none()).unwrap();
                })
            });
        });
        group.bench_function("copy", |b| {
            b.iter_custom(|rounds| {
                making(&directory, rounds, || {
                    copy_tree((&directory, name), (&directory, "made"), &options, Taps::none()).unwrap();
                })
            });
        });
        group.finish();
    }
}

fn scanning(c: &mut Criterion) {
    let parts: Vec<_> = (1..=1000)
        .map(|seed| HashPart::new(*noise(20, seed).first_chunk().unwrap()))
        .collect();
    let mut hexadecimal = Vec::new();
    for byte in noise(8 << 20, 7) {
        write!(hexadecimal, "{byte:02x}").unwrap();
    }
    let prose =
        b"The quick brown fox jumps over the lazy dog; /usr/lib/x86_64-linux-gnu/libc.so.6\n".repeat(200_000);
    let mut group = c.benchmark_group("scan");
    for (name, data) in [
        ("noise", noise(16 << 20, 3)),
        ("zeros", vec![0; 16 << 20]),
        ("prose", prose),
        ("hexadecimal", hexadecimal),
    ] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut scanner = ReferenceScanner::new(parts.iter().copied());
                for piece in data.chunks(256 << 10) {
                    scanner.update(black_box(piece));
                }
                scanner.found().len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, trees, scanning);
criterion_main!(benches);
