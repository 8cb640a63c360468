// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long work: what is seen of it, and how it is stopped.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, params};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use superpose_tests::{Finished, Invocation, Layers, Running, Suite, program_path, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        a_signal_stops_a_verification,
        a_second_signal_ends_it_at_once,
        a_signal_stops_a_collection_before_anything_is_deleted,
        a_signal_stops_a_copy,
        a_line_from_time_to_time_where_there_is_no_terminal,
        a_line_that_is_drawn_over_on_a_terminal
    );
}

/// Enough work for a minute: nobody waits for it.
const MANY: u32 = 400;

/// Bytes of each object.
const SIZE: u64 = 64 << 20;

/// Longer than the program lets pass between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_millis(10_500);

/// How soon after a signal the program has to end, on a loaded machine.
const SOON: Duration = Duration::from_secs(10);

/// A local store with that many objects which are all the same file: large to read, and nothing on the disk. The one
/// that is returned refers to all others.
fn large(count: u32, size: u64) -> Result<(Layers, String)> {
    let layers = Layers::new()?;
    let file = layers.join("large-0");
    fs::File::create(&file)?.set_len(size)?;
    let first = layers.below()?.arg("add").arg(&file).succeed()?;
    let first = first.line()?;
    let object = layers.lower_dir().join(base(first));
    let database = Connection::open(layers.lower_database())?;
    for number in 1..count {
        let name = format!("{number:032}-large");
        fs::hard_link(&object, layers.lower_dir().join(&name))?;
        database.execute(
            "insert into ValidPaths (path, hash, registrationTime, narSize)
             select ?, hash, 1, narSize from ValidPaths where path = ?",
            params![format!("/nix/store/{name}"), first],
        )?;
    }
    database.execute(
        "insert into Refs (referrer, reference)
         select one.id, other.id from ValidPaths one, ValidPaths other where one.path = ? and other.id != one.id",
        [first],
    )?;
    Ok((layers, first.to_owned()))
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The objects that a process has open.
fn open_objects(layers: &Layers, pid: i32) -> Result<HashSet<PathBuf>> {
    let store = layers.lower_dir();
    // Descriptors come and go meanwhile.
    let names = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|name| *name != store && name.starts_with(&store));
    Ok(names.collect())
}

/// A verification that has hashed an object, and is at another.
fn verifying(layers: &Layers, flags: &[&str]) -> Result<Running> {
    let verify = layers.below()?.args(flags).args(["verify", "--check-contents"]);
    let mut running = verify.start()?;
    wait_for_objects(layers, &mut running)?;
    Ok(running)
}

/// Waits until a process is at an object at which it was not before.
fn wait_for_objects(layers: &Layers, running: &mut Running) -> Result<()> {
    let pid = running.pid().as_raw_nonzero().get();
    let mut first = HashSet::new();
    running.wait_until("it came to another object", || {
        let now = open_objects(layers, pid)?;
        if first.is_empty() {
            first = now;
            return Ok(false);
        }
        Ok(!now.is_empty() && now.is_disjoint(&first))
    })
}

/// It ended by itself, soon, and said why.
fn expect_stopped(running: Running) -> Result<Finished> {
    let asked = Instant::now();
    let finished = running.finish()?;
    ensure!(
        asked.elapsed() < SOON,
        "it took {:?}: {finished}",
        asked.elapsed()
    );
    ensure!(
        finished.code() == Some(1) && finished.errors().contains("error: stopped"),
        "{finished}"
    );
    Ok(finished)
}

/// Whether a process has a handler for a signal.
fn listens_to(pid: impl std::fmt::Display, signal: Signal) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.context("/proc does not tell which signals are caught")?;
    let caught = u64::from_str_radix(caught.trim(), 16)?;
    Ok(caught >> (signal.as_raw() - 1) & 1 == 1)
}

/// Nobody holds a lock, nothing is left over, and every row has its object.
fn expect_whole(layers: &Layers, rows: u32) -> Result<()> {
    let verified = layers.below()?.args(["verify", "--json"]).succeed()?.json()?;
    ensure!(
        verified["paths"] == rows && verified["forgotten"] == serde_json::json!([]),
        "{verified}"
    );
    layers.add_below("later", "later\n", &[])?;
    Ok(())
}

fn a_signal_stops_a_verification() -> Result<()> {
    let (layers, _) = large(MANY, SIZE)?;
    for (rows, signal) in [(MANY, Signal::INT), (MANY + 1, Signal::TERM)] {
        let running = verifying(&layers, &[])?;
        running.signal(signal)?;
        let finished = expect_stopped(running)?;
        ensure!(finished.stdout.is_empty(), "{finished}");
        // `later` is the same path again.
        expect_whole(&layers, rows)?;
    }
    Ok(())
}

fn a_second_signal_ends_it_at_once() -> Result<()> {
    let (layers, _) = large(MANY, SIZE)?;
    let running = verifying(&layers, &[])?;
    // Both are delivered at the same moment, one after the other.
    running.signal(Signal::STOP)?;
    for signal in [Signal::INT, Signal::TERM] {
        running.signal(signal)?;
    }
    running.signal(Signal::CONT)?;
    let finished = running.finish()?;
    let signals = [Signal::INT, Signal::TERM].map(|signal| Some(signal.as_raw()));
    ensure!(signals.contains(&finished.signal()), "{finished}");
    expect_whole(&layers, MANY)
}

fn a_signal_stops_a_collection_before_anything_is_deleted() -> Result<()> {
    let (layers, _) = large(10, 4096)?;
    // Somebody verifies: a collection waits.
    let lock = fs::File::create(layers.lower().join("nix/var/nix/gc.lock"))?;
    flock(&lock, FlockOperation::LockShared)?;
    let mut running = layers.below()?.arg("gc").start()?;
    let pid = running.pid().as_raw_nonzero();
    running.wait_until("it came to the lock", || {
        let wants_lock = fs::read_dir(format!("/proc/{pid}/fd"))?
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|name| name.as_os_str().as_bytes().ends_with(b"/gc.lock"));
        // In its first moments a process has the open files of this one still.
        Ok(wants_lock && listens_to(pid, Signal::TERM)?)
    })?;
    running.signal(Signal::TERM)?;
    // It may end while it waits, or when it has the lock.
    thread::sleep(Duration::from_millis(100));
    drop(lock);
    expect_stopped(running)?;
    expect_whole(&layers, 10)?;
    layers.below()?.arg("gc").succeed()?;
    expect_whole(&layers, 0)
}

fn a_signal_stops_a_copy() -> Result<()> {
    let (layers, top) = large(MANY, SIZE / 8)?;
    let destination = Layers::new()?;
    let copy = layers.below()?.args(["copy", "--no-check-sigs", "--to"]);
    let mut running = copy.arg(destination.lower_url()).arg(top).start()?;
    let store = destination.lower_dir();
    running.wait_until("something was copied", || {
        let names = fs::read_dir(&store).map_or(0, |entries| {
            let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
            names.filter(|name| !name.as_bytes().starts_with(b".")).count()
        });
        Ok(names > 0)
    })?;
    running.signal(Signal::INT)?;
    expect_stopped(running)?;
    let verified = destination
        .below()?
        .args(["verify", "--check-contents", "--json"])
        .succeed()?
        .json()?;
    ensure!(verified["paths"].as_u64() < Some(u64::from(MANY)), "{verified}");
    // What was being written is garbage, and nothing else is left.
    destination.below()?.arg("gc").succeed()?;
    let left: Vec<_> = fs::read_dir(&store)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    ensure!(
        left.iter().all(|name| name.as_bytes().starts_with(b".")),
        "{left:?}"
    );
    Ok(())
}

fn a_line_from_time_to_time_where_there_is_no_terminal() -> Result<()> {
    let (layers, _) = large(MANY, SIZE)?;
    let mut running = [verifying(&layers, &[])?, verifying(&layers, &["--quiet"])?];
    // No time of the processor is needed to let time pass.
    for one in &running {
        one.signal(Signal::STOP)?;
    }
    thread::sleep(BETWEEN_LINES);
    for one in &running {
        one.signal(Signal::CONT)?;
    }
    // That it came to another object is what it says.
    for one in &mut running {
        wait_for_objects(&layers, one)?;
    }
    let [plain, quiet] = running.map(|one| {
        one.signal(Signal::TERM)?;
        expect_stopped(one)
    });
    let (plain, quiet) = (plain?, quiet?);
    let errors = plain.errors();
    let line = errors
        .lines()
        .find(|line| line.starts_with("note: ["))
        .with_context(|| format!("no progress: {plain}"))?;
    ensure!(
        line.contains(&format!("/{MANY}] hashing objects")) && line.contains("/s"),
        "{line}"
    );
    ensure!(!errors.contains('\r') && !errors.contains('\x1b'), "{plain}");
    ensure!(quiet.errors().lines().count() == 1, "{quiet}");
    Ok(())
}

/// Runs the program at a terminal, and gives what that shows.
fn at_a_terminal(layers: &Layers, flags: &str) -> Result<String> {
    let shell = format!("\"$PROGRAM\" --store \"$STORE\" {flags} verify --check-contents");
    let script = Invocation::new("script").args(["-qec", &shell, "/dev/null"]);
    let program: PathBuf = program_path()?;
    let shown = script
        .env("PROGRAM", program)
        .env("STORE", layers.lower_url())
        .env("TERM", "xterm")
        .succeed()?;
    Ok(shown.text()?.to_owned())
}

fn a_line_that_is_drawn_over_on_a_terminal() -> Result<()> {
    let (layers, _) = large(12, SIZE / 4)?;
    let shown = at_a_terminal(&layers, "")?;
    ensure!(
        shown.contains("\r\x1b[K[") && shown.contains("/12] hashing objects"),
        "{shown:?}"
    );
    let verdict = "12 paths verified";
    let last = shown.rsplit("\x1b[K").next().unwrap_or_default();
    ensure!(
        last.starts_with(verdict),
        "the line was not taken away: {shown:?}"
    );
    let shown = at_a_terminal(&layers, "--quiet")?;
    ensure!(shown.starts_with(verdict) && !shown.contains('\x1b'), "{shown:?}");
    Ok(())
}
