// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long it takes to write and read what is asked and answered about 10,000 paths.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;
use std::io::BufReader;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use superpose_store_path::{HashAlgorithm, HashPart, Name, Signature, StorePath, hash_bytes};
use superpose_worker_protocol::{
    Dialect, Limits, Operation, Request, UnkeyedValidPathInfo, WireReader, WireWriter, read_reply,
    write_reply,
};

const COUNT: u64 = 10_000;

/// References of each path: as many as a real store has on average.
const REFERENCES: u64 = 5;

fn path(number: u64) -> StorePath {
    let hash = hash_bytes(HashAlgorithm::Sha1, &number.to_le_bytes());
    let name = Name::new(format!("package-{number}-1.2.3").as_bytes()).expect("a good name");
    StorePath::from_parts(HashPart::new(hash.compress()), &name)
}

fn info(number: u64) -> UnkeyedValidPathInfo {
    let signature = format!("cache.example.org-1:{}", "A".repeat(86) + "==");
    UnkeyedValidPathInfo {
        deriver: Some(format!("{}.drv", path(number)).parse().expect("a good path")),
        references: (number.saturating_sub(REFERENCES)..number).map(path).collect(),
        registration_time: 1_700_000_000,
        signatures: [Signature::parse(signature.as_bytes()).expect("a good signature")].into(),
        ..UnkeyedValidPathInfo::new(hash_bytes(HashAlgorithm::Sha256, &number.to_le_bytes()), 4096)
    }
}

fn path_infos(c: &mut Criterion) {
    let dialect = Dialect::default();
    let operation = Operation::QueryPathInfo;
    let requests: Vec<Request> = (0..COUNT)
        .map(|number| Request::QueryPathInfo(path(number)))
        .collect();
    let infos: Vec<Option<UnkeyedValidPathInfo>> = (0..COUNT).map(|number| Some(info(number))).collect();
    let asked = |memory: Vec<u8>| {
        let mut out = WireWriter::new(memory);
        for request in &requests {
            request.write(&mut out, &dialect).expect("memory does not fail");
        }
        out.into_inner()
    };
    let answered = |memory: Vec<u8>| {
        let mut out = WireWriter::new(memory);
        for info in &infos {
            write_reply(&mut out, operation, &dialect, info).expect("memory does not fail");
        }
        out.into_inner()
    };
    let (questions, answers) = (asked(Vec::new()), answered(Vec::new()));

    let mut group = c.benchmark_group("path_info");
    group.throughput(Throughput::Elements(COUNT));
    group.bench_function("write_requests", |b| {
        let mut memory = Vec::with_capacity(questions.len());
        b.iter(|| {
            memory.clear();
            memory = asked(std::mem::take(&mut memory));
        });
    });
    group.bench_function("read_requests", |b| {
        b.iter(|| {
            let mut input = WireReader::new(BufReader::new(&questions[..]), Limits::for_requests());
            while let Some(request) = Request::read(&mut input, &dialect).expect("what was written") {
                black_box(request);
            }
        });
    });
    group.bench_function("write_replies", |b| {
        let mut memory = Vec::with_capacity(answers.len());
        b.iter(|| {
            memory.clear();
            memory = answered(std::mem::take(&mut memory));
        });
    });
    group.bench_function("read_replies", |b| {
        b.iter(|| {
            let mut input = WireReader::new(BufReader::new(&answers[..]), Limits::for_replies());
            for _ in 0..COUNT {
                let info: Option<UnkeyedValidPathInfo> = read_reply(&mut input, operation, &dialect, |_| {})
                    .expect("what was written")
                    .expect("no error");
                black_box(info);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, path_infos);
criterion_main!(benches);
