// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured: the same work for both programs, and how to tell that both did it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use superpose_store_path::{StoreDir, StorePath};

use crate::generate::Generated;
use crate::layers::{Layers, Restore};

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Objects of the small, the middle and the large store.
    pub(crate) stores: [u32; 3],
    /// Bytes of the large file.
    pub(crate) large: u64,
    /// Files of the directory of many.
    pub(crate) many: u32,
}

impl Sizes {
    /// Those that the targets are for.
    pub(crate) const FULL: Self = Self {
        stores: [1_000, 10_000, 100_000],
        large: 1 << 30,
        many: 20_000,
    };

    /// Enough to see that everything works.
    pub(crate) const QUICK: Self = Self {
        stores: [100, 1_000, 10_000],
        large: 64 << 20,
        many: 2_000,
    };

    /// Objects of the measured closure.
    pub(crate) fn closure(self) -> u32 {
        self.stores[1]
    }
}

/// Where a case has its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Over one of the generated stores.
    Over(Lower),
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

/// What the upper database holds when a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper {
    /// Nothing.
    Empty,
    /// The measured closure, as after `ensure`.
    Full,
}

/// How to tell that a run did its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// So many lines, the same of both programs in any order.
    Lines(usize),
    /// JSON with the closure sizes of so many paths, the same of both programs.
    ClosureSizes(usize),
    /// So many rows in the upper database.
    Rows(u64),
    /// An object of this name in the upper layer: the one line that is printed is its path.
    Added,
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
}

/// The names that `--only` takes, in the order in which they are run; the last one is not a [`Case`].
pub(crate) const NAMES: [&str; 9] = [
    "start",
    "closure-empty",
    "closure-full",
    "closure-sizes",
    "ensure",
    "referrers",
    "add-large",
    "add-many",
    SCALE,
];

/// superpose over the small and over the large store.
pub(crate) const SCALE: &str = "scale";

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// The cases that compare superpose with stock Nix.
pub(crate) fn all(sizes: Sizes, stores: &[Generated; 3], inputs: &Inputs) -> Vec<Case> {
    let mut cases = queries(sizes, stores);
    cases.extend(additions(sizes, inputs));
    cases
}

fn queries(sizes: Sizes, stores: &[Generated; 3]) -> Vec<Case> {
    let dir = StoreDir::default();
    let full = |path: StorePath| dir.join(&path);
    let closure = sizes.closure() as usize;
    let root = full(stores[1].root_of(sizes.closure()));
    let library = full(stores[1].library());
    let recursive = Case {
        name: "closure-empty",
        title: format!("`path-info -r` of {closure}, empty upper database"),
        place: Place::Over(Lower::Middle),
        upper: Upper::Empty,
        restore: Restore::Database,
        stock: ("nix", words(&["path-info", "-r", &root])),
        ours: words(&["path-info", "-r", &root]),
        proof: Proof::Lines(closure),
        target: 25.0,
        pace: Pace::Usual,
    };
    vec![
        Case {
            name: "start",
            title: "start, and one `path-info`".to_owned(),
            upper: Upper::Full,
            restore: Restore::Nothing,
            stock: ("nix", words(&["path-info", &library])),
            ours: words(&["path-info", &library]),
            proof: Proof::Lines(1),
            target: 8.0,
            pace: Pace::Short,
            ..recursive.clone()
        },
        recursive.clone(),
        Case {
            name: "closure-full",
            title: format!("`path-info -r` of {closure}, full upper database"),
            upper: Upper::Full,
            restore: Restore::Nothing,
            target: 6.0,
            ..recursive.clone()
        },
        Case {
            name: "closure-sizes",
            title: format!("`path-info -rS --json` of {closure}"),
            upper: Upper::Full,
            restore: Restore::Nothing,
            stock: (
                "nix",
                words(&["path-info", "-rS", "--json", "--json-format", "2", &root]),
            ),
            ours: words(&["path-info", "-rS", "--json", "--json-format", "2", &root]),
            proof: Proof::ClosureSizes(closure),
            target: 200.0,
            pace: Pace::Usual,
            ..recursive.clone()
        },
        Case {
            name: "ensure",
            title: format!("`ensure` of {closure} (`nix-store --check-validity`)"),
            stock: ("nix-store", words(&["--check-validity", &root])),
            ours: words(&["ensure", &root]),
            proof: Proof::Rows(u64::from(sizes.closure())),
            target: 15.0,
            ..recursive.clone()
        },
        Case {
            name: "referrers",
            title: format!("`query --referrers` among {}", sizes.stores[2]),
            place: Place::Over(Lower::Large),
            stock: ("nix-store", words(&["--query", "--referrers", &library])),
            ours: words(&["query", "--referrers", &library]),
            proof: Proof::Lines(0),
            target: 12.0,
            ..recursive
        },
    ]
}

fn additions(sizes: Sizes, inputs: &Inputs) -> Vec<Case> {
    let case = |name, title, input: &Path, target| Case {
        name,
        title,
        place: Place::Memory,
        upper: Upper::Empty,
        restore: Restore::Layer,
        stock: ("nix-store", vec!["--add".into(), input.into()]),
        ours: vec!["add".into(), input.into()],
        proof: Proof::Added,
        target,
        pace: Pace::Usual,
    };
    let mebibytes = sizes.large >> 20;
    vec![
        case(
            "add-large",
            format!("`add` of a file of {mebibytes} MiB, in memory"),
            &inputs.large,
            1.4,
        ),
        case(
            "add-many",
            format!("`add` of {} small files, in memory", sizes.many),
            &inputs.many,
            1.5,
        ),
    ]
}

/// What `add` is given.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// A file.
    pub(crate) large: PathBuf,
    /// A directory of small files.
    pub(crate) many: PathBuf,
}

impl Proof {
    /// Reads what a run printed, in a form in which two runs can be compared; fails if it did not do its work.
    pub(crate) fn of(&self, output: &Path, layers: &Layers) -> Result<Vec<String>> {
        let text = fs::read_to_string(output).with_context(|| format!("reading {}", output.display()))?;
        match self {
            Proof::Lines(count) => {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort_unstable();
                let is_right = lines.len() == *count || *count == 0 && !lines.is_empty();
                ensure!(is_right, "{count} lines expected, {} found", lines.len());
                Ok(lines)
            }
            Proof::ClosureSizes(count) => {
                let sizes = closure_sizes(&serde_json::from_str(&text)?)?;
                ensure!(
                    sizes.len() == *count,
                    "{count} sizes expected, {} found",
                    sizes.len()
                );
                Ok(sizes)
            }
            Proof::Rows(count) => {
                let rows = layers.count()?;
                ensure!(rows == *count, "{count} rows expected, {rows} found");
                Ok(Vec::new())
            }
            Proof::Added => {
                let path = StoreDir::default().parse_path(text.trim_end().as_bytes())?;
                ensure!(layers.holds(&path), "{path} is not in the upper layer");
                Ok(vec![text])
            }
        }
    }
}

fn closure_sizes(document: &Value) -> Result<Vec<String>> {
    let infos = document["info"].as_object().context("no object `info`")?;
    let sizes = infos.iter().map(|(path, info)| {
        let size = info["closureSize"].as_u64();
        Ok(format!(
            "{path} {}",
            size.with_context(|| format!("no closure size of {path}"))?
        ))
    });
    let mut sizes: Vec<String> = sizes.collect::<Result<_>>()?;
    sizes.sort_unstable();
    Ok(sizes)
}
