// SPDX-License-Identifier: MIT OR Apache-2.0
//! Garbage collection by stock Nix and by superpose: on equal stores, and beside each other.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use superpose_tests::{
    Invocation, Layers, Need, StockNix, Suite, stock_trials, superpose, superpose_crashing_at,
};

use crate::beside::{expect_clean, instantiate, layered, mounted, rows};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        the_same_derivations_and_outputs_live,
        the_same_is_collected_from_a_local_store,
        stock_waits_for_what_we_are_deleting_and_adds_it_again,
        our_addition_during_a_collection_of_stock_is_kept
    );
    stock_trials!(
        suite,
        [Need::Root],
        the_same_is_collected_above_a_rooted_lower_store,
        a_lower_store_without_roots_can_be_collected_above,
        dead_copies_of_rows_go_and_are_not_counted,
        a_limit_is_kept,
        unused_links_below_get_no_whiteout,
        what_is_no_store_path_does_not_stop_a_collection,
        asking_what_is_dead_changes_nothing,
        an_addition_of_stock_during_our_collection_is_kept
    );
    stock_trials!(
        suite,
        [Need::Root, Need::CrashPoints],
        a_crashed_collection_does_not_stop_stock
    );
}

/// The paths that a local store holds as valid.
fn valid(database: &Path) -> Result<BTreeSet<String>> {
    let database = Connection::open(database)?;
    let mut statement = database.prepare("select path from ValidPaths")?;
    let paths = statement.query_map([], |row| row.get(0))?;
    Ok(paths.collect::<rusqlite::Result<_>>()?)
}

/// The names in a directory, but for the link farm.
fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<BTreeSet<_>>>()?;
    Ok(names.into_iter().filter(|name| name != ".links").collect())
}

/// A copy of a local store, equal to it in everything.
fn copy(layers: &Layers) -> Result<Layers> {
    let copy = Layers::new()?;
    let copying = Invocation::new("cp")
        .arg("-a")
        .arg(layers.lower())
        .arg(copy.lower());
    copying.succeed()?;
    Ok(copy)
}

/// A derivation with two valid outputs that were built by it; the first refers to the second.
fn built(stock: StockNix, layers: &Layers) -> Result<[String; 3]> {
    let expression = r#"derivation {
        name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "dev" ];
    }"#;
    let derivation = instantiate(stock, &layers.lower(), expression)?;
    let derivation = derivation.split('!').next().unwrap_or_default().to_owned();
    let outputs = stock
        .nix_store(layers.lower())
        .args(["--query", "--outputs", &derivation])
        .succeed()?;
    let mut outputs: Vec<String> = outputs.text()?.lines().map(str::to_owned).collect();
    outputs.sort_by_key(|output| output.ends_with("-dev"));
    let [out, dev] = <[String; 2]>::try_from(outputs).ok().context("two outputs")?;
    let (mut registration, hash) = (String::new(), "0".repeat(64));
    for (output, references) in [(&dev, vec![]), (&out, vec![&dev])] {
        fs::write(
            layers.lower_dir().join(output.trim_start_matches("/nix/store/")),
            output,
        )?;
        registration += &format!("{output}\n{hash}\n1\n{derivation}\n{}\n", references.len());
        registration.extend(references.iter().map(|reference| format!("{reference}\n")));
    }
    stock
        .nix_store(layers.lower())
        .arg("--load-db")
        .input(registration)
        .succeed()?;
    Ok([derivation, out, dev])
}

fn the_same_derivations_and_outputs_live(stock: StockNix) -> Result<()> {
    let original = Layers::new()?;
    let paths = built(stock, &original)?;
    for root in [None, Some(0), Some(1), Some(2)] {
        for keep_outputs in [false, true] {
            for keep_derivations in [false, true] {
                let (theirs, ours) = (copy(&original)?, copy(&original)?);
                if let Some(root) = root {
                    for layers in [&theirs, &ours] {
                        symlink(&paths[root], layers.lower().join("nix/var/nix/gcroots/root"))?;
                    }
                }
                let options = [
                    ("keep-outputs", keep_outputs),
                    ("keep-derivations", keep_derivations),
                ];
                let options =
                    options.map(|(name, value)| ["--option".into(), name.into(), value.to_string()]);
                let collect = stock.nix_store(theirs.lower()).arg("--gc");
                collect.args(options.concat()).succeed()?;
                let mut collect = ours.below()?.arg("gc");
                if keep_outputs {
                    collect = collect.arg("--keep-outputs");
                }
                if !keep_derivations {
                    collect = collect.arg("--no-keep-derivations");
                }
                collect.succeed()?;
                let left = [&theirs, &ours].map(|layers| valid(&layers.lower_database()));
                let [left_there, left_here] = left;
                let (left_there, left_here) = (left_there?, left_here?);
                ensure!(
                    left_there == left_here,
                    "root {root:?}, outputs {keep_outputs}, derivations {keep_derivations}: \
                     {left_there:?} and {left_here:?}"
                );
                ensure!(names(&theirs.lower_dir())? == names(&ours.lower_dir())?);
            }
        }
    }
    Ok(())
}

/// Objects with roots of several kinds, and others; and what crashes leave.
fn populate(add: impl Fn(&str, &[&str]) -> Result<String>, state: &Path, store: &Path) -> Result<()> {
    let library = add("library", &[])?;
    let program = add("program", &[&library])?;
    let profile = add("profile", &[&library])?;
    let dead_library = add("dead-library", &[&library])?;
    add("dead-program", &[&dead_library])?;
    let by_name = add("by-name", &[])?;
    symlink(&program, state.join("gcroots/direct"))?;
    symlink(format!("{profile}/bin"), state.join("profiles/p-1-link"))?;
    symlink("p-1-link", state.join("profiles/p"))?;
    fs::write(
        state
            .join("gcroots")
            .join(by_name.trim_start_matches("/nix/store/")),
        "",
    )?;
    symlink("/nowhere", state.join("gcroots/dangling"))?;
    fs::create_dir_all(state.join("gcroots/auto"))?;
    symlink("/nowhere", state.join("gcroots/auto/stale"))?;
    symlink("loop", state.join("gcroots/loop"))?;
    symlink(
        format!("/nix/store/{}-gone", "0".repeat(32)),
        state.join("gcroots/not-valid"),
    )?;
    fs::write(state.join("temproots/4711"), format!("{dead_library}\0"))?;
    for name in ["abandoned", "abandoned.lock"] {
        fs::write(store.join(format!("{}-{name}", "1".repeat(32))), "")?;
    }
    Ok(())
}

/// What is printed as paths.
fn printed(program: Invocation) -> Result<BTreeSet<String>> {
    let printed = program.succeed()?;
    Ok(printed.text()?.lines().map(str::to_owned).collect())
}

fn the_same_is_collected_from_a_local_store(stock: StockNix) -> Result<()> {
    let original = Layers::new()?;
    original.add_below("first", "first\n", &[])?;
    let add = |name: &str, references: &[&str]| original.add_below(name, name, references);
    let state = original.lower().join("nix/var/nix");
    populate(add, &state, &original.lower_dir())?;
    fs::create_dir(original.lower_dir().join("tmp-1-1"))?;
    fs::write(original.lower_dir().join("junk"), "")?;
    fs::write(original.lower_dir().join(".links/unused"), "")?;
    let (theirs, ours) = (copy(&original)?, copy(&original)?);
    // Asked first: stock removes junk already when it is asked.
    for question in ["--print-live", "--print-dead"] {
        let here = printed(ours.below()?.args(["gc", question]))?;
        let there = printed(stock.nix_store(theirs.lower()).args(["--gc", question]))?;
        // Stock also says, of whatever was asked, what it has just removed: junk.
        let is_object = |path: &String| path.as_bytes().get(43) == Some(&b'-');
        let there: BTreeSet<String> = there.into_iter().filter(is_object).collect();
        ensure!(here == there, "{question}: {here:?} and {there:?}");
    }
    let here = ours.below()?.arg("gc").succeed()?;
    let there = stock.nix_store(theirs.lower()).arg("--gc").succeed()?;
    let count = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    ensure!(count(here.line()?) == count(there.line()?), "{here}\n{there}");
    ensure!(valid(&theirs.lower_database())? == valid(&ours.lower_database())?);
    ensure!(names(&theirs.lower_dir())? == names(&ours.lower_dir())?);
    for layers in [&theirs, &ours] {
        ensure!(fs::read_dir(layers.lower_dir().join(".links"))?.next().is_none());
        let state = layers.lower().join("nix/var/nix");
        ensure!(!state.join("gcroots/auto/stale").is_symlink() && !state.join("temproots/4711").exists());
    }
    expect_clean(stock.nix_store(ours.lower()))?;
    theirs.below()?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}

fn the_same_is_collected_above_a_rooted_lower_store(stock: StockNix) -> Result<()> {
    let mut left = Vec::new();
    for is_ours in [false, true] {
        let (mounted, program) = mounted(|layers| {
            let library = layers.add_tree_below("lower-library", &[])?;
            layers.add_tree_below("lower-program", &[&library])
        })?;
        let layers = &mounted.layers;
        let add = |name: &str, references: &[&str]| layers.add_above(name, name, references);
        let ground = add("ground", &[])?;
        symlink(&ground, layers.state().join("gcroots/ground"))?;
        // Stock collects above nothing but a lower store whose objects all have roots.
        symlink(&program, layers.state().join("gcroots/below"))?;
        let on_ground = |name: &str, references: &[&str]| add(name, &[references, &[&program]].concat());
        populate(on_ground, &layers.state(), &layers.upper())?;
        mounted.superpose()?.arg("remount").succeed()?;
        if is_ours {
            mounted.superpose()?.arg("gc").succeed()?;
        } else {
            mounted.nix_store(stock).arg("--gc").succeed()?;
        }
        mounted.expect_whole(stock)?;
        left.push((valid(&layers.database())?, layers.upper_names()?));
    }
    ensure!(left[0] == left[1], "{left:?}");
    Ok(())
}

fn a_lower_store_without_roots_can_be_collected_above(stock: StockNix) -> Result<()> {
    let build = || {
        mounted(|layers| {
            let mut paths: Vec<String> = Vec::new();
            for number in 0..50 {
                let references: Vec<&str> = paths
                    .iter()
                    .rev()
                    .step_by(3)
                    .take(5)
                    .map(String::as_str)
                    .collect();
                let path = layers.add_below(&format!("below-{number}"), &number.to_string(), &references)?;
                paths.push(path);
            }
            Ok(paths)
        })
    };
    let (theirs, _) = build()?;
    theirs.layers.add_above("dead", "dead\n", &[])?;
    let failed = theirs.nix_store(stock).arg("--gc").run()?;
    // What it stumbles over follows from the order of the directory; 2.34 ends with status 0 in one of the cases.
    let says = |part: &str| failed.errors().contains(part);
    ensure!(
        failed.code() == Some(1) && says("is not valid") || says("BUG: error: cannot delete path"),
        "stock has learnt it: {failed}"
    );
    let (ours, paths) = build()?;
    let dead = ours
        .layers
        .add_above("dead", "dead\n", &[&paths[49], &paths[20]])?;
    let collected = ours.superpose()?.arg("gc").succeed()?;
    ensure!(
        collected.text()?.starts_with("1 store paths deleted"),
        "{collected}"
    );
    ensure!(ours.layers.upper_names()?.is_empty() && rows(&ours)? == 0);
    ours.superpose()?.args(["check-validity", &dead]).exit_with(1)?;
    ours.superpose()?.arg("check-validity").args(&paths).succeed()?;
    ours.expect_whole(stock)
}

fn dead_copies_of_rows_go_and_are_not_counted(stock: StockNix) -> Result<()> {
    let (mounted, [library, _]) = layered()?;
    mounted.superpose()?.args(["ensure", &library]).succeed()?;
    let theirs = mounted
        .nix_store(stock)
        .args(["--gc", "--print-dead"])
        .succeed()?;
    ensure!(theirs.text()?.lines().count() > 1, "{theirs}");
    ensure!(rows(&mounted)? > 1, "stock copied nothing up");
    let collected = mounted.superpose()?.arg("gc").succeed()?;
    ensure!(
        collected.line()? == "0 store paths deleted, 0.0 KiB freed",
        "{collected}"
    );
    ensure!(rows(&mounted)? == 0);
    mounted
        .superpose()?
        .args(["check-validity", &library])
        .succeed()?;
    mounted.expect_whole(stock)
}

fn a_limit_is_kept(stock: StockNix) -> Result<()> {
    let (mounted, _) = layered()?;
    for number in 0..6 {
        mounted
            .layers
            .add_above(&format!("dead-{number}"), &number.to_string(), &[])?;
    }
    let collected = mounted
        .superpose()?
        .args(["gc", "--max-freed", "8192"])
        .succeed()?;
    ensure!(
        collected.line()? == "3 store paths deleted, 12.0 KiB freed",
        "the first that exceeds the limit is the last: {collected}"
    );
    ensure!(mounted.layers.upper_names()?.len() == 3);
    // Stock counts what is uninitialised for objects that are only below; nothing can be said of where it stops.
    mounted.expect_whole(stock)
}

fn unused_links_below_get_no_whiteout(stock: StockNix) -> Result<()> {
    let build = || {
        mounted(|layers| {
            fs::create_dir_all(layers.lower_dir().join(".links"))?;
            fs::write(layers.lower_dir().join(".links/unused"), "below")?;
            Ok(())
        })
    };
    let is_hidden = |layers: &Layers| layers.upper().join(".links/unused").symlink_metadata().is_ok();
    let (ours, ()) = build()?;
    ours.superpose()?.arg("gc").succeed()?;
    ensure!(!is_hidden(&ours.layers));
    let (theirs, ()) = build()?;
    theirs.nix_store(stock).arg("--gc").succeed()?;
    ensure!(is_hidden(&theirs.layers), "stock has learnt it");
    Ok(())
}

fn what_is_no_store_path_does_not_stop_a_collection(stock: StockNix) -> Result<()> {
    let (mounted, _) = layered()?;
    let dead = mounted.layers.add_above("dead", "dead\n", &[])?;
    fs::create_dir(mounted.layers.upper().join("tmp-1-1"))?;
    mounted.superpose()?.arg("remount").succeed()?;
    let theirs = mounted.nix_store(stock).arg("--gc").exit_with(1)?;
    ensure!(theirs.errors().contains("too short"), "{theirs}");
    mounted.superpose()?.arg("gc").succeed()?;
    mounted
        .superpose()?
        .args(["check-validity", &dead])
        .exit_with(1)?;
    ensure!(mounted.layers.upper_names()?.is_empty());
    mounted
        .nix_store(stock)
        .args(["--gc", "--print-dead"])
        .succeed()?;
    Ok(())
}

fn asking_what_is_dead_changes_nothing(stock: StockNix) -> Result<()> {
    let (mounted, paths) = layered()?;
    ensure!(rows(&mounted)? == 0);
    let dead = mounted.superpose()?.args(["gc", "--print-dead"]).succeed()?;
    ensure!(dead.text()?.is_empty(), "{dead}");
    ensure!(rows(&mounted)? == 0, "superpose copied rows up");
    let dead = mounted
        .nix_store(stock)
        .args(["--gc", "--print-dead"])
        .succeed()?;
    ensure!(dead.text()?.contains(&paths[1]), "{dead}");
    ensure!(rows(&mounted)? > 0, "stock has learnt it");
    Ok(())
}

/// A remount hook that holds a collection up in its middle until a file is there.
fn holding_hook(layers: &Layers) -> Result<std::ffi::OsString> {
    let hook = layers.join("hook");
    let script = format!(
        "#!/bin/sh\n: >'{0}/begun'\nwhile [ ! -e '{0}/go' ]; do sleep 0.02; done\n",
        layers.scratch().path().display()
    );
    fs::write(&hook, script)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let mut url = layers.url();
    url.push("&remount-hook=");
    url.push(&hook);
    Ok(url)
}

fn an_addition_of_stock_during_our_collection_is_kept(stock: StockNix) -> Result<()> {
    let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
    let layers = &mounted.layers;
    layers.duplicate(&object)?;
    let dead = layers.add_above("dead", "dead\n", &[])?;
    let url = holding_hook(layers)?;
    let mut collecting = superpose()?.arg("--store").arg(&url).arg("gc").start()?;
    collecting.wait_until("it is in the middle", || Ok(layers.join("begun").exists()))?;
    // The collector holds its lock and listens: who adds something else is not held up, and loses nothing.
    let new = mounted
        .nix_store(stock)
        .arg("--add")
        .arg(layers.file("new", "new\n")?)
        .succeed()?;
    // What is being removed is waited for, and then added anew.
    let add = mounted
        .nix_store(stock)
        .arg("--add")
        .arg(layers.file("dead", "dead\n")?);
    let mut again = add.start()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    ensure!(collecting.is_running()? && again.is_running()?, "nobody waited");
    fs::write(layers.join("go"), "")?;
    let collected = collecting.finish()?;
    ensure!(collected.code() == Some(0), "{collected}");
    let again = again.finish()?;
    ensure!(again.code() == Some(0) && !again.line()?.is_empty(), "{again}");
    mounted.superpose()?.arg("remount").succeed()?;
    mounted
        .superpose()?
        .args(["check-validity", new.line()?, again.line()?])
        .succeed()?;
    // It was added as text, with another path.
    mounted.superpose()?.args(["check-validity", &dead]).run()?;
    mounted.expect_whole(stock)
}

fn stock_waits_for_what_we_are_deleting_and_adds_it_again(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let file = layers.file("object", "object\n")?;
    let add = || stock.nix_store(layers.lower()).arg("--add").arg(&file);
    let path = add().succeed()?.line()?.to_owned();
    for _ in 0..5 {
        let collecting = layers.below()?.arg("gc").start()?;
        let adding = add().start()?;
        let (collected, added) = (collecting.finish()?, adding.finish()?);
        ensure!(collected.code() == Some(0), "{collected}");
        ensure!(added.code() == Some(0) && added.line()? == path, "{added}");
    }
    // Whoever came first, the one who added it last has it.
    add().succeed()?;
    layers.below()?.args(["check-validity", &path]).succeed()?;
    expect_clean(stock.nix_store(layers.lower()))
}

fn our_addition_during_a_collection_of_stock_is_kept(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let dead = layers.add_below("dead", "dead\n", &[])?;
    let fifo = layers.join("fifo");
    Invocation::new("mkfifo").arg(&fifo).succeed()?;
    // A point at which stock Nix waits for its own tests: the roots are found, and nothing is deleted.
    let mut collecting = stock
        .nix_store(layers.lower())
        .arg("--gc")
        .env("_NIX_TEST_GC_SYNC_2", &fifo)
        .start()?;
    let socket = layers.lower().join("nix/var/nix/gc-socket/socket");
    collecting.wait_until("it listens", || Ok(socket.exists()))?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    let adding = layers.below()?.arg("add").arg(layers.file("new", "new\n")?);
    let new = adding.args(["--reference", &dead]).succeed()?.line()?.to_owned();
    ensure!(
        collecting.is_running()?,
        "stock did not wait: {}",
        collecting.finish()?
    );
    fs::write(&fifo, "")?;
    let collected = collecting.finish()?;
    ensure!(collected.code() == Some(0), "{collected}");
    layers.below()?.args(["check-validity", &new, &dead]).succeed()?;
    layers.below()?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}

/// No collection of this trial has more points.
const MOST_POINTS: u32 = 60;

fn a_crashed_collection_does_not_stop_stock(stock: StockNix) -> Result<()> {
    for point in 1..MOST_POINTS {
        let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
        let own = mounted.layers.add_above("own", "own\n", &[])?;
        mounted.layers.duplicate(&object)?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(mounted.layers.url());
        let crashed = crashing.arg("gc").run()?;
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
        mounted.superpose()?.arg("gc").succeed()?;
        mounted.superpose()?.args(["check-validity", &own]).exit_with(1)?;
        mounted.superpose()?.args(["check-validity", &object]).succeed()?;
        mounted.superpose()?.arg("remount").succeed()?;
        let text = mounted
            .layers
            .merged()
            .join(object.trim_start_matches("/nix/store/"))
            .join("share/text");
        ensure!(fs::read(text)? == b"object", "point {point}");
        ensure!(mounted.layers.upper_names()?.is_empty(), "point {point}");
        mounted.expect_whole(stock)?;
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}
