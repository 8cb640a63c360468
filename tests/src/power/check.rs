// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judging what is found after a cut, with nothing but the plan and the number of the last acknowledged step.
//!
//! Let `n` be that number. Once the store was opened, which finishes or undoes what was begun:
//!
//! - The valid paths are exactly those after step `n` or exactly those after step `n + 1`: every step is one transaction.
//! - What steps `n` and `n + 1` agree on is there: links that keep objects, and objects that lie in both layers. What step
//!   `n + 1` changes of them may be changed or not, one by one; but a link leads to a valid path.
//! - In the upper layer is every object that must be there. Besides, there may be scratch names, lock files, and what step `n + 1` is
//!   adding and has not registered. Nothing else: an object that was to leave and has no row any more has left.
//! - Every valid object has the archive that the plan knows, its row says so, and its files look as those of a store do.
//! - The next collection leaves what links keep, and nothing else: no scratch names, no trash.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::place::Place;
use super::plan::{Plan, Step};
use crate::{Model, StockNix, Tree, base};

/// What is known of what is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// How many steps were acknowledged.
    pub acknowledged: usize,
    /// A stock Nix that has to find nothing wrong, either.
    pub stock: Option<StockNix>,
    /// What the lower store has to be alike, where it could have been written to.
    pub lower: Option<&'a Path>,
    /// How far it goes.
    pub depth: Depth,
}

/// How thoroughly is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Nothing is changed: the work can go on.
    Passing,
    /// Everything, and a last collection.
    Final,
}

/// How far the work had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The step after the acknowledged one is not done, or not all of it.
    Before,
    /// It is done.
    After,
}

/// Judges the store at `place`, which is mounted.
///
/// # Errors
/// If anything is not as it must be.
pub fn check(place: &Place, plan: &Plan, expectation: Expectation<'_>) -> Result<Reached> {
    let number = expectation.acknowledged;
    let before = plan.states.get(number).context("no such step")?;
    let after = plan.states.get(number + 1).unwrap_or(before);
    let judge = Judge {
        place,
        plan,
        before,
        after,
    };
    let next = plan.steps.get(number);
    judge.all(next, expectation).with_context(|| match next {
        Some(step) => format!("step {number} was acknowledged; the next one is {step:?}"),
        None => format!("step {number} was acknowledged, and there is no other"),
    })
}

struct Judge<'a> {
    place: &'a Place,
    plan: &'a Plan,
    before: &'a Model,
    after: &'a Model,
}

impl Judge<'_> {
    fn all(&self, next: Option<&Step>, expectation: Expectation<'_>) -> Result<Reached> {
        let found = self.look()?;
        self.expect_upper(&found)?;
        let database = Connection::open(self.place.layers.database())?;
        self.expect_rows(&database, &found)?;
        self.expect_contents(&found)?;
        self.verify(expectation.stock)?;
        let whiteouts = self.place.layers.whiteouts()?;
        ensure!(whiteouts.is_empty(), "whiteouts: {whiteouts:?}");
        let reached = match next {
            Some(_) if found == *self.after => Reached::After,
            _ => Reached::Before,
        };
        drop(database);
        if expectation.depth == Depth::Final {
            self.expect_collectable(found)?;
        }
        if let Some(lower) = expectation.lower {
            Tree::of(lower)?.expect_alike(&self.place.layers.lower())?;
        }
        Ok(reached)
    }

    /// Opens the store, and compares what is valid, what keeps it, and what lies in both layers with the two states.
    fn look(&self) -> Result<Model> {
        let superpose = || self.place.layers.superpose();
        let all = superpose()?.args(["path-info", "--all"]).succeed()?;
        let status = superpose()?.args(["status", "--json"]).succeed()?.json()?;
        ensure!(status["interrupted"] == false, "{status}");
        let valid: BTreeSet<&str> = all.text()?.lines().collect();
        let state = [self.after, self.before]
            .into_iter()
            .find(|state| state.valid() == valid);
        let Some(state) = state else {
            let compared = |state: &Model| {
                let expected = state.valid();
                let lost: Vec<_> = expected.difference(&valid).copied().collect();
                let extra: Vec<_> = valid.difference(&expected).copied().collect();
                format!("not valid any more: {lost:?}, still valid: {extra:?}")
            };
            anyhow::bail!(
                "compared with the acknowledged state: {}; compared with the next: {}",
                compared(self.before),
                compared(self.after)
            );
        };
        let mut found = state.clone();
        self.look_at_links(&mut found)?;
        self.look_at_duplicates(&mut found)?;
        Ok(found)
    }

    fn look_at_links(&self, found: &mut Model) -> Result<()> {
        found.roots.clear();
        let links: BTreeSet<&PathBuf> = self.before.roots.keys().chain(self.after.roots.keys()).collect();
        for link in links {
            let leads_to = fs::read_link(self.place.link(link)).ok();
            let leads_to = leads_to.map(|to| to.to_string_lossy().into_owned());
            let allowed = [self.before.roots.get(link), self.after.roots.get(link)];
            ensure!(
                allowed.contains(&leads_to.as_ref()),
                "the link {} leads to {leads_to:?}, not to one of {allowed:?}",
                link.display()
            );
            if let Some(path) = leads_to {
                ensure!(
                    found.valid().contains(path.as_str()),
                    "the link {} leads to {path}, which is not valid",
                    link.display()
                );
                found.roots.insert(link.clone(), path);
            }
        }
        Ok(())
    }

    fn look_at_duplicates(&self, found: &mut Model) -> Result<()> {
        let (before, after) = (&self.before.duplicates, &self.after.duplicates);
        found.duplicates.clear();
        for path in before | after {
            let is_there = fs::symlink_metadata(self.place.layers.upper().join(base(&path))).is_ok();
            ensure!(
                is_there || !before.contains(&path) || !after.contains(&path),
                "{path} is not in the upper layer any more"
            );
            if is_there {
                found.duplicates.insert(path);
            }
        }
        Ok(())
    }

    /// Compares the names in the upper layer.
    fn expect_upper(&self, found: &Model) -> Result<()> {
        let names: BTreeSet<String> = self.place.layers.upper_names()?.into_iter().collect();
        let expected: BTreeSet<String> = found.names().into_iter().collect();
        let lost: Vec<_> = expected.difference(&names).collect();
        ensure!(lost.is_empty(), "not in the upper layer: {lost:?}");
        for name in names.difference(&expected) {
            let path = format!("/nix/store/{name}");
            let is_being_added = self.after.own.contains_key(&path) && !self.before.own.contains_key(&path);
            let is_lock = path
                .strip_suffix(".lock")
                .is_some_and(|path| self.plan.knows(path));
            ensure!(
                is_being_added || is_lock || is_scratch(name),
                "{name} is in the upper layer, is not valid, and nobody is adding it"
            );
        }
        Ok(())
    }

    fn expect_rows(&self, database: &Connection, found: &Model) -> Result<()> {
        expect_sound(database)?;
        let mut row = database.prepare("select id, hash, narSize from ValidPaths where path = ?")?;
        let mut references = database.prepare(
            "select path from Refs join ValidPaths on id = reference where referrer = ? order by path",
        )?;
        for path in found.own.keys() {
            let object = self.plan.object(path)?;
            let (id, hash, size): (i64, String, i64) =
                row.query_row([path], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            ensure!(
                hash == object.hash && u64::try_from(size) == Ok(object.size),
                "the row of {path} says {hash} and {size}, not {} and {}",
                object.hash,
                object.size
            );
            let rows = references.query_map([id], |row| row.get(0))?;
            let rows = rows.collect::<rusqlite::Result<Vec<String>>>()?;
            ensure!(
                rows == object.references,
                "{path} refers to {rows:?}, not {:?}",
                object.references
            );
        }
        Ok(())
    }

    /// Every valid object shows whole in the merged view, and looks as one of a store.
    fn expect_contents(&self, found: &Model) -> Result<()> {
        for path in found.own.keys().chain(&self.plan.lower) {
            let seen = self.place.layers.merged().join(base(path));
            self.plan.object(path)?.content.expect_at(&seen)?;
            expect_canonical(&seen)?;
        }
        Ok(())
    }

    fn verify(&self, stock: Option<StockNix>) -> Result<()> {
        let layers = &self.place.layers;
        layers
            .superpose()?
            .args(["verify", "--check-contents"])
            .succeed()?;
        if let Some(stock) = stock {
            let verify = stock
                .nix_store(layers.url())
                .args(["--verify", "--check-contents"]);
            let verified = verify.succeed()?;
            for complaint in ["error", "modified", "disappeared", "warning"] {
                ensure!(!verified.errors().contains(complaint), "{verified}");
            }
        }
        Ok(())
    }

    /// A collection leaves what links keep, and nothing else.
    fn expect_collectable(&self, mut found: Model) -> Result<()> {
        let layers = &self.place.layers;
        layers.superpose()?.arg("gc").succeed()?;
        found.collect();
        let names = layers.upper_names()?;
        ensure!(
            names == found.names(),
            "after a collection the upper layer holds {names:?}, not {:?}",
            found.names()
        );
        let all = layers.superpose()?.args(["path-info", "--all"]).succeed()?;
        let valid: BTreeSet<&str> = all.text()?.lines().collect();
        ensure!(
            valid == found.valid(),
            "after a collection these are valid: {valid:?}, not {:?}",
            found.valid()
        );
        expect_no_trash(self.place)?;
        self.expect_contents(&found)?;
        layers.superpose()?.arg("verify").succeed()?;
        let whiteouts = layers.whiteouts()?;
        ensure!(whiteouts.is_empty(), "whiteouts: {whiteouts:?}");
        Ok(())
    }
}

/// Before the merged view is mounted again, which nobody may forget, nothing is added: it would go to a directory that the
/// mount hides later.
///
/// # Errors
/// If the program works on the store all the same.
pub fn expect_refused_unmounted(place: &Place, plan: &Plan) -> Result<()> {
    let (layers, object) = (&place.layers, plan.object(&plan.lower[0])?);
    let add = layers.superpose()?.arg("add").arg(object.source(&place.sources)?);
    let refused = add.exit_with(1)?;
    ensure!(refused.errors().contains("mount"), "{refused}");
    let is_empty = fs::read_dir(layers.merged())?.next().is_none();
    ensure!(is_empty, "something was put into {}", layers.merged().display());
    Ok(())
}

/// Whether a name in a layer is none of an object: what is being made there, or on its way out.
fn is_scratch(name: &str) -> bool {
    name.get(33..).is_some_and(|name| name.starts_with("superpose-"))
}

/// Nothing waits to be unlinked.
pub(super) fn expect_no_trash(place: &Place) -> Result<()> {
    let trash = place.trash();
    let waiting: Vec<PathBuf> = match fs::read_dir(&trash) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context(trash.display().to_string()),
    };
    ensure!(waiting.is_empty(), "the trash holds {waiting:?}");
    // Where a rename cannot lead out of the layer, it is there.
    let mut names = place.layers.upper_names()?;
    names.retain(|name| is_scratch(name));
    ensure!(names.is_empty(), "the upper layer holds {names:?}");
    Ok(())
}

/// Nobody may write, and all times are 1.
fn expect_canonical(object: &Path) -> Result<()> {
    let mut left = vec![object.to_owned()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        ensure!(
            found.mtime() == 1 && (found.is_symlink() || matches!(found.mode() & 0o7777, 0o444 | 0o555)),
            "{} has mode {:o} and time {}",
            path.display(),
            found.mode() & 0o7777,
            found.mtime()
        );
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Checks what SQLite can tell of a database by itself: its pages, its indexes, and that no reference leads nowhere.
///
/// # Errors
/// What is wrong with it.
pub fn expect_sound(database: &Connection) -> Result<()> {
    let check: String = database.query_row("pragma integrity_check", [], |row| row.get(0))?;
    ensure!(check == "ok", "the database: {check}");
    let broken = database
        .prepare("pragma foreign_key_check")?
        .query_map([], |_| Ok(()))?
        .count();
    ensure!(broken == 0, "{broken} references lead nowhere");
    Ok(())
}
