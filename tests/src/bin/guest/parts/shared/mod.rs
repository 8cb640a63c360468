// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of several machines over one lower store that none of them can write: its own upper layer, and its own work on it.
//!
//! The first time the machine fills its layer and leaves a list of what has to be valid. Later it comes back with the same
//! disk, over a lower store that has grown in the meantime and holds some of what was added above.

mod store;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use superpose_tests::Seeded;

use crate::order::Order;
use crate::relay;
use store::Store;

/// Where the socket of the host's server is, if the lower store is asked by way of one.
const SOCKET: &str = "/run/lower-socket";

/// Does the phase that the order names.
pub(crate) fn run(order: &Order) -> Result<()> {
    if let Ok(address) = order.text("server") {
        relay::offer(Path::new(SOCKET), address)?;
    }
    let seed: u64 = order.text("seed")?.parse().context("the seed of the order")?;
    let number: u64 = order
        .text("number")?
        .parse()
        .context("the number of the machine")?;
    let steps: u32 = order.text("steps")?.parse().context("the steps of the order")?;
    let mut seeded = Seeded::new(seed.wrapping_add(number));
    let mut store = Store::mount(order.text("server").is_ok().then_some(SOCKET))?;
    let common = order.texts("common");
    let done = match order.text("phase")? {
        "first" => first(&mut store, &mut seeded, &common, seed, steps),
        "again" => again(&mut store, &mut seeded, &common, steps),
        other => bail!("there is no phase '{other}'"),
    };
    done.with_context(|| format!("seed {seed}, machine {number}"))?;
    store.leave()
}

/// What others will have below one day is added above, and then whatever the seed says.
fn first(store: &mut Store, seeded: &mut Seeded, common: &[&str], seed: u64, steps: u32) -> Result<()> {
    ensure!(!store.below.is_empty(), "the lower store is empty");
    for (index, name) in common.iter().enumerate() {
        let path = store.add_common(name, seed)?;
        // The others go with the first collection, or stay until the lower store has them.
        if index % 3 != 2 {
            store.keep(&path)?;
        }
    }
    store.check()?;
    work(store, seeded, steps)
}

/// All is valid as before, what is below now as well leaves the layer, and the work goes on.
fn again(store: &mut Store, seeded: &mut Seeded, common: &[&str], steps: u32) -> Result<()> {
    store.check()?;
    let duplicates = store.duplicates();
    // Those with a root cannot have gone.
    ensure!(
        duplicates.len() >= common.len() / 2,
        "only {duplicates:?} of {common:?} are in both stores"
    );
    for path in &duplicates {
        ensure!(store.is_above(path), "'{path}' left the upper layer by itself");
    }
    store.optimise()?;
    for path in &duplicates {
        ensure!(!store.is_above(path), "'{path}' is still in the upper layer");
    }
    println!("{} duplicates dropped", duplicates.len());
    store.check()?;
    work(store, seeded, steps)
}

fn work(store: &mut Store, seeded: &mut Seeded, steps: u32) -> Result<()> {
    for step in 0..steps {
        match seeded.below(10) {
            0..5 => {
                let path = store.add(seeded)?;
                if seeded.chance(50) {
                    store.keep(&path)?;
                }
            }
            5..7 => store.delete(seeded)?,
            7 => store.collect()?,
            8 => store.optimise()?,
            _ => store.ask_stock_nix(seeded)?,
        }
        if step % 4 == 3 {
            store.check()?;
        }
    }
    store.collect()?;
    store.ask_stock_nix(seeded)?;
    store.check()
}
