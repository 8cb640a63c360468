// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of what the cores can read and hash a verification of large objects reaches. Everything is in memory:
//! the disk would be measured otherwise.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sha2::{Digest, Sha256};
use superpose_tests::Seeded;

use crate::cases::{Sizes, Upper};
use crate::generate::{Generated, make_upper};
use crate::layers::Layers;
use crate::measure;
use crate::runs::{Bench, RUNS};
use crate::table::Samples;

/// How many large objects there are.
const OBJECTS: u32 = 16;

/// The piece of memory that is hashed over and over: larger than what processors keep near them.
const PIECE: usize = 64 << 20;

/// What a thread that hashes a file reads at once: with more, it is no longer in the second cache when it is hashed.
const READ: usize = 128 << 10;

/// Three ways to hash as many bytes, each on all cores.
#[derive(Debug)]
pub(crate) struct Hashing {
    pub(crate) bytes: u64,
    /// The bare hash, of bytes that are in the memory of the process.
    pub(crate) bare: Duration,
    /// A loop that reads the same files and hashes them.
    pub(crate) files: Duration,
    pub(crate) verify: Samples,
}

impl Hashing {
    /// Measures the three in turn.
    pub(crate) fn measure(bench: &Bench, sizes: Sizes) -> Result<Self> {
        let bytes = sizes.bulk;
        let memory = &bench.stage.memory;
        let lower = Generated::new(&memory.join("bulk"), OBJECTS, &[]);
        eprintln!(
            "making {OBJECTS} objects of {} MiB",
            (bytes >> 20) / u64::from(OBJECTS)
        );
        lower.make_of_large(bytes / u64::from(OBJECTS))?;
        let pristine = memory.join("bulk.pristine");
        let upper = Upper::knowing(OBJECTS);
        make_upper(&pristine, &lower, &upper)?;
        let mut layers = Layers::make(
            &memory.join("verify"),
            &lower,
            &upper,
            &pristine,
            &memory.join("verify.copied"),
        )?;
        let program = bench.superpose.with(&[
            "--store".into(),
            layers.url().into(),
            "verify".into(),
            "--check-contents".into(),
        ]);
        let output = bench.stage.work.join("verify.out");
        let objects: Vec<PathBuf> = lower
            .first(OBJECTS)
            .iter()
            .map(|path| lower.store().join(path.base_name()))
            .collect();
        let threads = thread::available_parallelism()?.get();
        let mut bare = Vec::new();
        let mut files = Vec::new();
        let mut verify = Samples::default();
        for _ in 0..bench.runs.unwrap_or(RUNS) {
            bare.push(hash_memory(bytes, threads)?);
            files.push(hash_files(&objects, threads)?);
            let sample = measure::run(&program, &output)?;
            eprintln!(
                "verify-large   bare {:.1?}, files {:.1?}, superpose {:.1?}",
                bare[bare.len() - 1],
                files[files.len() - 1],
                sample.wall
            );
            verify.0.push(sample);
        }
        layers.damage(&lower.library())?;
        anyhow::ensure!(
            measure::run(&program, &output).is_err(),
            "superpose does not see that an object changed"
        );
        Ok(Self {
            bytes,
            bare: median(bare),
            files: median(files),
            verify,
        })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Hashes so many bytes in all, on so many threads.
fn hash_memory(bytes: u64, threads: usize) -> Result<Duration> {
    let pieces: Vec<Vec<u8>> = (0..threads as u64)
        .map(|thread| {
            let mut piece = vec![0; PIECE];
            Seeded::new(thread).fill(&mut piece);
            piece
        })
        .collect();
    let each = bytes / threads as u64;
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = pieces
            .iter()
            .map(|piece| {
                scope.spawn(move || {
                    let mut hasher = Sha256::new();
                    let mut left = each;
                    while left > 0 {
                        let part = left.min(piece.len() as u64);
                        hasher.update(&piece[..usize::try_from(part).unwrap_or(piece.len())]);
                        left -= part;
                    }
                    hasher.finalize()
                })
            })
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow!("a thread that hashes panicked"))?;
        }
        Ok(started.elapsed())
    })
}

/// Reads and hashes files, on so many threads.
fn hash_files(files: &[PathBuf], threads: usize) -> Result<Duration> {
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = files
            .chunks(files.len().div_ceil(threads))
            .map(|files| scope.spawn(move || files.iter().try_for_each(|file| hash_file(file))))
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow!("a thread that hashes panicked"))??;
        }
        Ok(started.elapsed())
    })
}

fn hash_file(file: &Path) -> Result<()> {
    let mut file = File::open(file)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    hasher.finalize();
    Ok(())
}
