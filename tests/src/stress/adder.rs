// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who add objects and keep them alive by roots.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::ground::Ground;
use super::object::{Content, Object};
use super::remove_link;
use crate::{Finished, Invocation, Seeded};

/// An adder keeps at most so many objects.
const MOST_KEPT: usize = 12;

/// The objects of one adder, each with the link that keeps it.
struct Adder<'a> {
    ground: &'a Ground,
    seeded: Seeded,
    kept: Vec<(Arc<Object>, PathBuf)>,
    done: u32,
}

/// superpose adds, one object at a time or several.
pub(super) fn superpose(ground: &Ground, seeded: Seeded) -> Result<u32> {
    let mut adder = Adder::new(ground, seeded);
    while !ground.is_over() {
        match adder.seeded.below(100) {
            0..30 => adder.add_with_root()?,
            30..50 => adder.add_referring()?,
            50..70 => adder.add_several()?,
            70..80 => adder.add_again(|ground| Ok(ground.superpose()?.arg("add")))?,
            _ => adder.let_go()?,
        }
    }
    Ok(adder.done)
}

/// Stock Nix adds. The roots are made by superpose: stock Nix does not look again whether a path is valid when it has
/// protected it.
pub(super) fn stock(ground: &Ground, seeded: Seeded) -> Result<u32> {
    let mut adder = Adder::new(ground, seeded);
    while !ground.is_over() {
        match adder.seeded.below(100) {
            0..60 => {
                let content = adder.content();
                let source = adder.write(&content)?;
                let added = ground.nix_store()?.arg("--add").arg(source).succeed()?;
                adder.try_to_keep(added.line()?, content)?;
            }
            60..80 => adder.add_again(|ground| Ok(ground.nix_store()?.arg("--add")))?,
            _ => adder.let_go()?,
        }
    }
    Ok(adder.done)
}

impl<'a> Adder<'a> {
    fn new(ground: &'a Ground, seeded: Seeded) -> Self {
        Self {
            ground,
            seeded,
            kept: Vec::new(),
            done: 0,
        }
    }

    fn content(&mut self) -> Content {
        self.ground.content(&mut self.seeded)
    }

    fn write(&self, content: &Content) -> Result<PathBuf> {
        let source = self.ground.source()?;
        content.write(&source)?;
        Ok(source)
    }

    /// Nobody can come between: when it has succeeded, the object is there, and stays.
    fn add_with_root(&mut self) -> Result<()> {
        let content = self.content();
        self.root_while_adding(content, Vec::new())
    }

    /// An object that refers to others that are kept, of this adder or below.
    fn add_referring(&mut self) -> Result<()> {
        let count = 1 + self.seeded.below(3);
        let mut references: Vec<Arc<Object>> = Vec::new();
        for _ in 0..count {
            let below = self.seeded.chance(30) || self.kept.is_empty();
            let object = if below {
                Arc::clone(self.seeded.choose(&self.ground.lower))
            } else {
                Arc::clone(&self.seeded.choose(&self.kept).0)
            };
            if references.iter().all(|one| one.path != object.path) {
                references.push(object);
            }
        }
        let content = self.content();
        self.root_while_adding(content, references)
    }

    fn root_while_adding(&mut self, content: Content, references: Vec<Arc<Object>>) -> Result<()> {
        let source = self.write(&content)?;
        let link = self.ground.link();
        let words = references
            .iter()
            .flat_map(|object| ["--reference", object.path.as_str()]);
        let add = self.ground.superpose()?.arg("add").args(words);
        let added = add.arg("--add-root").arg(&link).arg(source).succeed()?;
        self.keep(Object::new(added.line()?, content, references), link)
    }

    /// Several in one process; then a root for each that is still there.
    fn add_several(&mut self) -> Result<()> {
        let count = 2 + self.seeded.below(4);
        let contents: Vec<Content> = (0..count).map(|_| self.content()).collect();
        let sources: Vec<PathBuf> = contents
            .iter()
            .map(|content| self.write(content))
            .collect::<Result<_>>()?;
        let added = self.ground.superpose()?.arg("add").args(sources).succeed()?;
        let paths: Vec<&str> = added.text()?.lines().collect();
        ensure!(paths.len() == contents.len(), "{added}");
        for (path, content) in paths.into_iter().zip(contents) {
            self.try_to_keep(path, content)?;
        }
        Ok(())
    }

    /// Makes a root, unless a collector was quicker.
    fn try_to_keep(&mut self, path: &str, content: Content) -> Result<()> {
        let link = self.ground.link();
        let root = self.ground.superpose()?.arg("add-root").arg(&link).arg(path);
        let rooted = root.run()?;
        if rooted.code() == Some(0) {
            return self.keep(Object::new(path, content, Vec::new()), link);
        }
        expect_says(&rooted, "is not valid")
    }

    /// What is kept is added once more, which changes nothing.
    fn add_again(&mut self, add: impl Fn(&Ground) -> Result<Invocation>) -> Result<()> {
        let plain: Vec<&Arc<Object>> = self
            .kept
            .iter()
            .map(|(object, _)| object)
            .filter(|object| object.references.is_empty())
            .collect();
        if plain.is_empty() {
            return Ok(());
        }
        let object = Arc::clone(*self.seeded.choose(&plain));
        let source = self.write(&object.content)?;
        let added = add(self.ground)?.arg(source).succeed()?;
        ensure!(added.line()? == object.path, "not {}: {added}", object.path);
        Ok(())
    }

    /// From now on the object is there for everybody.
    fn keep(&mut self, object: Arc<Object>, link: PathBuf) -> Result<()> {
        object
            .content
            .expect_at(&self.ground.seen(&object.path))
            .with_context(|| self.ground.describe(&object.path))
            .context("right after it was added")?;
        self.ground.published.add(&object);
        self.kept.push((object, link));
        self.done += 1;
        if self.kept.len() > MOST_KEPT {
            self.let_go()?;
        }
        Ok(())
    }

    /// Some object is not needed any more. What it needs may be, by others.
    fn let_go(&mut self) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        let (object, link) = self.kept.swap_remove(self.seeded.below(count) as usize);
        self.ground.published.take_back(&object);
        remove_link(&link)
    }
}

/// A failure that is the right answer, and says so.
pub(super) fn expect_says(finished: &Finished, why: &str) -> Result<()> {
    ensure!(
        finished.code() == Some(1) && finished.errors().contains(why),
        "{finished}"
    );
    Ok(())
}
