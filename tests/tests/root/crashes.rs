// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program is killed at every point between two effects that reach the disk. Reopened, the store is whole: the
//! operation has happened, or it has not, and can be done again.

use std::fs;

use anyhow::{Result, ensure};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, Suite, Tree, superpose_crashing_at, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root, Need::CrashPoints],
        an_addition,
        an_addition_that_refers_below,
        an_import,
        a_copy,
        a_registration_and_a_signature,
        a_deletion_of_own_objects,
        a_deletion_of_duplicates,
        a_deletion_of_everything_at_once,
        a_collection,
        a_deduplication,
        a_recovery_that_is_killed_itself
    );
    trials!(
        suite,
        [Need::CrashPoints],
        an_addition_to_a_local_store,
        a_deletion_from_a_local_store,
        a_collection_of_a_local_store
    );
}

/// No operation of these trials has more points; reached, it never ends.
const MOST_POINTS: u32 = 60;

struct Store {
    layers: Layers,
    _mount: Option<OverlayMount>,
    /// Below and above: two directories that lie in both layers.
    duplicates: Vec<String>,
    /// Above only; the second refers to the first and to the first duplicate.
    own: Vec<String>,
}

fn overlay() -> Result<Store> {
    let layers = Layers::new()?;
    let duplicates = vec![
        layers.add_tree_below("one", &[])?,
        layers.add_tree_below("two", &[])?,
    ];
    let mount = layers.mount()?;
    let first = layers.add_above("first", "first\n", &[])?;
    let second = layers.add_above("second", "second\n", &[&first, &duplicates[0]])?;
    for duplicate in &duplicates {
        layers.duplicate(duplicate)?;
    }
    Ok(Store {
        layers,
        _mount: Some(mount),
        duplicates,
        own: vec![first, second],
    })
}

impl Store {
    fn crashing(&self, point: u32) -> Result<Invocation> {
        Ok(superpose_crashing_at(point)?
            .arg("--store")
            .arg(self.layers.url()))
    }

    /// A deletion that was interrupted is undone or finished, and not just forgotten: what is in the upper layer has a
    /// row, and what has none is gone from there.
    fn expect_nothing_half_deleted(&self) -> Result<()> {
        self.layers.superpose()?.args(["path-info", "--all"]).succeed()?;
        let names = self.layers.upper_names()?;
        for own in &self.own {
            let valid = self
                .layers
                .superpose()?
                .args(["check-validity", own])
                .run()?
                .code()
                == Some(0);
            let is_there = names.iter().any(|name| own.ends_with(name));
            ensure!(
                valid == is_there,
                "{own} is valid: {valid}, is in the upper layer: {is_there}"
            );
        }
        let status = self
            .layers
            .superpose()?
            .args(["status", "--json"])
            .succeed()?
            .json()?;
        ensure!(status["upper"]["unknownObjects"] == 0, "{status}");
        Ok(())
    }

    /// Everything that must hold whatever happened.
    fn expect_whole(&self) -> Result<()> {
        let program = || self.layers.superpose();
        // Whoever asks first finishes or undoes what was begun.
        program()?.args(["path-info", "--all"]).succeed()?;
        let status = program()?.args(["status", "--json"]).succeed()?.json()?;
        ensure!(status["interrupted"] == false, "{status}");
        program()?.args(["verify", "--check-contents"]).succeed()?;
        // A stock collector stops at any name that is not a store path.
        for name in self.layers.upper_names()? {
            ensure!(
                name.len() > 33 && name.as_bytes()[32] == b'-',
                "'{name}' was left in the upper layer"
            );
        }
        for duplicate in &self.duplicates {
            let text = self
                .layers
                .merged()
                .join(duplicate.trim_start_matches("/nix/store/"))
                .join("share/text");
            ensure!(!fs::read(&text)?.is_empty(), "{} is empty", text.display());
        }
        Ok(())
    }
}

/// Kills `operation` at each of its points in turn, each time in a new store.
fn at_every_point(operation: impl Fn(Invocation, &Store) -> Result<Invocation>) -> Result<u32> {
    at_every_point_then(operation, |_| Ok(()))
}

/// The same for deletions, which leave no garbage.
fn at_every_point_of_a_deletion(operation: impl Fn(Invocation, &Store) -> Result<Invocation>) -> Result<u32> {
    at_every_point_then(operation, Store::expect_nothing_half_deleted)
}

fn at_every_point_then(
    operation: impl Fn(Invocation, &Store) -> Result<Invocation>,
    check: impl Fn(&Store) -> Result<()>,
) -> Result<u32> {
    for point in 1..MOST_POINTS {
        let store = overlay()?;
        let below = Tree::of(&store.layers.lower())?;
        let crashed = operation(store.crashing(point)?, &store)?.run()?;
        if crashed.code() == Some(0) {
            return Ok(point - 1);
        }
        ensure!(crashed.signal() == Some(6), "{crashed}");
        check(&store)?;
        store.expect_whole()?;
        // It can be done again, or was done.
        operation(store.layers.superpose()?, &store)?.succeed()?;
        store.expect_whole()?;
        below.expect_unchanged(&store.layers.lower())?;
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}

fn an_addition() -> Result<()> {
    let points =
        at_every_point(|program, store| Ok(program.arg("add").arg(store.layers.file("new", "new\n")?)))?;
    ensure!(points >= 4, "only {points} points");
    Ok(())
}

fn an_addition_that_refers_below() -> Result<()> {
    at_every_point(|program, store| {
        let add = program.args(["add", "--reference", &store.duplicates[1]]);
        Ok(add.arg(store.layers.file("new", "new\n")?))
    })?;
    Ok(())
}

/// A store beside the others, with a tree and a program that refers to it and to something below.
fn elsewhere(store: &Store) -> Result<(Layers, [String; 2])> {
    let layers = Layers::new()?;
    layers.add_tree_below("one", &[])?;
    let tree = layers.add_tree_below("tree", &[])?;
    let program = layers.add_below("program", "program\n", &[&tree, &store.duplicates[0]])?;
    Ok((layers, [tree, program]))
}

/// All of it is there, or nothing: they came in one batch.
fn expect_all_or_nothing(store: &Store, paths: &[String]) -> Result<()> {
    let invalid = store
        .layers
        .superpose()?
        .args(["check-validity", "--print-invalid"]);
    let invalid = invalid.args(paths).succeed()?;
    let invalid = invalid.text()?.lines().count();
    ensure!(
        invalid == 0 || invalid == paths.len(),
        "{invalid} of {paths:?} are not valid"
    );
    Ok(())
}

fn at_every_point_of_a_batch(
    operation: impl Fn(Invocation, &Layers, &[String; 2]) -> Result<Invocation>,
) -> Result<()> {
    let (source, paths) = elsewhere(&overlay()?)?;
    let points = at_every_point_then(
        |program, _| operation(program, &source, &paths),
        |store| expect_all_or_nothing(store, &paths),
    )?;
    // Scratch names, two objects unpacked and moved, two syncs, rows.
    ensure!(points >= 8, "only {points} points");
    Ok(())
}

fn an_import() -> Result<()> {
    at_every_point_of_a_batch(|program, source, paths| {
        let stream = source.below()?.arg("export").args(paths).succeed()?.stdout;
        Ok(program.arg("import").input(stream))
    })
}

fn a_copy() -> Result<()> {
    at_every_point_of_a_batch(|program, source, paths| {
        let copy = program.args(["copy", "--from"]).arg(source.lower_url());
        Ok(copy.arg(&paths[1]))
    })
}

/// One transaction each: there is no point in between at which they could be killed.
fn a_registration_and_a_signature() -> Result<()> {
    let key = "k:9DGFYRm0owKiMqsAdOwykae8XJzefyUn75OUb4uovj8s0887pONLSXKVTs+L+KvwcS8Dar8ZBU4Jw6nSZAuQUg==";
    let signing = |program: Invocation, store: &Store| -> Result<Invocation> {
        let key = store.layers.file("key", key)?;
        Ok(program
            .args(["sign", "-r", "--key-file"])
            .arg(key)
            .args(&store.own))
    };
    ensure!(at_every_point(signing)? == 0);
    let loading = |program: Invocation, store: &Store| -> Result<Invocation> {
        let text = store.layers.superpose()?.arg("dump-db").succeed()?.stdout;
        Ok(program.arg("load-db").input(text))
    };
    ensure!(at_every_point(loading)? == 0);
    Ok(())
}

fn a_deletion_of_own_objects() -> Result<()> {
    let points = at_every_point_of_a_deletion(|program, store| Ok(program.arg("delete").args(&store.own)))?;
    ensure!(points >= 6, "only {points} points");
    Ok(())
}

fn a_deletion_of_duplicates() -> Result<()> {
    let points =
        at_every_point_of_a_deletion(|program, store| Ok(program.args(["delete", &store.duplicates[1]])))?;
    ensure!(points >= 6, "only {points} points");
    Ok(())
}

fn a_deletion_of_everything_at_once() -> Result<()> {
    let points =
        at_every_point(|program, store| Ok(program.arg("delete").args(&store.own).args(&store.duplicates)))?;
    ensure!(points >= 12, "only {points} points");
    Ok(())
}

fn a_collection() -> Result<()> {
    let points = at_every_point_of_a_deletion(|program, _| Ok(program.arg("gc")))?;
    ensure!(points >= 12, "only {points} points");
    Ok(())
}

/// What is in both layers is dropped, and what two objects above have in common becomes links.
fn a_deduplication() -> Result<()> {
    let points = at_every_point(|program, store| {
        for name in ["twin", "other-twin"] {
            store.layers.add_above(name, "the text of both\n", &[])?;
        }
        Ok(program.arg("optimise"))
    })?;
    ensure!(points >= 12, "only {points} points");
    Ok(())
}

fn a_recovery_that_is_killed_itself() -> Result<()> {
    // After the moves and before the rows, and right after the rows: there is most to undo and to finish.
    for point in [5, 6] {
        for second in 1..MOST_POINTS {
            let store = overlay()?;
            let delete = store
                .crashing(point)?
                .arg("delete")
                .args(&store.own)
                .args(&store.duplicates);
            ensure!(delete.run()?.signal() == Some(6));
            let recovery = store.crashing(second)?.args(["path-info", "--all"]).run()?;
            store.expect_nothing_half_deleted()?;
            store.expect_whole()?;
            if recovery.code() == Some(0) {
                break;
            }
            ensure!(recovery.signal() == Some(6), "{recovery}");
            ensure!(second < MOST_POINTS - 1, "the recovery never ends");
        }
    }
    Ok(())
}

fn at_every_point_of_a_local_store(
    prepare: impl Fn(&Layers) -> Result<Vec<String>>,
    operation: impl Fn(Invocation, &Layers, &[String]) -> Result<Invocation>,
) -> Result<u32> {
    for point in 1..MOST_POINTS {
        let layers = Layers::new()?;
        let paths = prepare(&layers)?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(layers.lower_url());
        let crashed = operation(crashing, &layers, &paths)?.run()?;
        if crashed.code() == Some(0) {
            return Ok(point - 1);
        }
        ensure!(crashed.signal() == Some(6), "{crashed}");
        for _ in 0..2 {
            layers.below()?.args(["verify", "--check-contents"]).succeed()?;
            operation(layers.below()?, &layers, &paths)?.succeed()?;
        }
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}

fn an_addition_to_a_local_store() -> Result<()> {
    let points = at_every_point_of_a_local_store(
        |_| Ok(Vec::new()),
        |program, layers, _| Ok(program.arg("add").arg(layers.file("new", "new\n")?)),
    )?;
    ensure!(points >= 4, "only {points} points");
    Ok(())
}

fn a_deletion_from_a_local_store() -> Result<()> {
    let points = at_every_point_of_a_local_store(
        |layers| {
            Ok(vec![
                layers.add_below("one", "1", &[])?,
                layers.add_below("two", "2", &[])?,
            ])
        },
        |program, _, paths| Ok(program.arg("delete").args(paths)),
    )?;
    ensure!(points >= 3, "only {points} points");
    Ok(())
}

fn a_collection_of_a_local_store() -> Result<()> {
    let points = at_every_point_of_a_local_store(
        |layers| {
            let library = layers.add_below("library", "1", &[])?;
            layers.add_below("program", "2", &[&library])?;
            Ok(Vec::new())
        },
        |program, _, _| Ok(program.arg("gc")),
    )?;
    ensure!(points >= 5, "only {points} points");
    Ok(())
}
