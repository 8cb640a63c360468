// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask dist`: what is installed, in `target/dist`: the program, its man pages and its shell completions.
//!
//! The program is linked statically (position independent all the same): it runs on every Linux of its architecture,
//! a rescue system or an initramfs included, and starts in two thirds of the time, since nothing is left for the
//! dynamic loader to do.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;

use crate::{cargo_run, workspace};

/// Build what is installed into `target/dist`: the program, linked statically, man pages, completions
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

/// Runs the task.
pub(crate) fn run(_args: &Args) -> Result<()> {
    let dist = workspace::fetched().join("dist");
    let bin = dist.join("bin");
    fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
    let program = bin.join("superpose");
    let copy = bin.join(".superpose.new");
    fs::copy(self::program()?, &copy).with_context(|| copy.display().to_string())?;
    fs::rename(&copy, &program).with_context(|| program.display().to_string())?;
    let share = dist.join("share");
    let mut generate = cargo_run::cargo(&[
        "run",
        "--quiet",
        "--package",
        "superpose-cli",
        "--example",
        "generate",
        "--",
    ]);
    generate.arg(&share);
    cargo_run::read(generate)?;
    println!("{}", program.display());
    println!("{}", share.display());
    Ok(())
}

/// Builds the program as it is installed, and returns where it is.
pub(crate) fn program() -> Result<PathBuf> {
    let host = host()?;
    // A target of its own, so that the flags are not those of build scripts and procedural macros.
    let args = [
        "build",
        "--profile",
        "dist",
        "--package",
        "superpose-cli",
        "--bin",
        "superpose",
        "--target",
        &host,
    ];
    let mut command = cargo_run::cargo(&args);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let built = cargo_run::build_with(command)?;
    let program = built.into_iter().find(|built| built.name == "superpose");
    Ok(program.context("no program superpose was built")?.path)
}

/// The target that this machine is, as the compiler calls it.
pub(crate) fn host() -> Result<String> {
    let said = cargo_run::read(cargo_run::cargo(&["--version", "--verbose"]))?;
    let host = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("cargo does not say its host")?;
    ensure!(
        host.contains("linux"),
        "superpose is for Linux, and this is {host}"
    );
    Ok(host.to_owned())
}
