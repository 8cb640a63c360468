// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures superpose against stock Nix on equal stores; `cargo xtask bench` builds both sides and starts it, as
//! root in a mount namespace of its own.
//!
//! Both programs do the same work in turn, and both have to prove that they did it. What a run changes is put back
//! before the next one, outside the measured time.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "a program: the report goes to standard output"
)]
#![allow(clippy::print_stderr, reason = "a program: progress goes to standard error")]
#![allow(
    clippy::disallowed_methods,
    reason = "store URLs in the environment must not reach what is measured"
)]

mod cases;
mod generate;
mod graph;
mod growth;
mod hashing;
mod layers;
mod load;
mod machine;
mod many_rows;
mod measure;
mod objects;
mod proof;
mod report;
mod runs;
mod serving;
mod serving_copy;
mod stage;
mod stock;
mod syncs;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Parser};

use cases::Sizes;
use runs::Bench;
use table::{Form, Judgement};

/// Measures superpose against stock Nix.
#[derive(Debug, Parser)]
enum Task {
    /// All measurements, and the report
    Run(Options),
    /// One run of one program, from a process that is small itself
    #[command(hide = true)]
    Measure {
        output: PathBuf,
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// Makes the stores, in a process of its own: it needs more memory than the rest
    #[command(hide = true)]
    Generate(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// The superpose to be measured
    #[arg(long)]
    superpose: PathBuf,
    /// The directory with the stock Nix
    #[arg(long)]
    stock: PathBuf,
    /// Where the stores are made, and found again
    #[arg(long)]
    work: PathBuf,
    /// Small stores and few runs: shows that everything works, and judges nothing
    #[arg(long)]
    quick: bool,
    /// Only these cases
    #[arg(long, value_parser = cases::NAMES)]
    only: Vec<String>,
    /// How often each program runs, after one run that does not count
    #[arg(long)]
    runs: Option<usize>,
    /// Succeed even if a target is missed
    #[arg(long)]
    no_targets: bool,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
}

impl Options {
    fn sizes(&self) -> Sizes {
        if self.quick { Sizes::QUICK } else { Sizes::FULL }
    }

    fn form(&self) -> Form {
        if self.markdown {
            Form::Markdown
        } else {
            Form::Plain
        }
    }

    fn judgement(&self) -> Judgement {
        if self.quick {
            Judgement::LeftOut
        } else {
            Judgement::Judged
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Run(options) => run(&options),
        Task::Measure { output, words } => {
            measure::be_the_parent(&output, &words).map(|()| ExitCode::SUCCESS)
        }
        Task::Generate(options) => stage::make_stores(&options).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the measurements mount OverlayFS as stock Nix wants it, which takes root"
    );
    let bench = Bench::prepare(options)?;
    let results = bench.run(options)?;
    let all_met = report::print(&bench, options, &results);
    Ok(
        if all_met || options.no_targets || options.judgement() == Judgement::LeftOut {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        },
    )
}
