// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of a program: started in a known environment, watched, and everything it says kept.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::Running;

/// Longer than any single command of the suites takes on a loaded machine; one that hangs is ended.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// A program about to be run. The environment is that of the suite, less everything that chooses a store.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    input: Vec<u8>,
    limit: Duration,
}

impl Invocation {
    /// Prepares a run of a program.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"NIX_") || name == "SUPERPOSE_STORE" {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C");
        Self {
            command,
            input: Vec::new(),
            limit: TIME_LIMIT,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives the bytes that the program reads on standard input; none by default.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Sets after how long the program is killed.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The bare command, for a trial that connects the program to something of its own.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts the program and lets it run beside the trial, without input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(self) -> Result<Running> {
        self.start_with_input(Stdio::null())
    }

    /// The same with something to read, or a socket, as its standard input.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_input(mut self, input: Stdio) -> Result<Running> {
        self.command.process_group(0);
        let description = describe(&self.command);
        Running::start(self.command, input, description, self.limit)
    }

    /// The program that is to be run.
    pub(crate) fn program(&self) -> &OsStr {
        self.command.get_program()
    }

    /// Runs the program to its end, whatever that is.
    ///
    /// # Errors
    /// If it cannot be started, or is still running after the time limit.
    pub fn run(self) -> Result<Finished> {
        let (description, limit) = (describe(&self.command), self.limit);
        match self.run_or_kill()? {
            Some(finished) => Ok(finished),
            None => bail!("{description} was still running after {limit:?}"),
        }
    }

    /// Runs the program to its end, or kills it, with all that it started, when the time limit is over: `None` then.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run_or_kill(mut self) -> Result<Option<Finished>> {
        let description = describe(&self.command);
        // A group of its own: whatever it starts ends with it.
        self.command.process_group(0);
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("starting {description}"))?;
        let group = Pid::from_child(&child);

        let stdin = child.stdin.take();
        let input = self.input;
        let writer = thread::spawn(move || {
            // A program need not read its input: a broken pipe is no fault of the run.
            stdin.map(|mut pipe| pipe.write_all(&input))
        });
        let stdout = child
            .stdout
            .take()
            .map(|pipe| thread::spawn(move || read_all(pipe)));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| thread::spawn(move || read_all(pipe)));

        let started = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() >= self.limit {
                kill_process_group(group, Signal::KILL).context("ending a program")?;
                child.wait()?;
                return Ok(None);
            }
            thread::sleep(pause.min(self.limit.saturating_sub(started.elapsed())));
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        drop(writer);
        Ok(Some(Finished {
            description,
            status,
            stdout: joined(stdout)?,
            stderr: joined(stderr)?,
        }))
    }

    /// Runs the program and expects exit status 0.
    ///
    /// # Errors
    /// As [`run`](Self::run), and if the program fails: with everything it said.
    pub fn succeed(self) -> Result<Finished> {
        self.exit_with(0)
    }

    /// Runs the program and expects a certain exit status.
    ///
    /// # Errors
    /// As [`run`](Self::run), and if the status is another: with everything the program said.
    pub fn exit_with(self, code: i32) -> Result<Finished> {
        let finished = self.run()?;
        ensure!(
            finished.code() == Some(code),
            "expected exit status {code} of {finished}"
        );
        Ok(finished)
    }
}

type Reader = thread::JoinHandle<std::io::Result<Vec<u8>>>;

fn read_all(mut pipe: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn joined(reader: Option<Reader>) -> Result<Vec<u8>> {
    let Some(reader) = reader else {
        return Ok(Vec::new());
    };
    match reader.join() {
        Ok(bytes) => bytes.context("reading what a program said"),
        Err(_) => bail!("the reader of a program's output panicked"),
    }
}

fn describe(command: &Command) -> String {
    let words: Vec<OsString> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(OsStr::to_owned)
        .collect();
    words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    description: String,
    status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    pub(crate) fn new(description: String, status: ExitStatus, stdout: Vec<u8>, stderr: Vec<u8>) -> Self {
        Self {
            description,
            status,
            stdout,
            stderr,
        }
    }

    /// The exit status, or `None` if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Standard output as text.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.stdout).with_context(|| format!("standard output of {}", self.description))
    }

    /// Standard output without the white space at its end: the one path or number that many commands print.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn line(&self) -> Result<&str> {
        Ok(self.text()?.trim_end())
    }

    /// Standard error as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("no JSON from {self}"))
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.description, self.status)?;
        writeln!(
            f,
            "standard output: {}",
            String::from_utf8_lossy(&self.stdout).trim_end()
        )?;
        write!(
            f,
            "standard error: {}",
            String::from_utf8_lossy(&self.stderr).trim_end()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_output_and_status_are_kept() {
        let shell = Invocation::new("sh")
            .args(["-c", "cat; echo problem >&2; exit 3"])
            .input("text\n");
        let finished = shell.exit_with(3).unwrap();
        assert_eq!(finished.line().unwrap(), "text");
        assert_eq!(finished.errors(), "problem\n");
    }

    #[test]
    fn another_status_is_an_error_that_quotes_the_program() {
        let error = Invocation::new("sh")
            .args(["-c", "echo why >&2; exit 1"])
            .succeed()
            .unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let shell = Invocation::new("sh").args(["-c", "sleep 600 | cat"]);
        let error = shell.time_limit(Duration::from_millis(100)).run().unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
    }

    #[test]
    fn input_that_nobody_reads_is_no_error() {
        Invocation::new("true").input(vec![0; 1 << 20]).succeed().unwrap();
    }
}
