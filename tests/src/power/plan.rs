// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of a workload, and what must be there after each of them: all of it from a seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::object::{Kind, Object};
use crate::{Model, Seeded};

/// Objects of the lower store.
const LOWER: u64 = 8;
/// So many small objects are added again and again.
const COMMON: u32 = 12;
/// Numbers of objects that come once only begin here.
const ONCE: u64 = 1000;
/// There are at most so many links that keep something.
const LINKS: u32 = 8;

/// One step: what the program is asked for. Printed as it is when something goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file or a tree is added; a link may keep it from then on.
    Add {
        /// The path that it gets.
        path: String,
        /// The link.
        link: Option<PathBuf>,
    },
    /// An object is added as an archive.
    AddArchive {
        /// The path that it gets.
        path: String,
    },
    /// Several objects come as a stream, referring to each other: all of them or none.
    Import {
        /// Their paths, in the order of the stream.
        paths: Vec<String>,
    },
    /// What somebody has put into the merged view becomes valid.
    Register {
        /// Its path.
        path: String,
    },
    /// Objects are deleted: all of them or none.
    Delete {
        /// Their paths.
        paths: Vec<String>,
    },
    /// What nothing keeps is collected: all of it or nothing.
    Collect,
    /// Objects that lie below, too, are dropped, one after the other; files that are alike become links.
    Optimise,
    /// A link keeps an object from now on.
    AddRoot {
        /// The link, by its name among the others.
        link: PathBuf,
        /// What it keeps.
        path: String,
    },
    /// A link goes.
    RemoveRoot {
        /// Its name.
        link: PathBuf,
    },
    /// An object of the lower store comes to lie above, too, as if it had been added there first.
    Duplicate {
        /// Its path.
        path: String,
    },
}

/// All steps of a seed.
#[derive(Debug)]
pub struct Plan {
    /// The lower store, in the order in which it is filled.
    pub lower: Vec<String>,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What must be there: first before all steps, then after each.
    pub states: Vec<Model>,
    objects: BTreeMap<String, Object>,
}

impl Plan {
    /// The steps of a seed. `sources` is a directory for the contents of objects, whose names are theirs.
    ///
    /// # Errors
    /// If they cannot be written there.
    pub fn new(seed: u64, steps: usize, sources: &Path) -> Result<Self> {
        let lower = lower_objects(sources)?;
        let mut model = Model::default();
        for object in &lower {
            model.lower.insert(object.path.clone(), object.references.clone());
        }
        let mut plan = Self {
            lower: lower.iter().map(|object| object.path.clone()).collect(),
            steps: Vec::with_capacity(steps),
            states: vec![model.clone()],
            objects: lower
                .into_iter()
                .map(|object| (object.path.clone(), object))
                .collect(),
        };
        let mut chooser = Chooser {
            seed,
            seeded: Seeded::new(seed),
            sources,
            once: ONCE,
        };
        while plan.steps.len() < steps {
            let Some(step) = chooser.maybe(&model, &mut plan)? else {
                continue;
            };
            plan.apply(&step, &mut model)?;
            plan.steps.push(step);
            plan.states.push(model.clone());
        }
        Ok(plan)
    }

    /// An object of the plan.
    ///
    /// # Errors
    /// If there is none of this path.
    pub fn object(&self, path: &str) -> Result<&Object> {
        let object = self.objects.get(path);
        object.with_context(|| format!("{path} is no object of the plan"))
    }

    /// Whether any step has to do with an object.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        self.objects.contains_key(path)
    }

    fn apply(&self, step: &Step, model: &mut Model) -> Result<()> {
        let mut add = |path: &String| -> Result<()> {
            model.add(path, self.object(path)?.references.clone());
            Ok(())
        };
        match step {
            Step::Add { path, link } => {
                add(path)?;
                if let Some(link) = link {
                    model.roots.insert(link.clone(), path.clone());
                }
            }
            Step::AddArchive { path } | Step::Register { path } => add(path)?,
            Step::Import { paths } => paths.iter().try_for_each(add)?,
            Step::Delete { paths } => model.remove(paths),
            Step::Collect => model.collect(),
            Step::Optimise => model.duplicates.clear(),
            Step::AddRoot { link, path } => {
                model.roots.insert(link.clone(), path.clone());
            }
            Step::RemoveRoot { link } => {
                model.roots.remove(link);
            }
            Step::Duplicate { path } => {
                model.duplicates.insert(path.clone());
            }
        }
        Ok(())
    }
}

/// The objects of every lower store, whatever the seed is: every third refers to nothing.
pub(super) fn lower_objects(sources: &Path) -> Result<Vec<Object>> {
    let mut lower: Vec<Object> = Vec::new();
    for number in 0..LOWER {
        let references = match number % 3 {
            0 => Vec::new(),
            _ => lower.last().map(|last| last.path.clone()).into_iter().collect(),
        };
        // Not one of those that are added above.
        lower.push(Object::new(0, 100 + number, Kind::Small, references, sources)?);
    }
    Ok(lower)
}

struct Chooser<'a> {
    seed: u64,
    seeded: Seeded,
    sources: &'a Path,
    /// The number of the next object that comes only once.
    once: u64,
}

impl Chooser<'_> {
    /// Chooses a step; none if the store has nothing that it could be done to.
    fn maybe(&mut self, model: &Model, plan: &mut Plan) -> Result<Option<Step>> {
        Ok(match self.seeded.below(100) {
            0..15 => {
                let number = u64::from(self.seeded.below(COMMON));
                let path = self.object(plan, number, Kind::Small, Vec::new())?;
                Some(self.adding(path))
            }
            15..20 => {
                let path = self.new_object(plan, Kind::Large, Vec::new())?;
                Some(self.adding(path))
            }
            20..29 => {
                let references = self.some_of(&model.valid().into_iter().collect::<Vec<_>>());
                let path = self.new_object(plan, Kind::Small, references)?;
                Some(self.adding(path))
            }
            29..34 => Some(Step::AddArchive {
                path: self.new_object(plan, Kind::Small, Vec::new())?,
            }),
            34..43 => Some(Step::Import {
                paths: self.chain(plan, model)?,
            }),
            43..48 => Some(Step::Register {
                path: self.new_object(plan, Kind::Small, Vec::new())?,
            }),
            48..60 => self.deletion(model),
            60..65 => Some(Step::Collect),
            65..74 => Some(Step::Optimise),
            74..81 => self.one_of(model.own.keys()).map(|path| Step::AddRoot {
                link: self.link(),
                path,
            }),
            81..86 => self
                .one_of(model.roots.keys())
                .map(|link| Step::RemoveRoot { link }),
            _ => self
                .one_of(
                    model
                        .lower
                        .keys()
                        .filter(|path| !model.duplicates.contains(*path)),
                )
                .map(|path| Step::Duplicate { path }),
        })
    }

    fn adding(&mut self, path: String) -> Step {
        let link = self.seeded.chance(40).then(|| self.link());
        Step::Add { path, link }
    }

    fn link(&mut self) -> PathBuf {
        format!("own-{}", self.seeded.below(LINKS)).into()
    }

    fn object(
        &mut self,
        plan: &mut Plan,
        number: u64,
        kind: Kind,
        references: Vec<String>,
    ) -> Result<String> {
        let object = Object::new(self.seed, number, kind, references, self.sources)?;
        let path = object.path.clone();
        plan.objects.insert(path.clone(), object);
        Ok(path)
    }

    fn new_object(&mut self, plan: &mut Plan, kind: Kind, references: Vec<String>) -> Result<String> {
        self.once += 1;
        self.object(plan, self.once, kind, references)
    }

    /// Two to five objects, each of which may refer to the one before it and to what is valid.
    fn chain(&mut self, plan: &mut Plan, model: &Model) -> Result<Vec<String>> {
        let valid: Vec<&str> = model.valid().into_iter().collect();
        let mut paths: Vec<String> = Vec::new();
        for _ in 0..2 + self.seeded.below(4) {
            let mut references = Vec::new();
            if self.seeded.chance(70) {
                references.extend(paths.last().cloned());
            }
            if self.seeded.chance(30) {
                references.push((*self.seeded.choose(&valid)).to_owned());
            }
            paths.push(self.new_object(plan, Kind::Small, references)?);
        }
        Ok(paths)
    }

    /// A deletion that is allowed.
    fn deletion(&mut self, model: &Model) -> Option<Step> {
        let path = self.one_of(model.own.keys())?;
        let paths = model.with_referrers(&path);
        model.may_delete(&paths).then_some(Step::Delete { paths })
    }

    fn one_of<'a, T: Clone + 'a>(&mut self, values: impl Iterator<Item = &'a T>) -> Option<T> {
        let values: Vec<&T> = values.collect();
        (!values.is_empty()).then(|| (*self.seeded.choose(&values)).clone())
    }

    /// One to three of several.
    fn some_of(&mut self, values: &[&str]) -> Vec<String> {
        let count = 1 + self.seeded.below(3);
        (0..count)
            .map(|_| (*self.seeded.choose(values)).to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn a_seed_gives_the_same_steps_again() {
        let scratch = Scratch::new().unwrap();
        let plan = |seed, dir: &str| {
            let sources = scratch.join(dir);
            std::fs::create_dir(&sources).unwrap();
            Plan::new(seed, 40, &sources).unwrap()
        };
        let (one, again, other) = (plan(5, "one"), plan(5, "again"), plan(6, "other"));
        assert_eq!(one.steps, again.steps);
        assert_eq!(one.states, again.states);
        assert_ne!(one.steps, other.steps);
        // The lower store is the same for all of them: it is made once.
        assert_eq!(one.lower, other.lower);
    }

    #[test]
    fn every_kind_of_step_is_taken() {
        let scratch = Scratch::new().unwrap();
        let plan = Plan::new(1, 200, scratch.path()).unwrap();
        let mut kinds: Vec<_> = plan.steps.iter().map(std::mem::discriminant).collect();
        let mut seen = Vec::new();
        kinds.retain(|kind| {
            let is_new = !seen.contains(kind);
            seen.push(*kind);
            is_new
        });
        assert_eq!(kinds.len(), 10, "{:?}", plan.steps);
    }
}
