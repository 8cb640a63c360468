// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the usual questions and writes cost, over a generated store of 100,000 objects.
//!
//! The store is ten blocks of 10,000 objects. Within a block, each object refers to those below it in a tree, so that
//! the first one's closure is the block, and to three others further down; about two thirds refer to one hub.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot set up what it needs has failed"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use superpose_metadata::{Closure, Database, MemorySource, MetadataSource, OpenDatabase, PathInfo};
use superpose_store_path::{Hash, HashPart, Name, StoreDir, StorePath};
use tempfile::TempDir;

const BLOCKS: u64 = 10;
const BLOCK: u64 = 10_000;
/// Objects below each one in the tree.
const BRANCHES: u64 = 3;
/// References to others further down.
const EXTRA: u64 = 3;

/// A generator of the same numbers in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn path(numbers: &mut Numbers, name: &str) -> StorePath {
    let mut bytes = [0; 20];
    for chunk in bytes.chunks_mut(8) {
        let length = chunk.len();
        chunk.copy_from_slice(&numbers.next().to_le_bytes()[..length]);
    }
    StorePath::from_parts(HashPart::new(bytes), &Name::new(name.as_bytes()).unwrap())
}

/// Generates the store: the hub, then the blocks.
fn generate() -> (PathInfo, Vec<Vec<PathInfo>>) {
    let mut numbers = Numbers(1);
    let info = |numbers: &mut Numbers, path| {
        let mut hash = [0; 32];
        hash.fill_with(|| numbers.next() as u8);
        PathInfo {
            registration_time: 1_700_000_000,
            ..PathInfo::new(path, Hash::sha256(hash), numbers.below(1 << 24))
        }
    };
    let hub_path = path(&mut numbers, "glibc-2.40");
    let hub = info(&mut numbers, hub_path);
    let blocks = (0..BLOCKS)
        .map(|block| {
            let paths: Vec<StorePath> = (0..BLOCK)
                .map(|place| path(&mut numbers, &format!("package-{block}-{place}-1.2.3")))
                .collect();
            (0..BLOCK)
                .map(|place| {
                    let mut object = info(&mut numbers, paths[place as usize].clone());
                    let below =
                        (BRANCHES * place + 1..=BRANCHES * place + BRANCHES).filter(|&below| below < BLOCK);
                    let mut places: Vec<u64> = below.collect();
                    if place + 1 < BLOCK {
                        places.extend((0..EXTRA).map(|_| place + 1 + numbers.below(BLOCK - place - 1)));
                    }
                    object.references = places
                        .into_iter()
                        .map(|place| paths[place as usize].clone())
                        .collect();
                    if numbers.below(1000) < 640 {
                        object.references.push(hub.path.clone());
                    }
                    object.references.sort();
                    object.references.dedup();
                    object
                })
                .collect()
        })
        .collect();
    (hub, blocks)
}

struct Store {
    dir: TempDir,
    hub: PathInfo,
    blocks: Vec<Vec<PathInfo>>,
}

impl Store {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (hub, blocks) = generate();
        let store = Self { dir, hub, blocks };
        let mut database = Database::open(&store.options()).unwrap();
        let nothing = MemorySource::new(StoreDir::default());
        database
            .copy_in(std::slice::from_ref(&store.hub), &nothing)
            .unwrap();
        for block in &store.blocks {
            database.copy_in(block, &nothing).unwrap();
        }
        store
    }

    fn options(&self) -> OpenDatabase {
        OpenDatabase::read_write(self.dir.path(), StoreDir::default())
    }

    fn read_only(&self) -> OpenDatabase {
        OpenDatabase::read_only(self.dir.path(), StoreDir::default())
    }

    fn root(&self, block: usize) -> StorePath {
        self.blocks[block][0].path.clone()
    }

    /// Everything in one block, and the hub.
    fn closure(&self) -> Vec<PathInfo> {
        self.blocks[3].iter().chain([&self.hub]).cloned().collect()
    }
}

/// Measures `write` on an empty database that was opened beforehand.
fn on_empty(iterations: u64, write: impl Fn(&mut Database)) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..iterations {
        let dir = TempDir::new().unwrap();
        let mut database =
            Database::open(&OpenDatabase::read_write(dir.path(), StoreDir::default())).unwrap();
        let start = Instant::now();
        write(&mut database);
        total += start.elapsed();
    }
    total
}

fn benches(criterion: &mut Criterion) {
    let store = Store::new();
    let keep_all = |paths: &[StorePath]| Ok(vec![false; paths.len()]);
    criterion.bench_function("open/read-write", |bencher| {
        bencher.iter(|| Database::open(&store.options()).unwrap())
    });
    criterion.bench_function("open/read-only", |bencher| {
        bencher.iter(|| Database::open(&store.read_only()).unwrap())
    });
    for (name, options) in [("read-write", store.options()), ("read-only", store.read_only())] {
        let database = Database::open(&options).unwrap();
        let mut ask = |question: &str, expected: usize, ask: &dyn Fn() -> usize| {
            assert_eq!(ask(), expected, "{question}");
            criterion.bench_function(&format!("{question}/{name}"), |bencher| {
                bencher.iter(|| black_box(ask()))
            });
        };
        ask("path_infos of 1", 1, &|| {
            database.path_infos(&[store.root(5)]).unwrap().len()
        });
        let first: Vec<StorePath> = store.blocks[7].iter().map(|info| info.path.clone()).collect();
        ask("are_valid of 10000", 10_000, &|| {
            database.are_valid(&first).unwrap().len()
        });
        ask("path_infos of 10000", 10_000, &|| {
            database.path_infos(&first).unwrap().len()
        });
        ask("closure of 10001", 10_001, &|| {
            database
                .closure(&[store.root(5)], Closure::References)
                .unwrap()
                .len()
        });
        ask("closure_infos of 10001", 10_001, &|| {
            database
                .closure_infos(&[store.root(5)], &mut { keep_all })
                .unwrap()
                .len()
        });
        let referrers = database.referrers(std::slice::from_ref(&store.hub.path)).unwrap()[0].len();
        assert!((60_000..68_000).contains(&referrers));
        ask("referrers 64000", referrers, &|| {
            database.referrers(std::slice::from_ref(&store.hub.path)).unwrap()[0].len()
        });
        ask("all valid paths", 100_001, &|| {
            let mut count = 0;
            database
                .for_each_valid_path(&mut |path| {
                    black_box(path);
                    count += 1;
                    Ok(())
                })
                .unwrap();
            count
        });
    }
    let infos = store.closure();
    let references: usize = infos.iter().map(|info| info.references.len()).sum();
    assert!((45_000..48_000).contains(&references), "{references}");
    let nothing = MemorySource::new(StoreDir::default());
    criterion.bench_function("copy_in of 10001 into an empty database", |bencher| {
        bencher.iter_custom(|iterations| {
            on_empty(iterations, |database| {
                assert_eq!(database.copy_in(&infos, &nothing).unwrap().added, 10_001)
            })
        });
    });
    criterion.bench_function("register of 10001 into an empty database", |bencher| {
        bencher.iter_custom(|iterations| {
            on_empty(iterations, |database| {
                database
                    .register(&infos, &mut |_| Err("there are no derivations".into()))
                    .unwrap();
            })
        });
    });
    criterion.bench_function("register of 1 and invalidate it", |bencher| {
        let mut database = Database::open(&store.options()).unwrap();
        let mut numbers = Numbers(2);
        let new = PathInfo {
            references: vec![store.hub.path.clone()],
            ..PathInfo::new(path(&mut numbers, "new"), Hash::sha256([1; 32]), 1)
        };
        bencher.iter(|| {
            database
                .register(std::slice::from_ref(&new), &mut |_| {
                    Err("there are no derivations".into())
                })
                .unwrap();
            database.invalidate(std::slice::from_ref(&new.path)).unwrap()
        });
    });
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = benches
}
criterion_main!(all);
