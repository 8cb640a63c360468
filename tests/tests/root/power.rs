// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workload of the power cuts, on this machine: programs are killed at random moments, and what they leave is judged
//! as after a cut. It cannot show what was not synced, but it keeps the model honest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use superpose_tests::power::{
    Depth, Expectation, Outcome, Place, Plan, Reached, Workload, check, expect_live, expect_refused_unmounted,
};
use superpose_tests::{Need, Seeded, Suite, Tree, seed, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        a_workload_that_nobody_disturbs,
        a_workload_whose_programs_are_killed
    );
}

/// Steps of a workload: each kind comes several times.
const STEPS: usize = 60;
/// No program of a workload takes longer on a machine without other work.
const MOST_MICROSECONDS: u32 = 40_000;
/// Of a hundred steps, so many are disturbed.
const DISTURBED: u32 = 60;

/// A store in which nothing was done yet.
fn begin(seed: u64) -> Result<(Place, Plan, superpose_tests::OverlayMount, Tree)> {
    let place = Place::scratch()?;
    let plan = Plan::new(seed, STEPS, &place.sources)?;
    place.fill_lower()?;
    let below = Tree::of(&place.layers.lower())?;
    std::fs::create_dir_all(place.layers.merged())?;
    let mount = place.layers.mount()?;
    place.begin(&plan.lower)?;
    Ok((place, plan, mount, below))
}

fn expectation(acknowledged: usize, depth: Depth) -> Expectation<'static> {
    Expectation {
        acknowledged,
        stock: None,
        lower: None,
        depth,
    }
}

fn a_workload_that_nobody_disturbs() -> Result<()> {
    let seed = seed()?;
    undisturbed(seed).with_context(|| format!("SUPERPOSE_SEED={seed}"))
}

fn undisturbed(seed: u64) -> Result<()> {
    let (place, plan, mount, below) = begin(seed)?;
    let workload = Workload::new(&place, &plan);
    for (number, step) in plan.steps.iter().enumerate() {
        workload
            .take(step)
            .and_then(|()| expect_live(&place, &plan))
            .with_context(|| format!("step {number}: {step:?}"))?;
        // Both descriptions of the same moment: nothing of the next step is done, all of this one is.
        let passing = |acknowledged| check(&place, &plan, expectation(acknowledged, Depth::Passing));
        ensure!(
            passing(number)? == Reached::After,
            "after step {number}: {step:?}"
        );
        ensure!(
            number + 1 == STEPS
                || passing(number + 1)? == Reached::Before
                || plan.states[number + 1] == plan.states[number + 2],
            "before step {}",
            number + 1
        );
    }
    check(&place, &plan, expectation(STEPS, Depth::Final))?;
    below.expect_unchanged(&place.layers.lower())?;
    drop(mount);
    expect_refused_unmounted(&place, &plan)
}

fn a_workload_whose_programs_are_killed() -> Result<()> {
    let seed = seed()?;
    disturbed(seed).with_context(|| format!("SUPERPOSE_SEED={seed}"))
}

fn disturbed(seed: u64) -> Result<()> {
    let (place, plan, _mount, below) = begin(seed)?;
    let mut seeded = Seeded::new(seed);
    let workload = Workload::new(&place, &plan);
    let mut killed = 0;
    for (number, step) in plan.steps.iter().enumerate() {
        let mut is_done = false;
        while !is_done && seeded.chance(DISTURBED) {
            let limit = Duration::from_micros(seeded.below(MOST_MICROSECONDS).into());
            let outcome = workload.take_with(step, &mut |invocation| match invocation
                .time_limit(limit)
                .run_or_kill()?
            {
                None => Ok(Outcome::Killed),
                Some(finished) if finished.code() == Some(0) => Ok(Outcome::Done),
                Some(finished) => anyhow::bail!("{finished}"),
            })?;
            killed += u32::from(outcome == Outcome::Killed);
            // What the program left; half of it may be done.
            let reached = check(&place, &plan, expectation(number, Depth::Passing))?;
            is_done = outcome == Outcome::Done || reached == Reached::After;
        }
        if !is_done {
            workload
                .take(step)
                .with_context(|| format!("step {number}: {step:?}"))?;
        }
    }
    check(&place, &plan, expectation(STEPS, Depth::Final))?;
    ensure!(killed > 5, "only {killed} programs were killed");
    below.expect_unchanged(&place.layers.lower())
}
