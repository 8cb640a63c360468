// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be valid, and why: a store without files, for whoever takes steps on a real one beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Paths with what they refer to.
pub type References = BTreeMap<String, Vec<String>>;

/// An overlay store whose lower store is all below roots of the overlay store: over another stock Nix does not collect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// What the lower store holds.
    pub lower: References,
    /// What only the upper layer holds.
    pub own: References,
    /// Paths of the lower store whose objects lie above, too.
    pub duplicates: BTreeSet<String>,
    /// Links to paths that are only above.
    pub roots: BTreeMap<PathBuf, String>,
    /// Paths that were valid once.
    pub gone: BTreeSet<String>,
}

impl Model {
    /// Everything that is valid.
    #[must_use]
    pub fn valid(&self) -> BTreeSet<&str> {
        self.lower
            .keys()
            .chain(self.own.keys())
            .map(String::as_str)
            .collect()
    }

    /// The names in the upper layer.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let paths: BTreeSet<&String> = self.own.keys().chain(&self.duplicates).collect();
        let mut names: Vec<String> = paths.into_iter().map(|path| base(path).to_owned()).collect();
        names.sort();
        names
    }

    /// What roots keep of the upper layer.
    #[must_use]
    pub fn alive(&self) -> BTreeSet<&str> {
        let mut alive = BTreeSet::new();
        let mut waiting: Vec<&str> = self.roots.values().map(String::as_str).collect();
        while let Some(path) = waiting.pop() {
            if let Some(references) = self.own.get(path)
                && alive.insert(path)
            {
                waiting.extend(references.iter().map(String::as_str));
            }
        }
        alive
    }

    /// A path with everything that refers to it, directly or not.
    #[must_use]
    pub fn with_referrers(&self, path: &str) -> Vec<String> {
        let mut found = BTreeSet::from([path.to_owned()]);
        loop {
            let more: Vec<String> = self
                .own
                .iter()
                .filter(|(path, references)| {
                    !found.contains(*path) && references.iter().any(|to| found.contains(to))
                })
                .map(|(path, _)| path.clone())
                .collect();
            if more.is_empty() {
                return found.into_iter().collect();
            }
            found.extend(more);
        }
    }

    /// Whether paths of the upper layer may be deleted: no root keeps one, and nothing else refers to one.
    #[must_use]
    pub fn may_delete(&self, paths: &[String]) -> bool {
        let alive = self.alive();
        paths.iter().all(|path| {
            let is_needed = self.own.iter().any(|(referrer, references)| {
                !paths.contains(referrer) && referrer != path && references.contains(path)
            });
            !alive.contains(path.as_str()) && !is_needed
        })
    }

    /// A path became valid, or was so before.
    pub fn add(&mut self, path: &str, references: Vec<String>) {
        if !self.lower.contains_key(path) {
            self.gone.remove(path);
            self.own.entry(path.to_owned()).or_insert(references);
        }
    }

    /// Paths are not valid any more.
    pub fn remove(&mut self, paths: &[String]) {
        for path in paths {
            self.own.remove(path);
            self.gone.insert(path.clone());
        }
    }

    /// What nothing keeps is collected.
    pub fn collect(&mut self) {
        let alive = self.alive();
        let dead: Vec<String> = self
            .own
            .keys()
            .filter(|path| !alive.contains(path.as_str()))
            .cloned()
            .collect();
        self.remove(&dead);
    }
}

/// The name of an object in its store directory.
#[must_use]
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
