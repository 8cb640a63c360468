// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay store whose upper layer and database are on a disk that runs full in the middle of the work, of bytes or of
//! inodes, on one file system after another.
//!
//! An operation may fail then, and has to say why. What had been acknowledged is there all the same, what was not is not
//! seen, the lower store is as it was, and when there is room again everything works.

mod disk;
mod store;

use anyhow::{Context, Result, ensure};
use superpose_tests::Seeded;

use crate::order::Order;
use disk::{Kind, Lack};
use store::Store;

/// Additions that are tried while room is running out: four times as many as fit.
const ADDITIONS: u32 = 40;

/// Fills every kind of disk with what it can lack. The order gives the seed.
pub(crate) fn run(order: &Order) -> Result<()> {
    let seed: u64 = order.text("seed")?.parse().context("the seed of the order")?;
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Memory] {
        for lack in [Lack::Bytes, Lack::Inodes] {
            println!("{kind:?} without {lack:?}");
            one(kind, lack, seed).with_context(|| format!("seed {seed}, {kind:?} without {lack:?}"))?;
        }
    }
    Ok(())
}

fn one(kind: Kind, lack: Lack, seed: u64) -> Result<()> {
    let mut seeded = Seeded::new(seed);
    let mut store = Store::new(kind)?;
    store.begin(&mut seeded)?;
    let filler = store.disk.fill(lack)?;

    let mut refused = 0;
    for _ in 0..ADDITIONS {
        if !store.add(&mut seeded, lack)? {
            refused += 1;
        }
    }
    ensure!(refused > 0, "all additions fitted: the disk was not full");
    println!("  {refused} of {ADDITIONS} additions refused");
    store.check()?;
    // Not even room for one more block or inode, whoever asks.
    store.disk.fill_up(&filler)?;
    store.optimise(Room::Full)?;
    store.check()?;
    store.delete(Room::Full)?;
    store.check()?;
    store.collect(Room::Full)?;
    store.check()?;

    filler.remove()?;
    for _ in 0..3 {
        ensure!(
            store.add(&mut seeded, lack)?,
            "there is room again, and an addition is refused"
        );
    }
    store.optimise(Room::There)?;
    store.check()?;
    store.delete(Room::There)?;
    store.check()?;
    store.collect(Room::There)?;
    store.check()
}

/// Whether an operation may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Full,
    There,
}
