// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that runs beside the trial: one that holds a lock, keeps a store open, or waits to be killed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::Finished;

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// A program that has been started. It is killed, with all that it started, when this is dropped.
///
/// Its standard output is a pipe that nobody reads before it ends: a program that prints more than a pipe holds
/// stops there, with everything open that it has open.
#[derive(Debug)]
pub struct Running {
    child: Child,
    description: String,
    limit: Duration,
    is_over: bool,
}

impl Running {
    pub(crate) fn start(
        mut command: Command,
        input: Stdio,
        description: String,
        limit: Duration,
    ) -> Result<Self> {
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("starting {description}"))?;
        Ok(Self {
            child,
            description,
            limit,
            is_over: false,
        })
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until something is true, which it must be before the program ends.
    ///
    /// # Errors
    /// If the program ends first, or the time is over.
    pub fn wait_until(&mut self, what: &str, mut is_true: impl FnMut() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        loop {
            if is_true()? {
                return Ok(());
            }
            ensure!(self.is_running()?, "{} ended before {what}", self.description);
            ensure!(
                started.elapsed() < self.limit,
                "{} was not at this point after {:?}: {what}",
                self.description,
                self.limit
            );
            thread::sleep(PAUSE);
        }
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid(), signal).with_context(|| format!("signalling {}", self.description))
    }

    /// Reads everything that it says, and waits for its end.
    ///
    /// # Errors
    /// If it is still running after the time limit.
    pub fn finish(mut self) -> Result<Finished> {
        let readers = (
            self.child.stdout.take().map(reading),
            self.child.stderr.take().map(reading),
        );
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if started.elapsed() > self.limit {
                bail!("{} was still running after {:?}", self.description, self.limit);
            }
            thread::sleep(PAUSE);
        };
        self.is_over = true;
        let joined = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        Ok(Finished::new(
            self.description.clone(),
            status,
            joined(readers.0),
            joined(readers.1),
        ))
    }
}

fn reading(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A program that was killed may leave half a line; that is all there is to know.
        pipe.read_to_end(&mut bytes).ok();
        bytes
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            kill_process_group(self.pid(), Signal::KILL).ok();
            self.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Invocation;

    use super::*;

    #[test]
    fn a_program_that_nobody_reads_waits_and_then_ends() {
        let shell = Invocation::new("sh").args(["-c", "head -c 100000 /dev/zero; echo end >&2"]);
        let mut shell = shell.start().unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(shell.is_running().unwrap());
        let finished = shell.finish().unwrap();
        assert_eq!(
            (finished.stdout.len(), finished.errors().as_str()),
            (100_000, "end\n")
        );
    }

    #[test]
    fn the_signal_that_ends_it_is_told() {
        let sleep = Invocation::new("sleep").arg("600").start().unwrap();
        sleep.signal(Signal::TERM).unwrap();
        assert_eq!(sleep.finish().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn a_condition_that_never_comes_is_an_error() {
        let mut program = Invocation::new("true").start().unwrap();
        let error = program.wait_until("never", || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("ended before never"), "{error}");
    }
}
