// SPDX-License-Identifier: MIT OR Apache-2.0
//! A repair is killed at every point between two effects. Each object is the bad one or the good one, whole, and the next
//! repair does the rest.

use std::fs;

use anyhow::{Result, ensure};
use superpose_tests::{Layers, Need, Suite, Tree, superpose_crashing_at, trials};

use super::repairing::{doubled, spoil};

pub(crate) fn register(suite: &mut Suite) {
    trials!(suite, [Need::Root, Need::CrashPoints], a_repair_of_both_layers);
    trials!(suite, [Need::CrashPoints], a_repair_of_a_local_store);
}

/// No operation of these trials has more points; reached, it never ends.
const MOST_POINTS: u32 = 60;

fn a_repair_of_both_layers() -> Result<()> {
    for point in 1..MOST_POINTS {
        let doubled = doubled()?;
        doubled.spoil()?;
        let below = Tree::of(&doubled.layers.lower())?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(doubled.layers.url());
        let crashed = doubled.repair(crashing).run()?;
        if crashed.code() == Some(0) {
            ensure!(point > 10, "only {point} points");
            doubled.expect_good()?;
            return Ok(());
        }
        ensure!(crashed.signal() == Some(6), "{crashed}");
        // Whoever asks first finishes what was begun.
        let program = || doubled.layers.superpose();
        program()?.args(["path-info", "--all"]).succeed()?;
        let status = program()?.args(["status", "--json"]).succeed()?.json()?;
        ensure!(status["interrupted"] == false, "{status}");
        for name in doubled.layers.upper_names()? {
            ensure!(
                name.len() > 33 && name.as_bytes()[32] == b'-',
                "'{name}' was left in the upper layer"
            );
        }
        let text = doubled
            .layers
            .merged()
            .join(doubled.below.trim_start_matches("/nix/store/"))
            .join("share/text");
        ensure!(["spoilt", "below"].contains(&fs::read_to_string(text)?.as_str()));
        doubled.repair(program()?).succeed()?;
        doubled.expect_good()?;
        below.expect_unchanged(&doubled.layers.lower())?;
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}

fn a_repair_of_a_local_store() -> Result<()> {
    for point in 1..MOST_POINTS {
        let (layers, good) = (Layers::new()?, Layers::new()?);
        let path = layers.add_tree_below("object", &[])?;
        ensure!(good.add_tree_below("object", &[])? == path);
        let text = layers
            .lower_dir()
            .join(path.trim_start_matches("/nix/store/"))
            .join("share/text");
        spoil(&text)?;
        let repair = |program: superpose_tests::Invocation| {
            let repair = program.args(["verify", "--check-contents", "--repair", "--from"]);
            repair.arg(good.lower_url())
        };
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(layers.lower_url());
        let crashed = repair(crashing).run()?;
        ensure!(["spoilt", "object"].contains(&fs::read_to_string(&text)?.as_str()));
        repair(layers.below()?).succeed()?;
        layers.below()?.args(["verify", "--check-contents"]).succeed()?;
        if crashed.code() == Some(0) {
            ensure!(point >= 4, "only {point} points");
            return Ok(());
        }
        ensure!(crashed.signal() == Some(6), "{crashed}");
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}
