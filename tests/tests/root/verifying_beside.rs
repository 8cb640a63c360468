// SPDX-License-Identifier: MIT OR Apache-2.0
//! Others add while somebody verifies.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use superpose_tests::{Invocation, Layers, Need, Suite, program_path, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        what_is_added_to_a_local_store_meanwhile_is_not_forgotten,
        what_is_added_above_meanwhile_is_no_fault
    );
}

/// How long each look at the names takes to begin, and again to come back, in microseconds.
const DELAY: u32 = 500_000;

/// Between two additions: there are some in every part of the verification.
const PAUSE: Duration = Duration::from_millis(100);

/// Verifies with slow answers from a directory while `add` adds, and gives what was added.
fn verify_beside(
    layers: &Layers,
    url: &std::ffi::OsStr,
    directory: &Path,
    add: impl Fn(u32) -> Result<String>,
) -> Result<Vec<String>> {
    let verify = Invocation::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(layers.join("trace"))
        .arg("-P")
        .arg(directory)
        .args(["-e", "trace=getdents64", "-e"])
        .arg(format!(
            "inject=getdents64:delay_enter={DELAY}:delay_exit={DELAY}"
        ))
        .arg(program_path()?)
        .arg("--store")
        .arg(url)
        .args(["verify", "--json"]);
    let mut running = verify.start().context("strace is needed")?;
    let mut added = Vec::new();
    while running.is_running()? {
        added.push(add(u32::try_from(added.len())?)?);
        thread::sleep(PAUSE);
    }
    let verified = running.finish()?;
    let trace = std::fs::read_to_string(layers.join("trace"))?;
    ensure!(trace.contains("DELAYED"), "it was not delayed: {verified}");
    ensure!(
        verified.code() == Some(0)
            && verified.json()?["forgotten"] == json!([])
            && verified.json()?["notes"] == json!([]),
        "{verified}"
    );
    ensure!(added.len() > 5, "only {} were added", added.len());
    Ok(added)
}

fn what_is_added_to_a_local_store_meanwhile_is_not_forgotten() -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("first", "first\n", &[])?;
    let added = verify_beside(&layers, &layers.lower_url(), &layers.lower_dir(), |number| {
        layers.add_below("object", &number.to_string(), &[])
    })?;
    layers.below()?.arg("check-validity").args(added).succeed()?;
    Ok(())
}

fn what_is_added_above_meanwhile_is_no_fault() -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("first", "first\n", &[])?;
    let _mount = layers.mount()?;
    layers.add_above("above", "above\n", &[])?;
    let added = verify_beside(&layers, &layers.url(), &layers.upper(), |number| {
        layers.add_above("object", &number.to_string(), &[])
    })?;
    layers.superpose()?.arg("check-validity").args(added).succeed()?;
    Ok(())
}
