// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that sync: as many for a large batch as for a small one, none for a path.

use std::ffi::OsString;
use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use superpose_store_path::StoreDir;

use crate::cases::{Copies, DESTINATION, Lower, Place, Sizes, Upper};
use crate::proof::{LayerProof, Proof};
use crate::runs::Bench;

/// Everything that waits for a disk.
const CALLS: &str = "trace=fsync,fdatasync,syncfs,sync,msync,sync_file_range";

/// The calls of an operation.
#[derive(Debug)]
pub(crate) struct Syncs {
    pub(crate) title: &'static str,
    /// For the small number of objects and for the large one.
    pub(crate) calls: [usize; 2],
    /// In how many batches the large number is done.
    pub(crate) batches: u32,
}

/// An operation on a batch.
struct Operation {
    title: &'static str,
    place: Place,
    upper: fn(u32) -> Upper,
    /// What follows `--store URL`, before the paths.
    args: &'static [&'static str],
    takes: Takes,
    /// How many objects it does at once at most.
    at_once: u32,
    proof: fn(u32) -> Proof,
}

/// How many objects of a stream are registered at once.
const OF_A_STREAM: u32 = 512;

/// What an operation is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// The first objects of the lower store.
    Paths,
    /// The objects that are only above.
    OwnPaths,
    /// The first objects of the lower store, exported, on standard input. It works on the store that copies go to.
    Export,
}

const OPERATIONS: [Operation; 6] = [
    Operation {
        title: "`ensure`",
        place: Place::Over(Lower::Middle),
        upper: |_| Upper::EMPTY,
        args: &["ensure"],
        takes: Takes::Paths,
        at_once: u32::MAX,
        proof: |count| Proof::Rows(u64::from(count)),
    },
    Operation {
        title: "`delete`",
        place: Place::Over(Lower::Middle),
        upper: Upper::dead,
        args: &["delete"],
        takes: Takes::OwnPaths,
        at_once: u32::MAX,
        proof: |count| Proof::Layer(LayerProof::collected(count)),
    },
    Operation {
        title: "`gc`",
        place: Place::Over(Lower::Middle),
        upper: Upper::dead,
        args: &["gc"],
        takes: Takes::Nothing,
        at_once: u32::MAX,
        proof: |count| Proof::Layer(LayerProof::collected(count)),
    },
    Operation {
        title: "`optimise`, duplicates",
        place: Place::Over(Lower::Middle),
        upper: |count| Upper {
            copies: Copies::All,
            ..Upper::knowing(count)
        },
        args: &["optimise"],
        takes: Takes::Nothing,
        at_once: u32::MAX,
        proof: |count| Proof::Layer(LayerProof::deduplicated(count)),
    },
    Operation {
        title: "`copy`",
        place: Place::Of(Lower::Middle),
        upper: |_| Upper::EMPTY,
        args: &["copy", "--no-check-sigs", "--to", DESTINATION],
        takes: Takes::Paths,
        at_once: OF_A_STREAM,
        proof: Proof::Copied,
    },
    Operation {
        title: "`import`",
        place: Place::Of(Lower::Middle),
        upper: |_| Upper::EMPTY,
        args: &["import"],
        takes: Takes::Export,
        at_once: OF_A_STREAM,
        proof: Proof::Copied,
    },
];

impl Syncs {
    /// Counts the calls of each operation for both batches.
    pub(crate) fn count(bench: &Bench, sizes: Sizes) -> Result<Vec<Self>> {
        let [small, large] = sizes.batches;
        OPERATIONS
            .iter()
            .map(|operation| {
                let count = |batch| {
                    operation
                        .count(bench, batch)
                        .with_context(|| format!("{} of {batch}", operation.title))
                };
                let calls = [count(small)?, count(large)?];
                eprintln!("syncs          {} {calls:?}", operation.title);
                Ok(Self {
                    title: operation.title,
                    calls,
                    batches: large.div_ceil(operation.at_once),
                })
            })
            .collect()
    }
}

impl Operation {
    fn count(&self, bench: &Bench, batch: u32) -> Result<usize> {
        let stage = &bench.stage;
        let layers = stage.layers("syncs", self.place, &(self.upper)(batch))?;
        let lower = stage.store(Lower::Middle);
        let url: OsString = match (self.takes, self.place) {
            (Takes::Export, _) => layers.destination().into(),
            (_, Place::Of(_) | Place::Served(_)) => lower.url().to_string().into(),
            (_, Place::Over(_) | Place::Memory) => layers.url().into(),
        };
        let [trace, output, export] =
            ["trace", "out", "export"].map(|ending| stage.work.join(format!("syncs.{ending}")));
        let mut command = Command::new("strace");
        command.args(["-f", "-o"]).arg(&trace).args(["-e", CALLS, "--"]);
        command.arg(&bench.superpose.path).arg("--store").arg(url);
        for arg in self.args {
            if *arg == DESTINATION {
                command.arg(layers.destination());
            } else {
                command.arg(arg);
            }
        }
        let paths = match self.takes {
            Takes::Nothing => Vec::new(),
            Takes::OwnPaths => lower.own(batch),
            Takes::Paths | Takes::Export => lower.first(batch),
        };
        let paths = paths.iter().map(|path| StoreDir::default().join(path));
        if self.takes == Takes::Export {
            let mut exporting = Command::new(&bench.superpose.path);
            exporting.arg("--store").arg(lower.url().to_string());
            exporting.arg("export").args(paths).stdout(File::create(&export)?);
            ensure!(exporting.status()?.success(), "the export failed");
            command.stdin(File::open(&export)?);
        } else {
            command.args(paths).stdin(Stdio::null());
        }
        command.stdout(File::create(&output)?);
        let said = command.output().context("starting strace")?;
        ensure!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr).trim_end()
        );
        (self.proof)(batch).of(&output, &layers)?;
        Ok(calls_in(&fs::read_to_string(&trace)?))
    }
}

/// How many calls a trace has. A call that another thread interrupts has a second line, which says `resumed`.
fn calls_in(trace: &str) -> usize {
    let is_call = |line: &&str| line.contains("sync") && line.contains('(') && !line.contains("resumed>");
    trace.lines().filter(is_call).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_counts_once() {
        let trace = "\
10 fdatasync(5) = 0
10 fsync(6 <unfinished ...>
11 syncfs(7) = 0
10 <... fsync resumed>) = 0
10 +++ exited with 0 +++
";
        assert_eq!(calls_in(trace), 3);
    }
}
