// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both take turns on one overlay store, in an order that a seed chooses, beside a model that says what must be valid.
//!
//! `SUPERPOSE_SEED` takes the same steps again; `SUPERPOSE_STEPS` says how many there are.

mod step;
mod store;

use anyhow::{Context, Result, anyhow};
use superpose_tests::{Need, Seeded, StockNix, Suite, seed, stock_trials};

use step::Step;
use store::Turns;

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(suite, [Need::Root], both_take_turns);
}

/// How many steps are taken unless the environment says otherwise: half a minute on a loaded machine.
const STEPS: u32 = 250;

/// Says how many steps are taken.
const STEPS_VARIABLE: &str = "SUPERPOSE_STEPS";

#[allow(
    clippy::disallowed_methods,
    reason = "a trial that is configured by its environment, as the harness"
)]
fn steps() -> Result<u32> {
    match std::env::var(STEPS_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{STEPS_VARIABLE}={text}")),
        Err(_) => Ok(STEPS),
    }
}

fn both_take_turns(stock: StockNix) -> Result<()> {
    let seed = seed()?;
    let mut taken = Vec::new();
    take_turns(stock, seed, steps()?, &mut taken).map_err(|error| {
        let list: Vec<String> = taken
            .iter()
            .enumerate()
            .map(|(number, step)| format!("{number}: {step:?}"))
            .collect();
        anyhow!(
            "SUPERPOSE_SEED={seed}: {error:#}\nafter these steps:\n{}",
            list.join("\n")
        )
    })
}

fn take_turns(stock: StockNix, seed: u64, steps: u32, taken: &mut Vec<Step>) -> Result<()> {
    let mut seeded = Seeded::new(seed);
    let mut turns = Turns::begin(stock)?;
    for _ in 0..steps {
        let step = Step::next(&mut seeded, &turns.model, turns.objects());
        taken.push(step.clone());
        turns.take(&step)?;
        turns.check_quickly()?;
    }
    turns.check_fully()
}
