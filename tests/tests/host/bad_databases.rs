// SPDX-License-Identifier: MIT OR Apache-2.0
//! Databases that cannot be used, below and above: the file is named, and the way out; nothing is written.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use rusqlite::Connection;
use superpose_tests::{Invocation, Layers, Suite, Tree, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        a_missing_database_is_named,
        a_missing_database_below_is_named,
        random_bytes_are_no_database,
        a_truncated_database_is_damaged,
        a_damaged_page_is_found_by_the_query_that_reads_it,
        missing_tables_are_named,
        a_missing_or_corrupt_schema_file_is_named,
        schemas_of_other_releases_are_named,
        an_older_schema_below_is_read_when_its_tables_allow,
        a_row_that_is_broken_is_named_and_hurts_no_other,
        a_locked_database_is_waited_for,
        a_wait_has_a_limit_if_asked_for,
        readers_do_not_wait_for_a_writer,
        a_directory_in_the_place_of_the_database_is_named
    );
}

const OBJECT: &str = "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt";

/// A local store with one object, whose log is written back so that its tables are in the main file.
fn store() -> Result<Layers> {
    let layers = Layers::new()?;
    layers
        .below()?
        .arg("add")
        .arg(layers.file("a.txt", "hello\n")?)
        .succeed()?;
    let database = Connection::open(layers.lower_database())?;
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    Ok(layers)
}

fn state(layers: &Layers) -> PathBuf {
    layers.lower().join("nix/var/nix")
}

/// A query of the overlay store over the lower one, without its mount, which another suite makes.
fn above(layers: &Layers) -> Result<Invocation> {
    let url = format!("{}&check-mount=false", layers.url().display());
    Ok(superpose_tests::superpose()?.arg("--store").arg(url))
}

/// Expects that a query and an addition fail with these fragments, both in the store itself and in an overlay over it,
/// and that they change nothing.
fn refused_by_all(layers: &Layers, fragments: &[&str]) -> Result<()> {
    let file = layers.join("a.txt");
    for dir in [layers.upper(), layers.merged()] {
        fs::create_dir_all(dir)?;
    }
    let run_all = |runs: Vec<(&str, Invocation)>| -> Result<()> {
        for (what, run) in runs {
            let finished = run.exit_with(1)?;
            for fragment in fragments {
                ensure!(
                    finished.errors().contains(fragment),
                    "{what}: no `{fragment}` in {finished}"
                );
            }
            ensure!(finished.stdout.is_empty(), "{what}: {finished}");
        }
        Ok(())
    };
    run_all(vec![("add", layers.below()?.arg("add").arg(&file))])?;
    let before = Tree::of(&layers.lower())?;
    run_all(vec![
        ("path-info", layers.below()?.args(["path-info", OBJECT])),
        ("path-info above", above(layers)?.args(["path-info", OBJECT])),
        ("add above", above(layers)?.arg("add").arg(&file)),
        ("verify above", above(layers)?.arg("verify")),
    ])?;
    before.expect_unchanged(&layers.lower())
}

fn a_missing_database_is_named() -> Result<()> {
    let layers = Layers::new()?;
    let refused = layers.below()?.args(["path-info", OBJECT]).exit_with(1)?;
    let database = layers.lower_database().display().to_string();
    for fragment in [database.as_str(), "does not exist", "hint: `superpose status`"] {
        ensure!(
            refused.errors().contains(fragment),
            "no `{fragment}` in {refused}"
        );
    }
    ensure!(!layers.lower().exists(), "a query made a store");
    Ok(())
}

fn a_missing_database_below_is_named() -> Result<()> {
    let layers = Layers::new()?;
    for dir in [layers.lower_dir(), layers.upper(), layers.merged()] {
        fs::create_dir_all(dir)?;
    }
    let before = Tree::of(&layers.lower())?;
    for command in [&["path-info", OBJECT][..], &["ensure", OBJECT], &["verify"]] {
        let refused = above(&layers)?.args(command).exit_with(1)?;
        ensure!(
            refused
                .errors()
                .contains(&layers.lower_database().display().to_string()),
            "{refused}"
        );
    }
    before.expect_unchanged(&layers.lower())
}

fn random_bytes_are_no_database() -> Result<()> {
    let layers = store()?;
    // Not random, so that the trial does the same each time.
    let mut word = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word.to_be_bytes()[0]
    })
    .take(40_000)
    .collect();
    fs::write(layers.lower_database(), noise)?;
    refused_by_all(
        &layers,
        &[
            &layers.lower_database().display().to_string(),
            "not an SQLite database",
            "backup",
        ],
    )
}

fn a_truncated_database_is_damaged() -> Result<()> {
    let layers = store()?;
    let file = fs::OpenOptions::new().write(true).open(layers.lower_database())?;
    file.set_len(file.metadata()?.len() / 2 / 4096 * 4096)?;
    refused_by_all(
        &layers,
        &[
            &layers.lower_database().display().to_string(),
            "damaged",
            "backup",
        ],
    )
}

fn a_damaged_page_is_found_by_the_query_that_reads_it() -> Result<()> {
    let layers = store()?;
    let mut bytes = fs::read(layers.lower_database())?;
    // The first page holds the schema, and stays whole.
    bytes[4096..].fill(0xa5);
    fs::write(layers.lower_database(), bytes)?;
    let refused = layers.below()?.args(["path-info", OBJECT]).exit_with(1)?;
    ensure!(refused.errors().contains("is damaged"), "{refused}");
    Ok(())
}

fn missing_tables_are_named() -> Result<()> {
    let layers = store()?;
    let database = Connection::open(layers.lower_database())?;
    database.execute_batch("drop table Refs; pragma wal_checkpoint(truncate)")?;
    drop(database);
    let refused = above(&layers)?.args(["path-info", OBJECT]).exit_with(1)?;
    for fragment in ["lacks tables", "Refs"] {
        ensure!(refused.errors().contains(fragment), "{refused}");
    }
    Ok(())
}

fn a_missing_or_corrupt_schema_file_is_named() -> Result<()> {
    let layers = store()?;
    let schema = state(&layers).join("db/schema");
    for text in ["", "10\n", " 10", "ten", "99999999999999999999"] {
        fs::write(&schema, text)?;
        refused_by_all(&layers, &[&schema.display().to_string(), "expected"])?;
    }
    fs::remove_file(&schema)?;
    let refused = above(&layers)?.args(["path-info", OBJECT]).exit_with(1)?;
    ensure!(
        refused.errors().contains(&schema.display().to_string()),
        "{refused}"
    );
    Ok(())
}

fn schemas_of_other_releases_are_named() -> Result<()> {
    let layers = store()?;
    let schema = state(&layers).join("db/schema");
    fs::write(&schema, "11")?;
    refused_by_all(
        &layers,
        &[
            &schema.display().to_string(),
            "says 11",
            "expected 10",
            "newer release",
        ],
    )?;
    fs::write(&schema, "9")?;
    let refused = layers
        .below()?
        .arg("add")
        .arg(layers.join("a.txt"))
        .exit_with(1)?;
    for fragment in ["says 9", "expected 10", "open the store once with Nix"] {
        ensure!(refused.errors().contains(fragment), "{refused}");
    }
    Ok(())
}

fn an_older_schema_below_is_read_when_its_tables_allow() -> Result<()> {
    let layers = store()?;
    fs::write(state(&layers).join("db/schema"), "9")?;
    let before = Tree::of(&layers.lower())?;
    for dir in [layers.upper(), layers.merged()] {
        fs::create_dir_all(dir)?;
    }
    let info = above(&layers)?.args(["path-info", "--json", OBJECT]).succeed()?;
    ensure!(
        info.json()?[format!("/nix/store/{OBJECT}")]["narSize"] == 120,
        "{info}"
    );
    before.expect_unchanged(&layers.lower())
}

fn a_row_that_is_broken_is_named_and_hurts_no_other() -> Result<()> {
    let layers = store()?;
    let other = layers
        .below()?
        .arg("add")
        .arg(layers.file("b.txt", "other\n")?)
        .succeed()?;
    let database = Connection::open(layers.lower_database())?;
    let hash: String = database.query_row(
        "select hash from ValidPaths where path like '%-a.txt'",
        [],
        |row| row.get(0),
    )?;
    for (column, value) in [
        ("hash", "'sha256:short'"),
        ("deriver", "'nonsense'"),
        ("sigs", "'no colon'"),
        ("ca", "'fixed:nonsense'"),
    ] {
        database.execute_batch(&format!(
            "update ValidPaths set {column} = {value} where path like '%-a.txt'"
        ))?;
        let refused = layers
            .below()?
            .args(["path-info", "--json", OBJECT])
            .exit_with(1)?;
        for fragment in [column, OBJECT, &layers.lower_database().display().to_string()] {
            ensure!(
                refused.errors().contains(fragment),
                "no `{fragment}` in {refused}"
            );
        }
        layers.below()?.args(["path-info", other.line()?]).succeed()?;
        layers
            .below()?
            .args(["check-validity", OBJECT, other.line()?])
            .succeed()?;
        let verified = layers
            .below()?
            .args(["verify", "--check-contents", "--json"])
            .exit_with(1)?;
        let report = verified.json()?;
        ensure!(
            report["faults"][0]["fault"] == "unreadable" && report["hashed"] == 1,
            "{report}"
        );
        database.execute_batch(&format!(
            "update ValidPaths set hash = '{hash}', deriver = null, sigs = null, ca = null
             where path like '%-a.txt'"
        ))?;
    }
    Ok(())
}

/// Starts a transaction that keeps every other writer out.
fn locked(layers: &Layers) -> Result<Connection> {
    let database = Connection::open(layers.lower_database())?;
    database.execute_batch("begin exclusive")?;
    Ok(database)
}

fn a_locked_database_is_waited_for() -> Result<()> {
    let layers = store()?;
    let lock = locked(&layers)?;
    let file = layers.file("late", "late\n")?;
    let mut adding = layers.below()?.arg("add").arg(&file).start()?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(
        adding.is_running()?,
        "the addition did not wait: {}",
        adding.finish()?
    );
    lock.execute_batch("commit")?;
    let added = adding.finish()?;
    ensure!(added.code() == Some(0), "{added}");
    ensure!(
        added.errors().contains("busy") && added.errors().contains("db.sqlite"),
        "nobody was told what it waits for: {added}"
    );
    layers
        .below()?
        .args(["check-validity", added.line()?])
        .succeed()?;
    Ok(())
}

fn a_wait_has_a_limit_if_asked_for() -> Result<()> {
    let layers = store()?;
    let database = layers.lower_database().display().to_string();
    let lock = locked(&layers)?;
    let add = || {
        Ok::<_, anyhow::Error>(
            layers
                .below()?
                .args(["--wait", "1", "add"])
                .arg(layers.file("late", "late\n")?),
        )
    };
    let refused = add()?.exit_with(1)?;
    for fragment in [database.as_str(), "busy"] {
        ensure!(
            refused.errors().contains(fragment),
            "no `{fragment}` in {refused}"
        );
    }
    let objects = fs::read_dir(layers.lower_dir())?.count();
    ensure!(objects == 2, "an object without a row was left: {objects} names");
    drop(lock);
    add()?.succeed()?;

    // A collector of Nix at work keeps deletions out.
    let gc_lock = state(&layers).join("gc.lock");
    let collecting = fs::File::create(&gc_lock)?;
    rustix::fs::flock(&collecting, rustix::fs::FlockOperation::LockExclusive)?;
    let refused = layers
        .below()?
        .args(["--wait", "1", "delete", OBJECT])
        .exit_with(1)?;
    for fragment in [
        gc_lock.display().to_string().as_str(),
        "held by another process",
        "1.0 s",
    ] {
        ensure!(
            refused.errors().contains(fragment),
            "no `{fragment}` in {refused}"
        );
    }
    layers.below()?.args(["check-validity", OBJECT]).succeed()?;
    drop(collecting);
    layers
        .below()?
        .args(["--wait", "1", "delete", OBJECT])
        .succeed()?;
    Ok(())
}

fn readers_do_not_wait_for_a_writer() -> Result<()> {
    let layers = store()?;
    let _lock = locked(&layers)?;
    for dir in [layers.upper(), layers.merged()] {
        fs::create_dir_all(dir)?;
    }
    let limit = Duration::from_secs(20);
    layers
        .below()?
        .args(["path-info", OBJECT])
        .time_limit(limit)
        .succeed()?;
    above(&layers)?
        .args(["path-info", OBJECT])
        .time_limit(limit)
        .succeed()?;
    Ok(())
}

fn a_directory_in_the_place_of_the_database_is_named() -> Result<()> {
    let layers = store()?;
    let database = layers.lower_database();
    fs::remove_file(&database)?;
    fs::create_dir(&database)?;
    let refused = layers.below()?.args(["path-info", OBJECT]).exit_with(1)?;
    ensure!(
        refused.errors().contains(&database.display().to_string()),
        "{refused}"
    );
    let refused = layers
        .below()?
        .arg("add")
        .arg(layers.join("a.txt"))
        .exit_with(1)?;
    ensure!(
        refused.errors().contains(&database.display().to_string()),
        "{refused}"
    );
    Ok(())
}
