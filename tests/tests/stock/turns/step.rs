// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps that both take on one store, and how the next one is chosen.

use std::path::PathBuf;

use superpose_tests::{Model, Seeded};

/// Who takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Superpose,
    Stock,
}

/// One step. Printed as it is when something goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A file of one of few names and contents: many are valid already, or were once.
    AddFile {
        who: Who,
        name: u32,
        text: u32,
    },
    /// A directory of few that share files, or of those that are valid below.
    AddTree {
        who: Who,
        tree: u32,
    },
    /// A file that refers to valid paths.
    AddReferring {
        text: u32,
        references: Vec<String>,
    },
    /// A derivation with a source and an input.
    Instantiate {
        number: u32,
    },
    /// A closure of another store, through a pipe.
    Import {
        from: Who,
        to: Who,
        object: u32,
    },
    AddRoot {
        who: Who,
        link: u32,
        path: String,
    },
    RemoveRoot {
        link: PathBuf,
    },
    Delete {
        who: Who,
        paths: Vec<String>,
    },
    Collect {
        who: Who,
    },
    Optimise {
        who: Who,
    },
    Verify {
        who: Who,
    },
    /// Makes a closure known above, or asks for a path that is gone.
    Ensure {
        who: Who,
        path: String,
    },
    /// A lower object lies above, too, as if it had been added there first.
    Duplicate {
        path: String,
    },
}

/// How many names, contents, trees and so on there are to choose from.
pub(crate) const NAMES: u32 = 6;

/// Directories that were added below.
const TREES_BELOW: u32 = 2;

/// Of a hundred deletions so many are of all that refers to the path as well.
const WITH_REFERRERS: u32 = 40;

impl Step {
    /// Chooses the next step. `objects` is how many there are to import.
    pub(crate) fn next(seeded: &mut Seeded, model: &Model, objects: u32) -> Self {
        loop {
            if let Some(step) = Self::maybe(seeded, model, objects) {
                return step;
            }
        }
    }

    /// Chooses a step; none if the store has nothing that it could be done to.
    fn maybe(seeded: &mut Seeded, model: &Model, objects: u32) -> Option<Self> {
        let who = if seeded.chance(50) {
            Who::Superpose
        } else {
            Who::Stock
        };
        Some(match seeded.below(100) {
            0..14 => Step::AddFile {
                who,
                name: seeded.below(NAMES),
                text: seeded.below(NAMES),
            },
            14..24 => Step::AddTree {
                who,
                tree: seeded.below(NAMES + TREES_BELOW),
            },
            24..36 => Step::AddReferring {
                text: seeded.below(NAMES),
                references: some_of(seeded, &model.valid().into_iter().collect::<Vec<_>>()),
            },
            36..40 => Step::Instantiate {
                number: seeded.below(NAMES),
            },
            40..46 => Step::Import {
                from: *seeded.choose(&[Who::Superpose, Who::Stock]),
                to: who,
                object: seeded.below(objects),
            },
            46..58 => Step::AddRoot {
                who,
                link: seeded.below(NAMES * 2),
                path: one_of(seeded, model.own.keys())?,
            },
            58..64 => Step::RemoveRoot {
                link: one_of(seeded, model.roots.keys())?,
            },
            64..76 => deletion(seeded, model, who)?,
            76..82 => Step::Collect { who },
            82..87 => Step::Optimise { who },
            87..91 => Step::Verify { who },
            91..96 => ensuring(seeded, model, who)?,
            _ => Step::Duplicate {
                path: one_of(
                    seeded,
                    model
                        .lower
                        .keys()
                        .filter(|path| !model.duplicates.contains(*path)),
                )?,
            },
        })
    }
}

fn deletion(seeded: &mut Seeded, model: &Model, who: Who) -> Option<Step> {
    let path = one_of(seeded, model.own.keys())?;
    let mut paths = vec![path];
    if seeded.chance(WITH_REFERRERS) {
        let all = model.with_referrers(&paths[0]);
        // Of several, stock Nix deletes some before it refuses one.
        if model.may_delete(&all) {
            paths = all;
        }
    }
    Some(Step::Delete { who, paths })
}

fn ensuring(seeded: &mut Seeded, model: &Model, who: Who) -> Option<Step> {
    let path = if seeded.chance(25) {
        one_of(seeded, model.gone.iter())?
    } else {
        (*seeded.choose(&model.valid().into_iter().collect::<Vec<_>>())).to_owned()
    };
    Some(Step::Ensure { who, path })
}

fn one_of<'a, T: Clone + 'a>(seeded: &mut Seeded, values: impl Iterator<Item = &'a T>) -> Option<T> {
    let values: Vec<&T> = values.collect();
    (!values.is_empty()).then(|| (*seeded.choose(&values)).clone())
}

/// One to three of several.
fn some_of(seeded: &mut Seeded, values: &[&str]) -> Vec<String> {
    let count = 1 + seeded.below(3);
    let mut chosen: Vec<String> = (0..count).map(|_| (*seeded.choose(values)).to_owned()).collect();
    chosen.sort();
    chosen.dedup();
    chosen
}
