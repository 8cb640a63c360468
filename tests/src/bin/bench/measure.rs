// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of a program: how long it took, and the most memory it held.
//!
//! The run is made by a small process of its own. The kernel counts what a process held before it became another
//! program: started from here directly, every program would seem to need as much as this one.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wait4::Wait4;

/// A program with its arguments and what its environment has to say.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
}

impl Program {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The same with more arguments.
    pub(crate) fn with(&self, args: &[OsString]) -> Self {
        let mut program = self.clone();
        program.args.extend_from_slice(args);
        program
    }

    /// What it prints, without the line's end.
    pub(crate) fn line(&self) -> Result<String> {
        let output = Command::new(&self.path)
            .args(&self.args)
            .envs(self.env.clone())
            .output();
        let output = output.with_context(|| format!("starting {}", self.path.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    /// Time of the processor, of the program and of the kernel for it: unlike the other, hardly longer when the machine
    /// has other things to do.
    pub(crate) processor: Duration,
    /// The most memory that was resident, in bytes.
    pub(crate) memory: u64,
}

/// Runs a program, its standard output into a file. It must succeed.
pub(crate) fn run(program: &Program, output: &Path) -> Result<Sample> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("measure")
        .arg(output)
        .arg("--")
        .arg(&program.path)
        .args(&program.args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NIX_") || name == "SUPERPOSE_STORE" {
            command.env_remove(name);
        }
    }
    let measured = command
        .envs(program.env.clone())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&measured.stderr);
    ensure!(
        measured.status.success(),
        "{} {:?}: {}",
        program.path.display(),
        program.args,
        said.trim_end()
    );
    let text = String::from_utf8(measured.stdout)?;
    parse(&text).with_context(|| format!("measurement {text:?}"))
}

fn parse(text: &str) -> Option<Sample> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut number = || numbers.next()?.ok();
    Some(Sample {
        wall: Duration::from_nanos(number()?),
        processor: Duration::from_nanos(number()?),
        memory: number()?,
    })
}

/// The other end of [`run`]: starts the program, and prints what it took.
pub(crate) fn be_the_parent(output: &Path, words: &[OsString]) -> Result<()> {
    let [program, args @ ..] = words else {
        bail!("no program to measure");
    };
    let output = File::create(output).with_context(|| format!("creating {}", output.display()))?;
    let mut command = Command::new(program);
    command.args(args).stdout(output);
    let started = Instant::now();
    let ended = command.spawn().and_then(Wait4::wait4);
    let wall = started.elapsed();
    let ended = ended.with_context(|| format!("starting {}", program.display()))?;
    ensure!(ended.status.success(), "it ended with {}", ended.status);
    let rusage = ended.rusage;
    let processor = rusage.utime + rusage.stime;
    println!("{} {} {}", wall.as_nanos(), processor.as_nanos(), rusage.maxrss);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_survives_the_way_between_the_processes() {
        let sample = Sample {
            wall: Duration::from_nanos(1_500_000),
            processor: Duration::from_nanos(1_400_000),
            memory: 4096,
        };
        assert_eq!(parse("1500000 1400000 4096\n"), Some(sample));
        assert_eq!(parse("1500000 4096"), None);
    }
}
