// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own programs as guests run them: linked statically, for a guest has no tool-chain's libraries; and the files of the
//! work tree that the suites read, at their own paths.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::disk::Disk;
use super::image;
use super::tools::Tools;
use crate::{cargo_run, dist, workspace};

/// Where guests find them.
pub(crate) const PLACE: &str = "/opt/superpose";

/// The suites over the built program.
const SUITES: [&str; 3] = ["host", "root", "stock"];

/// Suites inside crates that need mounts: the crate, its suites, and the features that they need.
const CRATE_SUITES: [(&str, &[&str], &[&str]); 2] = [
    ("superpose-mount-check", &["real"], &[]),
    (
        "superpose-overlay",
        &["mounting", "store"],
        &["--features", "crash-points"],
    ),
];

/// What suites read of the work tree.
const SOURCES: [&str; 3] = [
    "README.md",
    "contrib/systemd",
    "crates/mount-check/tests/real/snapshots",
];

/// Chooses a fault, in a program that can have one.
const FAULT: &str = "SUPERPOSE_FAULT";

/// Built programs.
pub(crate) struct Programs {
    /// The first process of a guest.
    pub(crate) guest: PathBuf,
    bin: PathBuf,
    programs: PathBuf,
    sources: PathBuf,
}

impl Programs {
    /// Builds them, in a directory of their own: neither build waits for the other's lock or undoes its work.
    pub(crate) fn build(base: &Path, tools: &Tools) -> Result<Self> {
        let target = base.join("build");
        let bin = base.join("programs");
        fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
        let crashing = build(
            &target,
            &[
                "build",
                "--package",
                "superpose-cli",
                "--features",
                "superpose-cli/crash-points",
            ],
        )?;
        copy(&crashing, "superpose", &bin.join("superpose-crash-points"))?;
        let program = build(&target, &["build", "--package", "superpose-cli"])?;
        copy(&program, "superpose", &bin.join("superpose"))?;
        suites(&target, &bin, "superpose-tests", &SUITES, &[])?;
        for (package, names, features) in CRATE_SUITES {
            suites(&target, &bin, package, names, features)?;
        }
        let guest = build(
            &target,
            &["build", "--package", "superpose-tests", "--bin", "guest"],
        )?;
        let guest_program = base.join("guest");
        copy(&guest, "guest", &guest_program)?;
        let programs = Self {
            guest: guest_program,
            bin,
            programs: base.join("programs.img"),
            sources: base.join("sources.img"),
        };
        image::squashfs(tools, &programs.bin, &programs.programs)?;
        let sources = base.join("sources");
        for name in SOURCES {
            copy_tree(&workspace::root().join(name), &sources.join(name))?;
        }
        // The suites go there by way of their own package, so that this has to be there, too.
        fs::create_dir_all(sources.join("tests")).with_context(|| sources.display().to_string())?;
        fs::create_dir_all(sources.join("target/stock-nix"))
            .with_context(|| sources.display().to_string())?;
        image::squashfs(tools, &sources, &programs.sources)?;
        Ok(programs)
    }

    /// The program itself, which runs on any machine of this kind.
    pub(crate) fn program(&self) -> PathBuf {
        self.bin.join("superpose")
    }

    /// The same with a program that can be told to have a fault.
    pub(crate) fn with_faults(self, base: &Path, tools: &Tools) -> Result<Self> {
        let features = ["--features", "superpose-cli/faults"];
        let args = [&["build", "--package", "superpose-cli"][..], &features].concat();
        let faulty = build(&base.join("build"), &args)?;
        let bin = base.join("programs-with-faults");
        fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
        let others = base.join("programs");
        for other in fs::read_dir(&others).with_context(|| others.display().to_string())? {
            let other = other?;
            fs::copy(other.path(), bin.join(other.file_name()))
                .with_context(|| other.path().display().to_string())?;
        }
        let program = bin.join("superpose");
        copy(&faulty, "superpose", &program)?;
        for (place, has_faults) in [(&program, true), (&base.join("programs/superpose"), false)] {
            let bytes = fs::read(place).with_context(|| place.display().to_string())?;
            let has_it = bytes.windows(FAULT.len()).any(|part| part == FAULT.as_bytes());
            ensure!(
                has_it == has_faults,
                "{} speaks of {FAULT}: {has_it}",
                place.display()
            );
        }
        let programs = base.join("programs-with-faults.img");
        image::squashfs(tools, &bin, &programs)?;
        Ok(Self { programs, ..self })
    }

    /// The disks with the programs and the sources, to be mounted in this order.
    pub(crate) fn disks(&self) -> [Disk; 2] {
        [
            Disk::read_only("programs", &self.programs).at(PLACE, "squashfs"),
            Disk::read_only("sources", &self.sources).at(workspace::root(), "squashfs"),
        ]
    }
}

/// Builds suites of a package, and copies them.
fn suites(target: &Path, bin: &Path, package: &str, names: &[&str], features: &[&str]) -> Result<()> {
    let mut words = vec!["test", "--no-run", "--package", package];
    words.extend(features);
    words.extend(names.iter().flat_map(|name| ["--test", *name]));
    let built = build(target, &words)?;
    for name in names {
        copy(&built, name, &bin.join(name))?;
    }
    Ok(())
}

/// Copies a file, or the files of a directory.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::copy(from, to)
        .map(drop)
        .with_context(|| from.display().to_string())
}

fn build(target: &Path, args: &[&str]) -> Result<Vec<cargo_run::Built>> {
    let host = dist::host()?;
    let mut command = cargo_run::cargo(args);
    command
        .args(["--profile", "guest", "--target", &host, "--target-dir"])
        .arg(target);
    // With a target named, build scripts and procedural macros are not linked so.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo_run::build_with(command)
}

fn copy(built: &[cargo_run::Built], name: &str, to: &Path) -> Result<()> {
    let program = built.iter().find(|built| built.name == name);
    let program = program.with_context(|| format!("no program {name} was built"))?;
    let fresh = to.with_extension("new");
    fs::copy(&program.path, &fresh).with_context(|| fresh.display().to_string())?;
    fs::rename(&fresh, to).with_context(|| to.display().to_string())
}
