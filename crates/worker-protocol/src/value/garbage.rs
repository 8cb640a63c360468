// SPDX-License-Identifier: MIT OR Apache-2.0
//! `CollectGarbage`: what it asks, and what it answers.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use superpose_store_path::StorePath;

use crate::codec::{WireReader, WireWriter, read_list, read_paths, write_list, write_paths};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::feature::Feature;
use crate::operation::Operation;

/// What the collector is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GcAction {
    /// Say what is alive.
    ReturnLive,
    /// Say what is dead.
    ReturnDead,
    /// Delete what is dead.
    DeleteDead,
    /// Delete the given paths, if they are dead.
    DeleteSpecific,
}

impl GcAction {
    const fn number(self) -> u64 {
        self as u64
    }

    fn from_number(number: u64) -> Option<Self> {
        [
            Self::ReturnLive,
            Self::ReturnDead,
            Self::DeleteDead,
            Self::DeleteSpecific,
        ]
        .into_iter()
        .find(|action| action.number() == number)
    }
}

/// What the collector is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcTarget {
    /// The whole store.
    Store,
    /// Certain paths.
    Paths {
        /// The paths.
        paths: BTreeSet<StorePath>,
        /// Whether to delete also what refers to them; needs [`Feature::DeleteSpecificReferrers`].
        with_referrers: bool,
    },
}

/// The request of `CollectGarbage`.
///
/// Without [`Feature::DeleteSpecificReferrers`] the whole store is an empty set of paths, unless the action is
/// [`GcAction::DeleteSpecific`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectGarbage {
    /// What to do.
    pub action: GcAction,
    /// To what.
    pub target: GcTarget,
    /// Whether to delete also what is alive. Stock daemons refuse it to everybody.
    pub ignore_liveness: bool,
    /// How many bytes are enough; [`u64::MAX`] is no limit.
    pub max_freed: u64,
}

impl CollectGarbage {
    /// Makes the request for an action on the whole store, without a limit.
    #[must_use]
    pub const fn whole_store(action: GcAction) -> Self {
        Self {
            action,
            target: GcTarget::Store,
            ignore_liveness: false,
            max_freed: u64::MAX,
        }
    }

    /// Makes the request to delete certain paths.
    #[must_use]
    pub const fn delete(paths: BTreeSet<StorePath>) -> Self {
        Self {
            action: GcAction::DeleteSpecific,
            target: GcTarget::Paths {
                paths,
                with_referrers: false,
            },
            ignore_liveness: false,
            max_freed: u64::MAX,
        }
    }

    /// Finds what cannot be written, before anything is.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<()> {
        if dialect.has(Feature::DeleteSpecificReferrers) {
            return Ok(());
        }
        // Written all the same, the server would do less than was asked, or something else.
        match &self.target {
            GcTarget::Paths {
                with_referrers: true, ..
            } => Err(Error::NeedsFeature {
                operation: Operation::CollectGarbage,
                needs: Feature::DeleteSpecificReferrers,
            }),
            GcTarget::Paths { paths, .. } if paths.is_empty() && self.action != GcAction::DeleteSpecific => {
                Err(Error::NotExpressible {
                    what: "the target of a collection",
                    problem: "an empty set of paths would mean the whole store",
                })
            }
            GcTarget::Store if self.action == GcAction::DeleteSpecific => Err(Error::NotExpressible {
                what: "the target of a collection",
                problem: "the whole store would mean an empty set of paths",
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        let action = input.choice("the collector's action", "0 to 3", GcAction::from_number)?;
        let target = Self::read_target(input, action, dialect)?;
        let request = Self {
            action,
            target,
            ignore_liveness: input.flag("the wish to ignore liveness")?,
            max_freed: input.number("the limit of a collection")?,
        };
        for _ in 0..3 {
            input.number("an obsolete field of CollectGarbage")?;
        }
        Ok(request)
    }

    fn read_target<R: Read>(
        input: &mut WireReader<R>,
        action: GcAction,
        dialect: &Dialect,
    ) -> Result<GcTarget> {
        const WHAT: &str = "the paths to collect";
        if !dialect.has(Feature::DeleteSpecificReferrers) {
            let paths = read_paths(input, WHAT, dialect)?;
            return Ok(match action {
                GcAction::DeleteSpecific => GcTarget::Paths {
                    paths,
                    with_referrers: false,
                },
                _ if paths.is_empty() => GcTarget::Store,
                _ => GcTarget::Paths {
                    paths,
                    with_referrers: false,
                },
            });
        }
        if input.choice("the target of a collection", "0 or 1", |number| match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })? {
            return Ok(GcTarget::Store);
        }
        Ok(GcTarget::Paths {
            paths: read_paths(input, WHAT, dialect)?,
            with_referrers: input.flag("the wish to delete referrers")?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.number(self.action.number())?;
        let has_feature = dialect.has(Feature::DeleteSpecificReferrers);
        match &self.target {
            // The whole store in the new form, no path in the old one.
            GcTarget::Store => out.flag(has_feature)?,
            GcTarget::Paths {
                paths,
                with_referrers,
            } => {
                if has_feature {
                    out.flag(false)?;
                }
                write_paths(out, paths, dialect)?;
                if has_feature {
                    out.flag(*with_referrers)?;
                }
            }
        }
        out.flag(self.ignore_liveness)?;
        out.number(self.max_freed)?;
        for _ in 0..3 {
            out.number(0)?;
        }
        Ok(())
    }
}

/// The answer of `CollectGarbage`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// What is alive, dead or deleted: full paths. Stock daemons name other files of the store directory too, such as
    /// locks.
    pub paths: BTreeSet<Vec<u8>>,
    /// How many bytes were freed.
    pub bytes_freed: u64,
}

impl Collected {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>) -> Result<Self> {
        let paths = read_list(input, "the collected paths", |input| {
            Ok(input.word("a collected path")?.to_vec())
        })?;
        let collected = Self {
            paths: paths.into_iter().collect(),
            bytes_freed: input.number("the bytes freed")?,
        };
        input.number("an obsolete field of CollectGarbage")?;
        Ok(collected)
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>) -> Result<()> {
        write_list(out, self.paths.iter(), |out, path| out.string(path))?;
        out.number(self.bytes_freed)?;
        out.number(0)
    }
}
