// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store that everybody works on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};

use super::object::{Content, Object, Published};
use super::{Clock, Company};
use crate::{Invocation, Layers, OverlayMount, Seeded, StockNix, Tree};

/// How many objects the lower store has.
const LOWER: usize = 10;

/// Beside nobody else, objects are made of so many different contents.
const CONTENTS: u32 = 12;

/// A mounted store over a lower store that roots of the overlay store keep as a whole.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) layers: Layers,
    _mount: OverlayMount,
    /// The lower store as it was.
    pub(super) below: Tree,
    pub(super) lower: Vec<Arc<Object>>,
    pub(super) published: Published,
    company: Company,
    clock: Clock,
    numbers: AtomicU64,
}

impl Ground {
    pub(super) fn new(company: Company, until: Instant) -> Result<Self> {
        let layers = Layers::new()?.over_read_only();
        let mut lower: Vec<Arc<Object>> = Vec::new();
        for number in 0..LOWER {
            let content = Content::some(&mut Seeded::new(number as u64), 1000 + number as u64);
            let file = layers.join(format!("below-{number}"));
            content.write(&file)?;
            let references: Vec<Arc<Object>> = lower.iter().skip(number / 2).take(2).cloned().collect();
            let words = references
                .iter()
                .flat_map(|object| ["--reference", object.path.as_str()]);
            let added = layers.below()?.arg("add").args(words).arg(file).succeed()?;
            lower.push(Object::new(added.line()?, content, references));
        }
        if let Company::Stock(stock) = company {
            // It reads no store that lacks the directories which it makes when it writes.
            stock.nix_store(layers.lower()).arg("--verify").succeed()?;
        }
        let mount = layers.mount()?;
        fs::create_dir(layers.join("roots"))?;
        fs::create_dir(layers.join("sources"))?;
        for (number, object) in lower.iter().enumerate() {
            let link = layers.join(format!("roots/lower-{number}"));
            layers
                .superpose()?
                .arg("add-root")
                .arg(link)
                .arg(&object.path)
                .succeed()?;
        }
        Ok(Self {
            below: Tree::of(&layers.lower())?,
            layers,
            _mount: mount,
            lower,
            published: Published::default(),
            company,
            clock: Clock {
                until,
                is_stopped: AtomicBool::new(false),
            },
            numbers: AtomicU64::new(0),
        })
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.clock.is_over()
    }

    /// Ends the time.
    pub(super) fn stop(&self) {
        self.clock.is_stopped.store(true, Ordering::Relaxed);
    }

    /// A number that nobody had before.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Something to be added.
    pub(super) fn content(&self, seeded: &mut Seeded) -> Content {
        let number = match self.company {
            Company::Alone => u64::from(seeded.below(CONTENTS)),
            Company::Stock(_) => self.number(),
        };
        Content::some(seeded, number)
    }

    /// A place for something to be added, which has the same name each time: objects are named after it.
    pub(super) fn source(&self) -> Result<PathBuf> {
        let dir = self.layers.join(format!("sources/{}", self.number()));
        fs::create_dir(&dir)?;
        Ok(dir.join("object"))
    }

    /// A link that is not there yet.
    pub(super) fn link(&self) -> PathBuf {
        self.layers.join(format!("roots/own-{}", self.number()))
    }

    pub(super) fn superpose(&self) -> Result<Invocation> {
        self.layers.superpose()
    }

    pub(super) fn stock(&self) -> Result<StockNix> {
        match self.company {
            Company::Alone => bail!("stock Nix is not at work here"),
            Company::Stock(stock) => Ok(stock),
        }
    }

    /// Which stock Nix is at work, if one is.
    pub(super) fn company(&self) -> Option<StockNix> {
        match self.company {
            Company::Alone => None,
            Company::Stock(stock) => Some(stock),
        }
    }

    pub(super) fn nix_store(&self) -> Result<Invocation> {
        Ok(self.stock()?.nix_store(self.layers.url()))
    }

    /// Where an object is seen.
    pub(super) fn seen(&self, path: &str) -> PathBuf {
        self.layers.merged().join(base(path))
    }

    /// What is known of an object that something is wrong with.
    pub(super) fn describe(&self, path: &str) -> String {
        let name = base(path);
        let look = |dir: PathBuf| match fs::symlink_metadata(dir.join(name)) {
            Ok(found) => format!("{:?}", found.file_type()),
            Err(error) => error.to_string(),
        };
        let row = self
            .superpose()
            .and_then(|superpose| superpose.args(["path-info", "--layer", path]).run());
        format!(
            "{path}: upper layer: {}; lower store: {}; merged view: {}; {}",
            look(self.layers.upper()),
            look(self.layers.lower_dir()),
            look(self.layers.merged()),
            row.map_or_else(|error| error.to_string(), |row| row.to_string())
        )
    }

    /// An object that is kept, of either layer.
    pub(super) fn any_object(&self, seeded: &mut Seeded) -> Arc<Object> {
        let below = Arc::clone(seeded.choose(&self.lower));
        if seeded.chance(30) {
            return below;
        }
        self.published.any(seeded).unwrap_or(below)
    }
}

/// The name of an object in its store directory.
pub(super) fn base(path: &str) -> &Path {
    Path::new(path.rsplit('/').next().unwrap_or(path))
}
