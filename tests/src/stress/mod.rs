// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything at once: processes that add, collect, deduplicate, delete, verify and read on one overlay store, for a
//! while. What a root keeps must be there and whole at every moment; in the end nothing else is.
//!
//! Two suites share it, alone and beside stock Nix. It is the one part of the harness that knows what a store must do.
//!
//! How the processes meet is chance; what each of them does is chosen by a seed. `SUPERPOSE_SEED` takes that again,
//! `SUPERPOSE_STRESS_SECONDS` says how long.

mod actors;
mod adder;
mod ground;
mod object;
mod verdict;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::{Seeded, StockNix, seed};
use ground::Ground;
pub(crate) use object::Content;

/// How long the processes run unless the environment says otherwise.
const TIME: Duration = Duration::from_secs(10);

/// Says how long, in seconds.
const TIME_VARIABLE: &str = "SUPERPOSE_STRESS_SECONDS";

/// Who is at work beside superpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody: superpose adds, too, what was deleted a moment ago.
    Alone,
    /// Stock Nix. What is dead is not added again: up to 2.34 its collector may delete a dead path with referrers that
    /// somebody protects while it is at work.
    Stock(StockNix),
}

/// Somebody who works until the time is over.
type Actor = fn(&Ground, Seeded) -> Result<u32>;

/// Lets all of them loose on one store, and then judges what they left.
///
/// # Errors
/// If anything went wrong: the error names the seed.
pub fn stress(company: Company) -> Result<()> {
    let seed = seed()?;
    let time = match std::env::var(TIME_VARIABLE) {
        Ok(text) => Duration::from_secs(text.parse().with_context(|| format!("{TIME_VARIABLE}={text}"))?),
        Err(_) => TIME,
    };
    stress_with(company, seed, time).with_context(|| format!("SUPERPOSE_SEED={seed}"))
}

fn stress_with(company: Company, seed: u64, time: Duration) -> Result<()> {
    let ground = Ground::new(company, Instant::now() + time)?;
    let mut actors: Vec<(&str, Actor)> = vec![
        ("an adder", adder::superpose),
        ("another adder", adder::superpose),
        ("a collector", actors::collect),
        ("an optimiser", actors::optimise),
        ("a deleter", actors::delete),
        ("a verifier", actors::verify),
        ("a reader of files", actors::read_files),
        ("a reader of rows", actors::read_rows),
    ];
    if let Company::Stock(_) = company {
        actors.push(("stock Nix, adding", adder::stock));
        actors.push(("stock Nix, collecting", actors::collect_with_stock));
        actors.push(("stock Nix, reading", actors::read_with_stock));
    }
    let done = thread::scope(|scope| {
        let running: Vec<_> = (0..)
            .zip(&actors)
            .map(|(number, &(name, actor))| {
                let ground = &ground;
                let seeded = Seeded::new(seed.wrapping_add(number));
                let handle = scope.spawn(move || {
                    let done = actor(ground, seeded);
                    if done.is_err() {
                        // What follows would only hide it.
                        ground.stop();
                    }
                    done
                });
                (name, handle)
            })
            .collect();
        let ended = running.into_iter().map(|(name, handle)| {
            let done = handle.join().map_err(|_| anyhow!("{name} panicked"))?;
            let count = done.with_context(|| format!("what {name} saw"))?;
            Ok((name, count))
        });
        // All of them are waited for, also when one failed.
        let ended: Vec<Result<_>> = ended.collect();
        ended.into_iter().collect::<Result<Vec<_>>>()
    })?;
    for (name, count) in done {
        // On a machine so loaded that somebody never had a turn, the trial would say nothing.
        anyhow::ensure!(count > 0, "{name} did nothing");
    }
    verdict::judge(&ground)
}

/// Whether the time is over, or somebody failed.
#[derive(Debug)]
struct Clock {
    until: Instant,
    is_stopped: AtomicBool,
}

impl Clock {
    fn is_over(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

/// Removes a link that is there.
fn remove_link(link: &std::path::Path) -> Result<()> {
    fs::remove_file(link).with_context(|| format!("removing {}", link.display()))
}
