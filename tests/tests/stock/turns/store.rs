// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store that steps are taken on, with its model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::Connection;
use superpose_tests::power::expect_sound;
use superpose_tests::{Invocation, Layers, Model, OverlayMount, References, StockNix, Tree};

use super::step::{NAMES, Step, Who};
use crate::beside::{expect_clean, lines};

/// Objects of the lower store, and of the store that is imported from.
const OBJECTS: u32 = 8;

/// A mounted store, and what must be in it.
pub(crate) struct Turns {
    stock: StockNix,
    layers: Layers,
    _mount: OverlayMount,
    lower: Tree,
    /// A local store to import from, its objects in the order in which they were added.
    elsewhere: Layers,
    exported: Vec<String>,
    exported_references: References,
    pub(crate) model: Model,
}

/// Objects that refer to earlier ones: every third has nothing to refer to.
fn fill(layers: &Layers, name: &str) -> Result<(Vec<String>, References)> {
    let mut paths: Vec<String> = Vec::new();
    let mut all = References::new();
    for number in 0..OBJECTS as usize {
        let references: Vec<String> = match number % 3 {
            0 => Vec::new(),
            1 => vec![paths[number - 1].clone()],
            _ => vec![paths[number / 2].clone(), paths[number - 1].clone()],
        };
        let texts: Vec<&str> = references.iter().map(String::as_str).collect();
        let path = layers.add_tree_below(&format!("{name}-{number}"), &texts)?;
        all.insert(path.clone(), references);
        paths.push(path);
    }
    Ok((paths, all))
}

impl Turns {
    /// Makes the lower store, which the roots of the overlay store keep, and mounts it.
    pub(crate) fn begin(stock: StockNix) -> Result<Self> {
        let layers = Layers::new()?.over_read_only();
        let (_, lower) = fill(&layers, "below")?;
        // Stock Nix reads no store that lacks the directories which it makes when it writes.
        stock.nix_store(layers.lower()).arg("--verify").succeed()?;
        let elsewhere = Layers::new()?;
        let (exported, exported_references) = fill(&elsewhere, "elsewhere")?;
        for tree in 0..NAMES {
            let dir = layers.join(format!("tree-{tree}"));
            fs::create_dir_all(dir.join("share"))?;
            fs::write(dir.join("share/alike"), vec![b'a'; 9000])?;
            fs::write(dir.join(format!("share/alike-{}", tree % 2)), vec![b'b'; 5000])?;
            fs::write(dir.join("own"), tree.to_string())?;
        }
        fs::create_dir(layers.join("roots"))?;
        let mount = layers.mount()?;
        let tree = Tree::of(&layers.lower())?;
        for (number, path) in lower.keys().enumerate() {
            let link = layers.join(format!("roots/lower-{number}"));
            layers
                .superpose()?
                .arg("add-root")
                .arg(link)
                .arg(path)
                .succeed()?;
        }
        let model = Model {
            lower,
            ..Model::default()
        };
        Ok(Self {
            stock,
            layers,
            _mount: mount,
            lower: tree,
            elsewhere,
            exported,
            exported_references,
            model,
        })
    }

    /// How many objects there are to import.
    pub(crate) fn objects(&self) -> u32 {
        OBJECTS
    }

    fn superpose(&self) -> Result<Invocation> {
        self.layers.superpose()
    }

    fn nix_store(&self) -> Invocation {
        self.stock.nix_store(self.layers.url())
    }

    /// One of them, with its words for the same work.
    fn of(&self, who: Who, superpose: &[&str], nix_store: &[&str]) -> Result<Invocation> {
        Ok(match who {
            Who::Superpose => self.superpose()?.args(superpose),
            Who::Stock => self.nix_store().args(nix_store),
        })
    }

    /// Takes a step, on the store and in the model.
    pub(crate) fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::AddFile { who, name, text } => {
                let file = self
                    .layers
                    .file(&format!("file-{name}"), format!("text {text}\n"))?;
                self.add(self.of(*who, &["add"], &["--add"])?.arg(file), Vec::new())
            }
            Step::AddTree { who, tree } => {
                let tree = match tree.checked_sub(NAMES) {
                    None => self.layers.join(format!("tree-{tree}")),
                    // Valid below, as every third object there.
                    Some(below) => self.layers.join(format!("below-{}", below * 3)),
                };
                self.add(self.of(*who, &["add"], &["--add"])?.arg(tree), Vec::new())
            }
            Step::AddReferring { text, references } => {
                let file = self
                    .layers
                    .file("referring", format!("{text} {}\n", references.join(" ")))?;
                let words = references.iter().flat_map(|to| ["--reference", to]);
                self.add(
                    self.superpose()?.arg("add").args(words).arg(file),
                    references.clone(),
                )
            }
            Step::Instantiate { number } => self.instantiate(*number),
            Step::Import { from, to, object } => self.import(*from, *to, *object as usize),
            Step::AddRoot { who, link, path } => self.add_root(*who, *link, path),
            Step::RemoveRoot { link } => {
                fs::remove_file(link)?;
                self.model.roots.remove(link);
                Ok(())
            }
            Step::Delete { who, paths } => {
                let may_delete = self.model.may_delete(paths);
                let delete = self.of(*who, &["delete"], &["--delete"])?.args(paths);
                delete.exit_with(i32::from(!may_delete))?;
                if may_delete {
                    self.model.remove(paths);
                }
                Ok(())
            }
            Step::Collect { who } => {
                self.of(*who, &["gc"], &["--gc"])?.succeed()?;
                self.model.collect();
                Ok(())
            }
            Step::Optimise { who } => {
                self.of(*who, &["optimise"], &["--optimise"])?.succeed()?;
                if *who == Who::Stock {
                    // It has no hook, and only says that the mount is not fresh.
                    self.superpose()?.arg("remount").succeed()?;
                }
                self.model.duplicates.clear();
                Ok(())
            }
            Step::Verify { who } => self.verify(*who),
            Step::Ensure { who, path } => {
                let ensure = self.of(*who, &["ensure"], &["--check-validity"])?.arg(path);
                ensure.exit_with(i32::from(self.model.gone.contains(path)))?;
                Ok(())
            }
            Step::Duplicate { path } => {
                self.layers.duplicate(path)?;
                self.model.duplicates.insert(path.clone());
                Ok(())
            }
        }
    }

    fn add(&mut self, add: Invocation, references: Vec<String>) -> Result<()> {
        let added = add.succeed()?;
        self.model.add(added.line()?, references);
        Ok(())
    }

    /// Stock Nix says what it made; both must agree on what that refers to.
    fn instantiate(&mut self, number: u32) -> Result<()> {
        let expression = format!(
            r#"let make = name: more: derivation ({{ inherit name; system = "any"; builder = "/bin/sh"; }} // more);
            in make "program-{number}" {{
                script = builtins.toFile "script-{number}" "exit {number}";
                input = make "input-{}" {{ }};
            }}"#,
            number / 2
        );
        let instantiate = self.stock.program("nix-instantiate");
        let instantiate = instantiate.arg("--store").arg(self.layers.url());
        let made = instantiate.args(["-E", &expression]).succeed()?;
        let requisites = self
            .superpose()?
            .args(["query", "--requisites", made.line()?])
            .succeed()?;
        for path in requisites.text()?.lines() {
            let ours = self
                .superpose()?
                .args(["query", "--references", path])
                .succeed()?;
            let theirs = self.nix_store().args(["-q", "--references", path]).succeed()?;
            let ours = lines(&ours)?;
            ensure!(
                ours == lines(&theirs)?,
                "they do not agree on the references of {path}"
            );
            self.model.add(path, ours.into_iter().collect());
        }
        Ok(())
    }

    fn import(&mut self, from: Who, to: Who, object: usize) -> Result<()> {
        let mut closure = BTreeSet::from([self.exported[object].clone()]);
        for path in self.exported[..=object].iter().rev() {
            if closure.contains(path) {
                closure.extend(self.exported_references[path].iter().cloned());
            }
        }
        let paths = self.exported.iter().filter(|path| closure.contains(*path));
        let export = match from {
            Who::Superpose => self.elsewhere.below()?.arg("export"),
            Who::Stock => self.stock.nix_store(self.elsewhere.lower()).arg("--export"),
        };
        let exported = export.args(paths).succeed()?;
        let import = self.of(to, &["import"], &["--import"])?;
        import.input(exported.stdout).succeed()?;
        for path in closure {
            let references = self.exported_references[&path].clone();
            self.model.add(&path, references);
        }
        Ok(())
    }

    fn add_root(&mut self, who: Who, link: u32, path: &str) -> Result<()> {
        let link = self.layers.join(format!("roots/own-{link}"));
        let text = link.display().to_string();
        let add = self.of(
            who,
            &["add-root", &text, path],
            &["--add-root", &text, "--realise", path],
        )?;
        // A derivation would be built.
        if who == Who::Stock && path.ends_with(".drv") {
            self.superpose()?.args(["add-root", &text, path]).succeed()?;
        } else {
            add.succeed()?;
        }
        self.model.roots.insert(link, path.to_owned());
        Ok(())
    }

    fn verify(&self, who: Who) -> Result<()> {
        match who {
            Who::Superpose => {
                self.superpose()?.args(["verify", "--check-contents"]).succeed()?;
                Ok(())
            }
            Who::Stock => expect_clean(self.nix_store()),
        }
    }

    /// What is valid, and what lies in the upper layer.
    pub(crate) fn check_quickly(&self) -> Result<()> {
        let all = self.superpose()?.args(["path-info", "--all"]).succeed()?;
        let found: BTreeSet<&str> = all.text()?.lines().collect();
        let expected = self.model.valid();
        let lost: Vec<_> = expected.difference(&found).collect();
        let extra: Vec<_> = found.difference(&expected).collect();
        ensure!(
            lost.is_empty() && extra.is_empty(),
            "not valid any more: {lost:?}, still valid: {extra:?}"
        );
        let (names, expected) = (self.layers.upper_names()?, self.model.names());
        ensure!(
            names == expected,
            "the upper layer holds {names:?}, not {expected:?}"
        );
        Ok(())
    }

    /// Everything: contents, references, the database itself, the lower store, whiteouts; and that a last collection of
    /// each leaves what roots keep and nothing else.
    pub(crate) fn check_fully(&mut self) -> Result<()> {
        for who in [Who::Superpose, Who::Stock] {
            self.verify(who)?;
        }
        self.check_references()?;
        for who in [Who::Superpose, Who::Stock] {
            self.take(&Step::Collect { who })?;
            self.check_quickly()?;
            self.verify(who)?;
        }
        self.check_references()?;
        let whiteouts = self.layers.whiteouts()?;
        ensure!(whiteouts.is_empty(), "whiteouts: {whiteouts:?}");
        self.lower.expect_unchanged(&self.layers.lower())
    }

    fn check_references(&self) -> Result<()> {
        let database = Connection::open(self.layers.database())?;
        expect_sound(&database)?;
        let mut statement = database.prepare(
            "select to_.path from Refs join ValidPaths from_ on referrer = from_.id
             join ValidPaths to_ on reference = to_.id where from_.path = ?",
        )?;
        for (path, expected) in &self.model.own {
            let found = statement.query_map([path], |row| row.get(0))?;
            let found = found.collect::<rusqlite::Result<BTreeSet<String>>>()?;
            ensure!(
                found == expected.iter().cloned().collect(),
                "{path} refers to {found:?}, not {expected:?}"
            );
        }
        for (link, path) in &self.model.roots {
            ensure!(
                fs::read_link(link)? == Path::new(path),
                "{} leads elsewhere",
                link.display()
            );
        }
        Ok(())
    }
}
