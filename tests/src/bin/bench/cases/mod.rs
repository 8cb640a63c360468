// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is compared with stock Nix: the same work for both programs.

mod additions;
mod life;
mod queries;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::generate::Generated;
use crate::layers::Restore;
use crate::proof::Proof;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Objects of the small, the middle and the large store.
    pub(crate) stores: [u32; 3],
    /// Bytes of the large file.
    pub(crate) large: u64,
    /// Files of the directory of many.
    pub(crate) many: u32,
    /// Objects that are collected or deduplicated: few and many.
    pub(crate) objects: [u32; 2],
    /// Rows of an upper database that nothing is to be done for.
    pub(crate) known: u32,
    /// Bytes of all large objects that are verified.
    pub(crate) bulk: u64,
    /// Rows of the upper database that memory is measured with.
    pub(crate) rows: u32,
    /// Objects of the small and the large batch whose calls that sync are counted.
    pub(crate) batches: [u32; 2],
}

impl Sizes {
    /// Those that the targets are for.
    pub(crate) const FULL: Self = Self {
        stores: [1_000, 10_000, 100_000],
        large: 1 << 30,
        many: 20_000,
        objects: [1_000, 10_000],
        known: 44_000,
        bulk: 4 << 30,
        rows: 1_000_000,
        batches: [10, 1_000],
    };

    /// Enough to see that everything works.
    pub(crate) const QUICK: Self = Self {
        stores: [100, 1_000, 10_000],
        large: 64 << 20,
        many: 2_000,
        objects: [100, 1_000],
        known: 4_400,
        bulk: 256 << 20,
        rows: 50_000,
        batches: [10, 100],
    };

    /// Objects of the measured closure.
    pub(crate) fn closure(self) -> u32 {
        self.stores[1]
    }

    /// Objects of the closures that a store of `count` objects has, lowest first: all of it is one, so that one root
    /// can keep it.
    pub(crate) fn closures(self, count: u32) -> Vec<u32> {
        let mut sizes = vec![self.closure() / 10, self.closure(), count];
        sizes.retain(|&size| size <= count);
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Where a case has its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Over one of the generated stores.
    Over(Lower),
    /// One of the generated stores itself, which is read; what is written goes to a store in memory.
    Of(Lower),
    /// One of the generated stores behind a stock daemon, which each program has for itself.
    Served(Lower),
    /// Both layers in memory.
    Memory,
}

/// One of the generated stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lower {
    Small = 0,
    Middle = 1,
    Large = 2,
}

/// What the upper layer and the upper database hold when a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Upper {
    /// Rows of the first so many objects of the lower store, as after `ensure`.
    pub(crate) known: u32,
    /// Whether the layer has their files, too.
    pub(crate) copies: Copies,
    /// Objects that are only here: files and rows.
    pub(crate) own: u32,
    pub(crate) roots: Roots,
}

/// Whether objects that are known from below lie above, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Copies {
    #[default]
    None,
    All,
}

/// What the roots of the overlay store keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Roots {
    #[default]
    Nothing,
    /// The whole lower store, by one root.
    Lower,
    /// That, and all objects that are only above, by another.
    Everything,
}

impl Upper {
    /// Nothing at all.
    pub(crate) const EMPTY: Self = Self {
        known: 0,
        copies: Copies::None,
        own: 0,
        roots: Roots::Nothing,
    };

    /// Rows, and nothing in the layer.
    pub(crate) fn knowing(known: u32) -> Self {
        Self { known, ..Self::EMPTY }
    }

    /// Objects that nothing needs, above a lower store that is needed.
    pub(crate) fn dead(own: u32) -> Self {
        Self {
            own,
            roots: Roots::Lower,
            ..Self::EMPTY
        }
    }
}

/// Work that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// For `--only`.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) place: Place,
    pub(crate) upper: Upper,
    pub(crate) restore: Restore,
    /// Stock Nix: the name it is started by, and what follows `--store URL`.
    pub(crate) stock: (&'static str, Vec<OsString>),
    /// superpose: what follows `--store URL`.
    pub(crate) ours: Vec<OsString>,
    pub(crate) proof: Proof,
    /// How many times faster superpose has to be.
    pub(crate) target: f64,
    pub(crate) pace: Pace,
}

/// How long a run takes, which says how many are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Milliseconds: whatever else the machine does shows in single runs.
    Short,
    /// Longer.
    Usual,
    /// Stock Nix takes most of a minute.
    Slow,
}

/// Stands for the directory of a new store among the arguments of a case.
pub(crate) const DESTINATION: &str = "{destination}";

/// superpose over the small and over the large store.
pub(crate) const SCALE: &str = "scale";

/// Contents of large objects, against a loop that only reads and hashes.
pub(crate) const VERIFY_LARGE: &str = "verify-large";

/// The most memory of a collection.
pub(crate) const GC_MEMORY: &str = "gc-memory";

/// System calls that sync, of a small and of a large batch.
pub(crate) const SYNCS: &str = "syncs";

/// A stock client that asks for a closure, of the stock daemon and of our server.
pub(crate) const SERVE_CLOSURE: &str = "serve-closure";

/// Each client that asks for a closure, of its own server.
pub(crate) const SERVE_OWN: &str = "serve-own";

/// Each client that has just been started and asks one question, of its own server.
pub(crate) const SERVE_START: &str = "serve-start";

/// A closure that each client sends to its own server.
pub(crate) const SERVE_COPY: &str = "serve-copy";

/// Many clients of our server at once.
pub(crate) const SERVE_LOAD: &str = "serve-load";

/// The names that `--only` takes, in the order in which they are run; the last eight are not a [`Case`].
pub(crate) const NAMES: [&str; 27] = [
    "start",
    "closure-empty",
    "closure-full",
    "closure-sizes",
    "ensure",
    "referrers",
    "daemon-start",
    "daemon-closure",
    "add-large",
    "add-many",
    "gc-dead",
    "gc-dead-many",
    "gc-nothing",
    "optimise",
    "optimise-many",
    "optimise-nothing",
    "verify",
    "copy",
    SCALE,
    VERIFY_LARGE,
    GC_MEMORY,
    SYNCS,
    SERVE_CLOSURE,
    SERVE_OWN,
    SERVE_START,
    SERVE_COPY,
    SERVE_LOAD,
];

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// The cases that compare superpose with stock Nix.
pub(crate) fn all(sizes: Sizes, stores: &[Generated; 3], inputs: &Inputs) -> Vec<Case> {
    let mut cases = queries::cases(sizes, stores);
    cases.extend(additions::cases(sizes, inputs));
    cases.extend(life::cases(sizes, stores));
    cases
}

/// What `add` is given.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// A file.
    pub(crate) large: PathBuf,
    /// A directory of small files.
    pub(crate) many: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closures_fit_into_their_store() {
        let closures = Sizes::FULL.stores.map(|count| Sizes::FULL.closures(count));
        assert_eq!(
            closures,
            [vec![1_000], vec![1_000, 10_000], vec![1_000, 10_000, 100_000]]
        );
    }

    #[test]
    fn every_case_can_be_asked_for() {
        let stores = Sizes::QUICK
            .stores
            .map(|count| Generated::new(&PathBuf::from("store"), count, &[]));
        let inputs = Inputs {
            large: PathBuf::from("large"),
            many: PathBuf::from("many"),
        };
        let cases = all(Sizes::QUICK, &stores, &inputs);
        let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        names.extend([
            SCALE,
            VERIFY_LARGE,
            GC_MEMORY,
            SYNCS,
            SERVE_CLOSURE,
            SERVE_OWN,
            SERVE_START,
            SERVE_COPY,
            SERVE_LOAD,
        ]);
        assert_eq!(names, NAMES);
    }
}
