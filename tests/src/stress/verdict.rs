// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold when everybody has stopped.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::actors::expect_closure;
use super::ground::{Ground, base};
use super::object::Object;

/// Collects for the last time, and compares with what is kept.
pub(super) fn judge(ground: &Ground) -> Result<()> {
    let objects = ground.published.all();
    expect_whole(ground).context("before the last collection")?;
    drop_duplicates(ground)?;
    expect_kept(ground, &objects)?;
    ground.superpose()?.arg("gc").succeed()?;
    expect_kept(ground, &objects)?;
    expect_nothing_else(ground, &objects)?;
    if ground.company().is_some() {
        ground.nix_store()?.arg("--gc").succeed()?;
        expect_kept(ground, &objects)?;
        expect_nothing_else(ground, &objects)?;
    }
    expect_whole(ground)?;
    let status = ground.superpose()?.args(["status", "--json"]).succeed()?.json()?;
    ensure!(status["interrupted"] == false, "{status}");
    let whiteouts = ground.layers.whiteouts()?;
    ensure!(whiteouts.is_empty(), "whiteouts: {whiteouts:?}");
    ground.below.expect_unchanged(&ground.layers.lower())
}

/// What lies in both layers is dropped above: in the second run for certain, when the kernel has marked it.
fn drop_duplicates(ground: &Ground) -> Result<()> {
    for object in &ground.lower {
        object.content.expect_at(&ground.seen(&object.path))?;
    }
    ground.superpose()?.arg("remount").succeed()?;
    for _ in 0..2 {
        ground.superpose()?.arg("optimise").succeed()?;
        expect_kept(ground, &[])?;
    }
    Ok(())
}

/// Both find nothing wrong, contents included.
fn expect_whole(ground: &Ground) -> Result<()> {
    ground
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    if ground.company().is_some() {
        let verified = ground
            .nix_store()?
            .args(["--verify", "--check-contents"])
            .succeed()?;
        for complaint in ["error", "modified", "disappeared", "warning"] {
            ensure!(!verified.errors().contains(complaint), "{verified}");
        }
    }
    let database = Connection::open(ground.layers.database())?;
    let check: String = database.query_row("pragma integrity_check", [], |row| row.get(0))?;
    ensure!(check == "ok", "the database: {check}");
    Ok(())
}

/// Every object that a root keeps is there, with all that it needs, and is what it was made of.
fn expect_kept(ground: &Ground, objects: &[std::sync::Arc<Object>]) -> Result<()> {
    for object in ground.lower.iter().chain(objects) {
        let asked = ground
            .superpose()?
            .args(["path-info", "-r", &object.path])
            .succeed()?;
        expect_closure(object, asked.text()?)?;
        for needed in object.closure() {
            needed.content.expect_at(&ground.seen(&needed.path))?;
        }
    }
    Ok(())
}

/// No row and no object but those that something keeps.
fn expect_nothing_else(ground: &Ground, objects: &[std::sync::Arc<Object>]) -> Result<()> {
    let below: BTreeSet<&str> = ground.lower.iter().map(|object| object.path.as_str()).collect();
    let kept: BTreeSet<&str> = objects
        .iter()
        .flat_map(|object| object.closure())
        .map(|object| object.path.as_str())
        .filter(|path| !below.contains(path))
        .collect();
    let database = Connection::open(ground.layers.database())?;
    let mut statement = database.prepare("select path from ValidPaths")?;
    let rows = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<BTreeSet<String>>>()?;
    let dead: Vec<&String> = rows
        .iter()
        .filter(|path| !kept.contains(path.as_str()) && !below.contains(path.as_str()))
        .collect();
    ensure!(dead.is_empty(), "dead rows are left: {dead:?}");
    let names = ground.layers.upper_names()?;
    let mut expected: Vec<String> = kept
        .iter()
        .map(|path| base(path).to_string_lossy().into_owned())
        .collect();
    expected.sort();
    ensure!(
        names == expected,
        "the upper layer holds {names:?}, not {expected:?}"
    );
    Ok(())
}
