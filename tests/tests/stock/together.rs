// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both at work at the same time, and stock Nix after a crash of superpose.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use superpose_tests::{
    Invocation, Layers, Need, Running, StockNix, Suite, stock_trials, superpose_crashing_at,
};

use crate::beside::{expect_clean, mounted};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        temporary_roots_of_superpose_hold_for_stock,
        temporary_roots_of_stock_hold_for_superpose,
        both_have_a_store_open_at_once,
        writers_of_both_wait_for_each_other,
        a_lock_on_a_path_is_the_same_for_both
    );
    stock_trials!(
        suite,
        [Need::Root],
        temporary_roots_hold_above_too,
        a_log_that_stock_left_below_is_read
    );
    stock_trials!(
        suite,
        [Need::Root, Need::CrashPoints],
        a_crashed_addition_does_not_stop_stock,
        a_crashed_deletion_does_not_stop_stock
    );
}

/// Whether a process protects an object: its name is in one of the files of temporary roots.
fn is_protected(state: &Path, path: &str) -> Result<bool> {
    let Ok(entries) = fs::read_dir(state.join("temproots")) else {
        return Ok(false);
    };
    for entry in entries {
        let text = fs::read(entry?.path()).unwrap_or_default();
        if text.windows(path.len()).any(|window| window == path.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Starts a program that adds one file so often that nobody reads all its answers: it stays, with the object protected.
fn staying(add: Invocation, file: &Path, state: &Path, path: &str) -> Result<Running> {
    let mut running = add.args(std::iter::repeat_n(file, 2000)).start()?;
    running.wait_until("it protected the object", || is_protected(state, path))?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    ensure!(running.is_running()?, "it did not stay: {}", running.finish()?);
    Ok(running)
}

fn temporary_roots_of_superpose_hold_for_stock(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let other = layers.add_below("other", "other\n", &[])?;
    let state = layers.lower().join("nix/var/nix");
    let holder = staying(
        layers.below()?.args(["add", "--json"]),
        &layers.join("object"),
        &state,
        &path,
    )?;
    stock
        .nix_store(layers.lower())
        .args(["--delete", &path])
        .exit_with(1)?;
    let collected = stock.nix_store(layers.lower()).arg("--gc").succeed()?;
    ensure!(
        collected.text()?.starts_with("1 store paths deleted"),
        "{collected}"
    );
    layers.below()?.args(["check-validity", &path]).succeed()?;
    layers.below()?.args(["check-validity", &other]).exit_with(1)?;
    let added = holder.finish()?;
    ensure!(added.code() == Some(0), "{added}");
    let collected = stock.nix_store(layers.lower()).arg("--gc").succeed()?;
    ensure!(
        collected.text()?.starts_with("1 store paths deleted"),
        "{collected}"
    );
    Ok(())
}

fn temporary_roots_of_stock_hold_for_superpose(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let state = layers.lower().join("nix/var/nix");
    let add = stock.nix_store(layers.lower()).arg("--add");
    let holder = staying(add, &layers.join("object"), &state, &path)?;
    for flags in [&[][..], &["--ignore-liveness"]] {
        let refused = layers
            .below()?
            .arg("delete")
            .args(flags)
            .arg(&path)
            .exit_with(1)?;
        ensure!(refused.errors().contains("kept alive"), "{refused}");
    }
    ensure!(holder.finish()?.code() == Some(0));
    layers.below()?.args(["delete", &path]).succeed()?;
    Ok(())
}

fn temporary_roots_hold_above_too(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let path = mounted.layers.add_above("object", "object\n", &[])?;
    let (file, state) = (mounted.layers.join("object"), mounted.layers.state());
    let holder = staying(mounted.superpose()?.args(["add", "--json"]), &file, &state, &path)?;
    mounted.nix_store(stock).arg("--gc").succeed()?;
    mounted.superpose()?.args(["check-validity", &path]).succeed()?;
    holder.finish()?;
    let holder = staying(mounted.nix_store(stock).arg("--add"), &file, &state, &path)?;
    mounted.superpose()?.args(["delete", &path]).exit_with(1)?;
    holder.finish()?;
    mounted.superpose()?.args(["delete", &path]).succeed()?;
    Ok(())
}

fn both_have_a_store_open_at_once(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let state = layers.lower().join("nix/var/nix");
    let add = stock.nix_store(layers.lower()).arg("--add");
    let theirs = staying(add, &layers.join("object"), &state, &path)?;
    let ours = staying(
        layers.below()?.args(["add", "--json"]),
        &layers.join("object"),
        &state,
        &path,
    )?;
    let added = layers.add_below("more", "more\n", &[&path])?;
    layers.below()?.args(["verify", "--check-contents"]).succeed()?;
    expect_clean(stock.nix_store(layers.lower()))?;
    layers.below()?.args(["delete", &added]).succeed()?;
    ensure!(theirs.finish()?.code() == Some(0) && ours.finish()?.code() == Some(0));
    Ok(())
}

fn writers_of_both_wait_for_each_other(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("first", "first\n", &[])?;
    let files = |whose: &str| -> Result<Vec<_>> {
        (0..30)
            .map(|number| layers.file(&format!("{whose}-{number}"), whose))
            .collect()
    };
    let ours = layers.below()?.arg("add").args(files("ours")?).start()?;
    let theirs = stock
        .nix_store(layers.lower())
        .arg("--add")
        .args(files("theirs")?)
        .start()?;
    for running in [ours, theirs] {
        let finished = running.finish()?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure!(finished.text()?.lines().count() == 30, "{finished}");
    }
    let verified = layers
        .below()?
        .args(["verify", "--check-contents", "--json"])
        .succeed()?
        .json()?;
    ensure!(verified["hashed"] == 61, "{verified}");
    expect_clean(stock.nix_store(layers.lower()))
}

fn a_lock_on_a_path_is_the_same_for_both(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("first", "first\n", &[])?;
    let other = Layers::new()?;
    let path = other.add_below("object", "object\n", &[])?;
    // Whoever makes an object holds its lock, a file beside it.
    let lock = layers
        .lower_dir()
        .join(format!("{}.lock", path.trim_start_matches("/nix/store/")));
    let held = fs::File::create(&lock)?;
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive)?;
    let file = layers.file("object", "object\n")?;
    let mut ours = layers.below()?.arg("add").arg(&file).start()?;
    let mut theirs = stock.nix_store(layers.lower()).arg("--add").arg(&file).start()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    ensure!(
        ours.is_running()? && theirs.is_running()?,
        "somebody did not wait"
    );
    drop(held);
    ensure!(ours.finish()?.line()? == path && theirs.finish()?.line()? == path);
    ensure!(!lock.exists(), "the lock file was left");
    expect_clean(stock.nix_store(layers.lower()))
}

fn a_log_that_stock_left_below_is_read(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    stock.nix_store(layers.lower()).arg("--init").succeed()?;
    // Somebody keeps the lower database open, and is killed: what was added meanwhile is in the log only.
    let keeper = rusqlite::Connection::open(layers.lower_database())?;
    keeper.query_row("select count(*) from ValidPaths", [], |_| Ok(()))?;
    let add = stock
        .nix_store(layers.lower())
        .arg("--add")
        .arg(layers.file("late", "late\n")?);
    let late = add.succeed()?.line()?.to_owned();
    let copy = Layers::new()?;
    Invocation::new("cp")
        .arg("-a")
        .arg(layers.lower())
        .arg(copy.lower())
        .succeed()?;
    drop(keeper);
    let log = copy.lower_database().with_extension("sqlite-wal");
    ensure!(fs::metadata(&log)?.len() > 0, "no log to read");
    let before = fs::read(&log)?;
    let _mount = copy.mount()?;
    let info = copy
        .superpose()?
        .args(["path-info", "--layer", &late])
        .succeed()?;
    ensure!(info.line()?.ends_with("lower"), "{info}");
    ensure!(fs::read(&log)? == before, "the log below was changed");
    Ok(())
}

/// No operation of these trials has more points.
const MOST_POINTS: u32 = 60;

fn a_crashed_addition_does_not_stop_stock(stock: StockNix) -> Result<()> {
    for point in 1..MOST_POINTS {
        let (mounted, ()) = mounted(|_| Ok(()))?;
        let own = mounted.layers.add_above("own", "own\n", &[])?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(mounted.layers.url());
        let crashed = crashing
            .arg("add")
            .arg(mounted.layers.file("new", "new\n")?)
            .run()?;
        if crashed.code() == Some(0) {
            ensure!(point > 4, "{crashed}");
            return Ok(());
        }
        mounted
            .nix_store(stock)
            .args(["--gc", "--print-dead"])
            .succeed()?;
        expect_clean(mounted.nix_store(stock))?;
        mounted.nix_store(stock).arg("--gc").succeed()?;
        ensure!(
            mounted.layers.upper_names()?.is_empty(),
            "{point}: {:?}",
            mounted.layers.upper_names()?
        );
        mounted.superpose()?.args(["check-validity", &own]).exit_with(1)?;
        mounted.expect_whole(stock)?;
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}

fn a_crashed_deletion_does_not_stop_stock(stock: StockNix) -> Result<()> {
    for point in 1..MOST_POINTS {
        let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
        let own = mounted.layers.add_above("own", "own\n", &[])?;
        mounted.layers.duplicate(&object)?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(mounted.layers.url());
        let crashed = crashing.args(["delete", &own, &object]).run()?;
        if crashed.code() == Some(0) {
            ensure!(point > 6, "{crashed}");
            return Ok(());
        }
        // Stock knows nothing of the journal, and collects before anybody has looked at it.
        mounted
            .nix_store(stock)
            .args(["--gc", "--print-dead"])
            .succeed()?;
        mounted.nix_store(stock).arg("--gc").succeed()?;
        mounted.superpose()?.args(["path-info", "--all"]).succeed()?;
        mounted.superpose()?.args(["check-validity", &own]).exit_with(1)?;
        mounted.superpose()?.args(["check-validity", &object]).succeed()?;
        mounted.superpose()?.arg("remount").succeed()?;
        let text = mounted
            .layers
            .merged()
            .join(object.trim_start_matches("/nix/store/"))
            .join("share/text");
        ensure!(fs::read(text)? == b"object", "point {point}");
        let status = mounted
            .superpose()?
            .args(["status", "--json"])
            .succeed()?
            .json()?;
        ensure!(status["interrupted"] == false, "{status}");
        mounted.expect_whole(stock)?;
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}
