// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: every test that can run on this machine. What cannot is skipped by name, with the
//! reason; `SUPERPOSE_REQUIRE=root,userns,stock` makes such a skip a failure.

mod tally;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};

use crate::{cargo_run, workspace};
pub(crate) use tally::{Skip, Tally};

/// A whole suite takes a few minutes on two loaded cores; one that hangs would take the time of the others.
const SUITE_TIME_LIMIT: Duration = Duration::from_secs(25 * 60);

/// Run the tests: of the crates, and the suites over the built program.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only these tiers
    #[arg(long, value_enum)]
    tier: Vec<Tier>,
    /// Only tests whose name contains this
    #[arg(last = true)]
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Needs nothing: tests of the crates, examples of the documentation, the program as a user meets it
    Host,
    /// Real mounts, as root in a mount namespace of its own
    Root,
    /// Stock Nix beside superpose
    Stock,
}

impl Tier {
    const ALL: [Self; 3] = [Self::Host, Self::Root, Self::Stock];

    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Root => "root",
            Self::Stock => "stock",
        }
    }
}

/// Runs the task. The last line that it prints is the sum.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tiers: &[Tier] = if args.tier.is_empty() {
        &Tier::ALL
    } else {
        &args.tier
    };
    let filter = args.filter.as_deref();
    let mut parts: Vec<(String, Tally)> = Vec::new();
    if tiers.contains(&Tier::Host) {
        crates(filter, &mut parts)?;
    }
    suites(tiers, filter, &mut parts)?;

    let mut total = Tally::default();
    println!();
    for (name, tally) in parts {
        println!("{name:<24} {tally}");
        total.add(tally);
    }
    for Skip { name, reason } in &total.skipped {
        println!("skipped {name}: {reason}");
    }
    ensure!(
        total.count() > 0,
        "nothing ran: no test has the filter in its name"
    );
    println!("{total}");
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The tests of the crates themselves: as they are used, then those that have features with all of them, then
/// the examples of their documentation.
fn crates(filter: Option<&str>, parts: &mut Vec<(String, Tally)>) -> Result<()> {
    parts.push(("crates".to_owned(), unit_tests(&[], filter)?));
    for package in packages_with_features()? {
        let name = package.strip_prefix("superpose-").unwrap_or(&package);
        let tally = unit_tests(&["--package", &package, "--all-features"], filter)?;
        parts.push((format!("{name}, all features"), tally));
    }
    parts.push((
        "harness".to_owned(),
        libtest(&["--package", "superpose-tests", "--lib", "--bins"], filter)?,
    ));
    parts.push((
        "documentation".to_owned(),
        libtest(&["--workspace", "--doc"], filter)?,
    ));
    Ok(())
}

fn packages_with_features() -> Result<Vec<String>> {
    let metadata = cargo_run::metadata()?;
    let packages = metadata["packages"].as_array().context("no packages")?.iter();
    let with_features =
        packages.filter(|package| package["features"].as_object().is_some_and(|f| !f.is_empty()));
    Ok(with_features
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect())
}

fn unit_tests(selection: &[&str], filter: Option<&str>) -> Result<Tally> {
    if !workspace::has_program("cargo-nextest") {
        return libtest(selection, filter);
    }
    let report = workspace::fetched().join("nextest/default/junit.xml");
    // A report that an earlier run left would be taken for this one's.
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut command = cargo_run::cargo(&["nextest", "run", "--no-fail-fast", "--no-tests=pass"]);
    command.args(selection).args(filter);
    let (status, _) = cargo_run::shown(command)?;
    let tally = match fs::read_to_string(&report) {
        Ok(text) => Tally::from_junit(&text)?,
        Err(_) => Tally::default(), // Nothing ran: nothing is left by the filter, or nothing could be built.
    };
    let mut tally = checked(tally, status, "cargo nextest")?;
    let mut list = cargo_run::cargo(&["nextest", "list", "--run-ignored=only", "--message-format=json"]);
    list.arg("--cargo-quiet").args(selection).args(filter);
    tally.skipped = Tally::skips_from_nextest_list(&cargo_run::read(list)?)?;
    Ok(as_required(tally))
}

/// A suite inside a crate leaves out what the machine cannot do: mounts. Where those are required, that is a
/// failure, as in the suites over the program.
fn as_required(mut tally: Tally) -> Tally {
    let is_required = workspace::required()
        .iter()
        .any(|need| matches!(need.as_str(), "root" | "userns"));
    if is_required {
        for Skip { name, reason } in tally.skipped.drain(..) {
            println!("FAILED {name}: {reason}, but SUPERPOSE_REQUIRE wants it");
            tally.failed += 1;
        }
    }
    tally
}

fn libtest(selection: &[&str], filter: Option<&str>) -> Result<Tally> {
    let mut command = cargo_run::cargo(&["test", "--no-fail-fast"]);
    command.args(selection).arg("--").args(filter);
    let (status, text) = cargo_run::shown(command)?;
    Ok(as_required(checked(
        Tally::from_libtest(&text)?,
        status,
        "cargo test",
    )?))
}

/// A run that failed without a failed test could not build or start something: that is no result at all.
fn checked(tally: Tally, status: ExitStatus, what: &str) -> Result<Tally> {
    ensure!(
        status.success() || tally.failed > 0,
        "{what} failed ({status}) before it ran any test"
    );
    Ok(tally)
}

/// The suites over the built program: each is a program of its own, and leaves a report.
fn suites(tiers: &[Tier], filter: Option<&str>, parts: &mut Vec<(String, Tally)>) -> Result<()> {
    let crashing = crashing_program()?;
    let program = program(&["build"])?;
    let suites = cargo_run::build(&["test", "--no-run", "--package", "superpose-tests", "--tests"])?;
    let report = workspace::fetched().join("suite-report.json");
    for tier in tiers {
        let suite = suites.iter().find(|built| built.name == tier.name());
        let suite = suite.with_context(|| format!("no suite {} was built", tier.name()))?;
        println!("\nsuite {}", tier.name());
        let mut command = Command::new(&suite.path);
        command
            .args(filter)
            .env("SUPERPOSE_BIN", &program)
            .env("SUPERPOSE_CRASH_BIN", &crashing)
            .env("SUPERPOSE_TEST_REPORT", &report);
        let tally = run_suite(command, &report)?;
        parts.push((format!("suite {}", tier.name()), tally));
    }
    Ok(())
}

/// The program with the points at which a test may kill it. It is built where the program itself is, so that the two
/// share what they depend on, and then put aside: whatever is built next takes its name.
fn crashing_program() -> Result<PathBuf> {
    let built = program(&["build", "--features", "superpose-cli/crash-points"])?;
    let name = built.file_name().context("a program without a name")?;
    let aside = built.with_file_name("crash-points");
    fs::create_dir_all(&aside)?;
    let aside = aside.join(name);
    fs::copy(&built, &aside).with_context(|| format!("copying {}", built.display()))?;
    Ok(aside)
}

fn program(build: &[&str]) -> Result<PathBuf> {
    let programs = cargo_run::build(build)?;
    let program = programs.into_iter().find(|built| built.name == "superpose");
    Ok(program.context("no program was built")?.path)
}

fn run_suite(command: Command, report: &Path) -> Result<Tally> {
    if report.exists() {
        fs::remove_file(report)?;
    }
    let suite = PathBuf::from(command.get_program());
    let status = within_limit(command)?;
    let text = fs::read_to_string(report);
    let text = text.with_context(|| format!("{} ended ({status}) without a report", suite.display()))?;
    checked(Tally::from_suite(&text)?, status, "a suite")
}

fn within_limit(mut command: Command) -> Result<ExitStatus> {
    let mut child = command.spawn().context("starting a suite")?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > SUITE_TIME_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!(
                "a suite was still running after {} minutes",
                SUITE_TIME_LIMIT.as_secs() / 60
            );
        }
        sleep(Duration::from_millis(50));
    }
}
