// SPDX-License-Identifier: MIT OR Apache-2.0
//! The worked examples of the README are run as they stand there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use superpose_tests::{Invocation, Need, Scratch, Suite, program_path, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(suite, [Need::Root], the_worked_example_works);
    trials!(suite, [Need::UserNamespaces], the_example_without_root_works);
}

/// The code block of the README whose first line ends with this word.
fn block(word: &str) -> Result<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&readme).with_context(|| readme.display().to_string())?;
    let start = format!("```sh {word}\n");
    let (_, rest) = readme
        .split_once(&start)
        .with_context(|| format!("no block {word}"))?;
    let (block, _) = rest.split_once("\n```").context("a block without end")?;
    Ok(block.to_owned())
}

/// Runs a script in an empty directory, with the program in the search path.
fn run(script: &str, scratch: &Scratch) -> Result<String> {
    let program = program_path()?;
    let bin = scratch.join("bin");
    fs::create_dir(&bin)?;
    std::os::unix::fs::symlink(program, bin.join("superpose"))?;
    let home = scratch.join("home");
    fs::create_dir(&home)?;
    let path = format!(
        "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        bin.display()
    );
    let finished = Invocation::new("sh")
        .args(["-eu", "-c", script])
        .env("PATH", path)
        .current_dir(&home)
        .succeed()?;
    Ok(format!("{}{}", finished.text()?, finished.errors()))
}

fn the_worked_example_works() -> Result<()> {
    let scratch = Scratch::new()?;
    let output = run(&block("example")?, &scratch)?;
    for expected in [
        "is the expected overlay mount",
        "-letter",
        "lower",
        "upper",
        "0 faults",
        "1 store paths deleted",
    ] {
        ensure!(output.contains(expected), "no `{expected}` in {output}");
    }
    let parts: Vec<PathBuf> = ["store-a", "store-b", "merged-store"]
        .iter()
        .map(|part| scratch.join("home").join(part))
        .collect();
    ensure!(parts.iter().all(|part| part.is_dir()), "{parts:?}");
    Ok(())
}

fn the_example_without_root_works() -> Result<()> {
    let scratch = Scratch::new()?;
    let output = run(&block("unprivileged")?, &scratch)?;
    for expected in ["-passwd", "1 paths verified", "0 faults"] {
        ensure!(output.contains(expected), "no `{expected}` in {output}");
    }
    Ok(())
}
