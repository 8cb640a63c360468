// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verification: what stock Nix finds wrong superpose finds wrong, and what superpose repairs is right for stock Nix.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rusqlite::Connection;
use serde_json::{Value, json};
use superpose_tests::{
    Finished, Invocation, Layers, Need, StockNix, Suite, Tree, stock_trials, superpose_crashing_at,
};

use crate::beside::{Mounted, expect_clean, mounted, rows};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [Need::Root],
        modified_objects_are_found_by_both,
        what_only_the_lower_store_knows_is_looked_at_by_neither,
        missing_objects_are_missed_by_both,
        what_disappeared_is_forgotten_by_both,
        hidden_objects_are_forgotten_by_stock_only,
        names_that_stop_a_collection_are_told,
        missing_hashes_are_mended_when_asked_for,
        links_of_the_lower_store_are_its_own_affair,
        repaired_objects_stay_for_stock
    );
    stock_trials!(
        suite,
        [Need::Root, Need::CrashPoints],
        a_crashed_repair_does_not_stop_stock
    );
}

/// A mounted store with a tree below, a file above that refers to it, and another one above; and a store that has all.
struct Doubled {
    mounted: Mounted,
    good: Layers,
    below: String,
    own: String,
    alone: String,
}

fn doubled() -> Result<Doubled> {
    let (mounted, below) = mounted(|layers| layers.add_tree_below("below", &[]))?;
    let own = mounted.layers.add_above("own", "own\n", &[&below])?;
    let alone = mounted.layers.add_above("alone", "alone\n", &[])?;
    let good = Layers::new()?;
    good.add_tree_below("below", &[])?;
    ensure!(good.add_below("own", "own\n", &[&below])? == own);
    good.add_below("alone", "alone\n", &[])?;
    Ok(Doubled {
        mounted,
        good,
        below,
        own,
        alone,
    })
}

fn name(path: &str) -> &str {
    path.trim_start_matches("/nix/store/")
}

fn spoil(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    Ok(fs::write(file, "spoilt")?)
}

impl Doubled {
    fn upper(&self, path: &str) -> PathBuf {
        self.mounted.layers.upper().join(name(path))
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.mounted.layers.lower_dir().join(name(path))
    }

    fn remount(&self) -> Result<()> {
        self.mounted.superpose()?.arg("remount").succeed()?;
        Ok(())
    }

    fn theirs(&self, stock: StockNix, status: i32) -> Result<Finished> {
        let verify = self.mounted.nix_store(stock);
        verify.args(["--verify", "--check-contents"]).exit_with(status)
    }

    fn ours(&self, status: i32) -> Result<Value> {
        let verify = self.mounted.superpose()?;
        let verify = verify.args(["verify", "--check-contents", "--json"]);
        verify.exit_with(status)?.json()
    }

    fn repair(&self, program: Invocation) -> Invocation {
        let repair = program.args(["verify", "--check-contents", "--repair", "--from"]);
        repair.arg(self.good.lower_url())
    }

    /// Both say of each path that it is modified, and of no other.
    fn expect_modified(&self, stock: StockNix, paths: &[&str]) -> Result<()> {
        let status = i32::from(!paths.is_empty());
        let theirs = self.theirs(stock, status)?;
        let count = theirs.errors().matches("was modified").count();
        ensure!(count == paths.len(), "{theirs}");
        let ours = self.ours(status)?;
        let faults = ours["faults"].as_array().map_or(0, Vec::len);
        ensure!(faults == paths.len(), "{ours}");
        for path in paths {
            ensure!(theirs.errors().contains(path), "{theirs}");
            let found = ours["faults"].as_array().into_iter().flatten();
            let mut found = found.filter(|fault| fault["path"] == **path);
            ensure!(
                found.next().is_some_and(|fault| fault["fault"] == "modified"),
                "{ours}"
            );
        }
        Ok(())
    }
}

fn modified_objects_are_found_by_both(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    doubled.expect_modified(stock, &[])?;
    spoil(&doubled.upper(&doubled.own))?;
    doubled.expect_modified(stock, &[&doubled.own])?;
    spoil(&doubled.lower(&doubled.below).join("share/text"))?;
    doubled.remount()?;
    doubled.expect_modified(stock, &[&doubled.own, &doubled.below])?;
    let lower = Tree::of(&doubled.mounted.layers.lower())?;
    doubled.repair(doubled.mounted.superpose()?).succeed()?;
    lower.expect_unchanged(&doubled.mounted.layers.lower())?;
    for _ in 0..2 {
        doubled.mounted.expect_whole(stock)?;
    }
    Ok(())
}

fn what_only_the_lower_store_knows_is_looked_at_by_neither(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    let late = doubled.mounted.layers.add_tree_below("late", &[])?;
    spoil(&doubled.lower(&late).join("share/text"))?;
    doubled.remount()?;
    doubled.expect_modified(stock, &[])?;
    // With a row above it is everybody's affair.
    doubled.mounted.superpose()?.args(["ensure", &late]).succeed()?;
    doubled.expect_modified(stock, &[&late])
}

fn missing_objects_are_missed_by_both(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    Invocation::new("rm")
        .arg("-rf")
        .arg(doubled.lower(&doubled.below))
        .succeed()?;
    let needed = doubled
        .mounted
        .layers
        .add_above("needed", "needed\n", &[&doubled.alone])?;
    fs::remove_file(doubled.upper(&doubled.alone))?;
    doubled.remount()?;
    let theirs = doubled.theirs(stock, 1)?;
    let said = "disappeared, but it still has valid referrers";
    ensure!(theirs.errors().matches(said).count() == 2, "{theirs}");
    let ours = doubled.ours(1)?;
    ensure!(ours["faults"].as_array().map_or(0, Vec::len) == 2, "{ours}");
    for fault in ours["faults"].as_array().into_iter().flatten() {
        let by = match fault["path"] == *doubled.below {
            true => &doubled.own,
            false => &needed,
        };
        ensure!(
            fault["fault"] == "missing" && fault["referrers"] == json!([by]),
            "{ours}"
        );
    }
    doubled.repair(doubled.mounted.superpose()?).succeed()?;
    for _ in 0..2 {
        doubled.mounted.expect_whole(stock)?;
    }
    Ok(())
}

fn what_disappeared_is_forgotten_by_both(stock: StockNix) -> Result<()> {
    for ours in [true, false] {
        let doubled = doubled()?;
        for path in [&doubled.alone, &doubled.own] {
            fs::remove_file(doubled.upper(path))?;
        }
        doubled.remount()?;
        if ours {
            let found = doubled.ours(0)?;
            let mut forgotten = [&doubled.alone, &doubled.own];
            forgotten.sort();
            ensure!(found["forgotten"] == json!(forgotten), "{found}");
        } else {
            let found = doubled.theirs(stock, 0)?;
            let said = "disappeared, removing from database";
            ensure!(found.errors().matches(said).count() == 2, "{found}");
        }
        ensure!(rows(&doubled.mounted)? == 1, "what is below stays");
        doubled.mounted.expect_whole(stock)?;
    }
    Ok(())
}

fn hidden_objects_are_forgotten_by_stock_only(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    let hidden = doubled.mounted.layers.add_tree_below("hidden", &[])?;
    doubled.remount()?;
    doubled.mounted.superpose()?.args(["ensure", &hidden]).succeed()?;
    let merged = doubled.mounted.layers.merged().join(name(&hidden));
    Invocation::new("rm").arg("-r").arg(&merged).succeed()?;
    let before = rows(&doubled.mounted)?;
    let ours = doubled.ours(1)?;
    ensure!(
        ours["faults"].as_array().map_or(0, Vec::len) == 1 && ours["faults"][0]["fault"] == "hidden",
        "{ours}"
    );
    ensure!(rows(&doubled.mounted)? == before);
    let theirs = doubled.theirs(stock, 0)?;
    ensure!(
        theirs.errors().contains("disappeared, removing from database"),
        "{theirs}"
    );
    ensure!(rows(&doubled.mounted)? == before - 1);
    let verify = doubled.mounted.superpose()?.args(["verify", "--repair"]);
    verify.succeed()?;
    ensure!(merged.join("share/text").exists());
    ensure!(doubled.mounted.layers.upper_names()?.len() == 2, "no whiteout");
    doubled.mounted.expect_whole(stock)
}

fn names_that_stop_a_collection_are_told(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    let junk = doubled.mounted.layers.upper().join("tmp-1-0");
    fs::create_dir(&junk)?;
    doubled.remount()?;
    doubled.theirs(stock, 0)?;
    let collected = doubled.mounted.nix_store(stock).arg("--gc").exit_with(1)?;
    ensure!(
        collected.errors().contains("too short to be a valid store path"),
        "{collected}"
    );
    let ours = doubled.ours(1)?;
    ensure!(
        ours["faults"][0]["fault"] == "foreign-name" && ours["faults"][0]["name"] == "tmp-1-0",
        "{ours}"
    );
    // Left by a repair: nobody knows what it is good for.
    doubled.repair(doubled.mounted.superpose()?).exit_with(1)?;
    ensure!(junk.exists());
    Ok(())
}

fn missing_hashes_are_mended_when_asked_for(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    let database = Connection::open(doubled.mounted.layers.database())?;
    let read = |column: &str| -> Result<String> {
        let query = format!("select cast({column} as text) from ValidPaths where path like '%-alone'");
        Ok(database.query_row(&query, [], |row| row.get(0))?)
    };
    let unset = || {
        let zeros = "0".repeat(64);
        database.execute_batch(&format!(
            "update ValidPaths set hash = 'sha256:{zeros}', narSize = NULL where path like '%-alone'"
        ))
    };
    let (hash, size) = (read("hash")?, read("narSize")?);
    unset()?;
    let ours = doubled.ours(1)?;
    ensure!(ours["faults"][0]["fault"] == "no-hash", "{ours}");
    ensure!(read("hash")? != hash, "it was not asked for");
    let verify = doubled
        .mounted
        .superpose()?
        .args(["verify", "--check-contents", "--repair"]);
    verify.succeed()?;
    ensure!(read("hash")? == hash && read("narSize")? == size);
    // Stock mends both without being asked.
    unset()?;
    doubled.theirs(stock, 0)?;
    ensure!(read("hash")? == hash && read("narSize")? == size);
    drop(database);
    doubled.mounted.expect_whole(stock)
}

fn links_of_the_lower_store_are_its_own_affair(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|layers| {
        layers.add_below("first", "first\n", &[])?;
        let links = layers.lower_dir().join(".links");
        fs::create_dir_all(&links)?;
        Ok(fs::write(links.join("0".repeat(52)), "below")?)
    })?;
    let verify = |mounted: &Mounted| {
        let verify = mounted
            .superpose()?
            .args(["verify", "--check-contents", "--json"]);
        Ok::<_, anyhow::Error>(verify)
    };
    verify(&mounted)?.succeed()?;
    let theirs = mounted.nix_store(stock).args(["--verify", "--check-contents"]);
    ensure!(theirs.exit_with(1)?.errors().contains("was modified"));
    // Those of the upper layer are ours.
    let links = mounted.layers.upper().join(".links");
    fs::create_dir_all(&links)?;
    let bad = links.join("1".repeat(52));
    fs::write(&bad, "above")?;
    let lower = Tree::of(&mounted.layers.lower())?;
    let ours = verify(&mounted)?.exit_with(1)?.json()?;
    ensure!(
        ours["faults"].as_array().map_or(0, Vec::len) == 1 && ours["faults"][0]["fault"] == "link",
        "{ours}"
    );
    verify(&mounted)?.arg("--repair").succeed()?;
    ensure!(!bad.exists());
    lower.expect_unchanged(&mounted.layers.lower())?;
    let store = mounted.layers.lower();
    let theirs = stock.nix_store(&store).args(["--verify", "--check-contents"]);
    theirs.exit_with(1)?;
    // In its own store both mend it.
    let ours = mounted.layers.below()?;
    ours.args(["verify", "--check-contents", "--repair"]).succeed()?;
    expect_clean(stock.nix_store(&store))
}

/// Collected, optimised and verified by stock, a repaired object is as good as before.
fn repaired_objects_stay_for_stock(stock: StockNix) -> Result<()> {
    let doubled = doubled()?;
    spoil(&doubled.lower(&doubled.below).join("share/text"))?;
    fs::set_permissions(doubled.lower(&doubled.below), fs::Permissions::from_mode(0o755))?;
    fs::write(doubled.lower(&doubled.below).join("more"), "bad")?;
    doubled.remount()?;
    doubled.repair(doubled.mounted.superpose()?).succeed()?;
    let root = doubled.mounted.layers.join("root");
    let add_root = doubled.mounted.superpose()?.arg("add-root").arg(&root);
    add_root.arg(&doubled.own).succeed()?;
    let collected = doubled.mounted.nix_store(stock).arg("--gc");
    collected.succeed()?;
    doubled.mounted.expect_whole(stock)?;
    let kept = doubled.mounted.layers.merged().join(name(&doubled.below));
    ensure!(!kept.join("more").exists() && fs::read_to_string(kept.join("share/text"))? == "below");
    Ok(())
}

fn a_crashed_repair_does_not_stop_stock(stock: StockNix) -> Result<()> {
    for point in 1..60 {
        let doubled = doubled()?;
        spoil(&doubled.upper(&doubled.own))?;
        spoil(&doubled.lower(&doubled.below).join("share/text"))?;
        doubled.remount()?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(doubled.mounted.layers.url());
        let crashed = doubled.repair(crashing).run()?;
        // The mount as after some time: stock Nix owes nobody a remount, and knows of none.
        Invocation::new("mount")
            .args(["-i", "-t", "overlay", "-o", "remount", "overlay"])
            .arg(doubled.mounted.layers.merged())
            .succeed()?;
        // Stock finds the bad ones or the good ones, and nothing in its way.
        let root = doubled.mounted.layers.join("root");
        std::os::unix::fs::symlink(&doubled.own, &root)?;
        let roots = doubled.mounted.layers.state().join("gcroots/own");
        std::os::unix::fs::symlink(&doubled.own, &roots)?;
        doubled.mounted.nix_store(stock).arg("--gc").succeed()?;
        let found = doubled.mounted.nix_store(stock);
        let found = found.args(["--verify", "--check-contents"]).run()?;
        ensure!(!found.errors().contains("disappeared"), "{point}: {found}");
        doubled.repair(doubled.mounted.superpose()?).succeed()?;
        doubled.mounted.expect_whole(stock)?;
        if crashed.code() == Some(0) {
            ensure!(point > 10, "only {point} points");
            return Ok(());
        }
        ensure!(crashed.signal() == Some(6), "{crashed}");
    }
    anyhow::bail!("still crashing")
}
