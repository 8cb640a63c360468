// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: superpose against stock Nix on equal stores. The measuring is done by a program of its own,
//! the binary `bench` of the package `superpose-tests`; here both sides are built and it is started where it may
//! mount.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;

use crate::{cargo_run, dist, workspace};

/// Measure superpose against stock Nix, as root; fails if a target is missed
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Small stores and few runs: shows that everything works, and judges nothing
    #[arg(long)]
    quick: bool,
    /// Only these cases; a wrong name lists them all
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// How often each program runs, after one run that does not count [default: 5, more where a run takes milliseconds]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Succeed even if a target is missed
    #[arg(long)]
    no_targets: bool,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
}

/// Runs the task.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let stock = workspace::fetched().join("stock-nix/sid");
    ensure!(
        stock.join("stamp").is_file(),
        "stock Nix is not fetched: `cargo xtask stock-nix`"
    );
    let superpose = dist::program()?;
    let bench = built(
        &[
            "build",
            "--release",
            "--package",
            "superpose-tests",
            "--bin",
            "bench",
        ],
        "bench",
    )?;
    // No mount of a store is ever seen by the machine.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(bench)
        .arg("run");
    command
        .arg("--superpose")
        .arg(superpose)
        .arg("--stock")
        .arg(stock);
    command.arg("--work").arg(workspace::fetched().join("bench"));
    command.args(args.flags());
    let status = command.status().context("starting unshare of util-linux")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn built(args: &[&str], name: &str) -> Result<PathBuf> {
    let programs = cargo_run::build(args)?;
    let program = programs.into_iter().find(|built| built.name == name);
    Ok(program
        .with_context(|| format!("no program {name} was built"))?
        .path)
}

impl Args {
    /// What is passed on as it is.
    fn flags(&self) -> Vec<String> {
        let switches = [
            ("--quick", self.quick),
            ("--no-targets", self.no_targets),
            ("--markdown", self.markdown),
        ];
        let mut flags: Vec<String> = switches
            .iter()
            .filter(|(_, is_on)| *is_on)
            .map(|(flag, _)| (*flag).to_owned())
            .collect();
        for name in &self.only {
            flags.extend(["--only".to_owned(), name.clone()]);
        }
        if let Some(runs) = self.runs {
            flags.extend(["--runs".to_owned(), runs.to_string()]);
        }
        flags
    }
}
