// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lint`: everything that is checked without running a test. Each check is a function from what it
//! looks at to its findings, so that it can be tried on bad input.

mod commands;
mod documents;
mod edges;
mod files;
mod modules;
mod tree;
mod words;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args as ClapArgs;

use crate::{cargo_run, workspace};
use tree::Tree;

/// Check formatting, lints, the files' form, the crates' edges, the documents, licences and bans.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Write the generated part of ARCHITECTURE.md instead of comparing it
    #[arg(long)]
    bless: bool,
    /// Leave out what compiles: clippy, and the check of commands against the built program
    #[arg(long)]
    quick: bool,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// A path of the project, with a line where there is one.
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }

    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

/// How one check ended.
enum Outcome {
    Findings(Vec<Finding>),
    Skipped(String),
}

/// The fuzz targets are a workspace of their own, and are held to the same form.
const FUZZ: &str = "fuzz/Cargo.toml";

/// Runs the task.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tree = Tree::read(&workspace::root())?;
    let metadata = cargo_run::metadata()?;
    let edges = edges::read(&metadata)?;
    if args.bless {
        edges::bless(&workspace::root(), &edges)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut roots = modules::crate_roots(&metadata, &workspace::root())?;
    roots.extend(modules::crate_roots(
        &cargo_run::metadata_of(FUZZ)?,
        &workspace::root(),
    )?);
    let mut report = Report::default();
    report.add("format", program(cargo_run::cargo(&["fmt", "--all", "--check"]))?);
    report.add(
        "format of the fuzz targets",
        program(cargo_run::cargo(&["fmt", "--check", "--manifest-path", FUZZ]))?,
    );
    report.add("file form", Outcome::Findings(files::check(&tree)));
    report.add("modules", Outcome::Findings(modules::check(&tree, &roots)));
    report.add(
        "words and hosts",
        Outcome::Findings(words::check(&tree, &words::of_this_machine()?)),
    );
    report.add("crate edges", Outcome::Findings(edges::check(&edges)));
    report.add(
        "crate graph",
        Outcome::Findings(edges::check_graph(&tree, &edges)),
    );
    report.add("documents", Outcome::Findings(documents::check(&tree)));
    if args.quick {
        report.add("commands", Outcome::Skipped("--quick".to_owned()));
        report.add("clippy", Outcome::Skipped("--quick".to_owned()));
    } else {
        report.add("clippy", program(clippy())?);
        report.add("commands", Outcome::Findings(documented_commands(&tree)));
    }
    report.add("licences, bans, sources", deny()?);
    Ok(report.finish())
}

fn clippy() -> Command {
    cargo_run::cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny=warnings",
    ])
}

/// A program that cannot be built or started is a finding like others: the rest of the checks still run.
fn documented_commands(tree: &Tree) -> Vec<Finding> {
    let findings = commands::Built::new().and_then(|program| commands::check(tree, &program));
    findings.unwrap_or_else(|error| vec![Finding::new("superpose", format!("{error:#}"))])
}

fn deny() -> Result<Outcome> {
    if !workspace::has_program("cargo-deny") {
        let reason = "cargo-deny is not installed (cargo install --locked cargo-deny)";
        return Ok(if workspace::required().iter().any(|need| need == "deny") {
            Outcome::Findings(vec![Finding::new("SUPERPOSE_REQUIRE names deny", reason)])
        } else {
            Outcome::Skipped(reason.to_owned())
        });
    }
    program(cargo_run::cargo(&[
        "deny",
        "--log-level=error",
        "--locked",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// A check that another program makes, which prints its findings itself.
fn program(mut command: Command) -> Result<Outcome> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    let findings = match status.success() {
        true => Vec::new(),
        false => vec![Finding::new("see above", format!("ended with {status}"))],
    };
    Ok(Outcome::Findings(findings))
}

#[derive(Default)]
struct Report {
    clean: usize,
    skipped: usize,
    faulty: usize,
}

impl Report {
    fn add(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Skipped(reason) => {
                self.skipped += 1;
                println!("skipped {name}: {reason}");
            }
            Outcome::Findings(findings) if findings.is_empty() => {
                self.clean += 1;
                println!("ok      {name}");
            }
            Outcome::Findings(findings) => {
                self.faulty += 1;
                println!("FAULTY  {name}");
                for Finding { place, what } in findings {
                    println!("  {place}: {what}");
                }
            }
        }
    }

    fn finish(self) -> ExitCode {
        println!(
            "lint: {} clean, {} faulty, {} skipped",
            self.clean, self.faulty, self.skipped
        );
        if self.faulty == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
