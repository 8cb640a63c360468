// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user's own program that remounts the store (setting `remount-hook`).
//!
//! It is for mounts that this process may not remount, or that are not the kernel's OverlayFS. Everywhere else
//! [`refresh`](super::refresh) needs no program, and does it better: `mount -o remount DIR`, the usual content of such
//! a hook, is refused by util-linux 2.41 and newer on overlays, and where it works it clears flags of the mount.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{Error, Result};

/// How long a remount hook may take, unless told otherwise.
///
/// A remount itself takes well under a second, however much is remembered. A minute leaves room for a hook that asks a
/// service on another machine; and a hook that waits for an answer that never comes does not hold a collection for ever.
pub const HOOK_TIME_LIMIT: Duration = Duration::from_secs(60);

/// How long a killed hook may take to be gone: only one that hangs in the kernel (a dead network mount) does not die
/// at once, and is then left behind.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// A program that remounts the store, with its time limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemountHook {
    program: PathBuf,
    time_limit: Duration,
}

/// How a remount hook failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookFailure {
    /// There is no such file.
    Missing,
    /// The file is there, but the interpreter that its first line names is not.
    InterpreterMissing,
    /// The file may not be executed.
    NotExecutable,
    /// The file is executable, but neither a program of this machine nor a script with a `#!` line.
    NotAProgram,
    /// It could not be started or waited for, for another reason.
    NotStarted,
    /// It ended with this exit status.
    ExitStatus(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It was killed with all its process group, because it did not end in time.
    TimedOut(Duration),
}

impl fmt::Display for HookFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookFailure::Missing => out.write_str("does not exist"),
            HookFailure::InterpreterMissing => out.write_str("names an interpreter that does not exist"),
            HookFailure::NotExecutable => out.write_str("is not executable"),
            HookFailure::NotAProgram => out.write_str("is neither a program nor a script with a #! line"),
            HookFailure::NotStarted => out.write_str("could not be run"),
            HookFailure::ExitStatus(status) => write!(out, "ended with exit status {status}"),
            HookFailure::Signal(signal) => write!(out, "was killed by signal {signal}"),
            HookFailure::TimedOut(limit) => {
                write!(
                    out,
                    "was killed: it did not end within {}",
                    crate::error::seconds(limit)
                )
            }
        }
    }
}

impl HookFailure {
    /// What to add to the message where the usual cause is known.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            HookFailure::ExitStatus(_) => {
                "; if it runs `mount -o remount`, which util-linux 2.41 and newer refuse on overlays, leave out the \
                 setting remount-hook: superpose remounts by itself"
            }
            HookFailure::Missing => {
                "; leave out the setting remount-hook where superpose may remount by itself"
            }
            _ => "",
        }
    }
}

impl RemountHook {
    /// A hook with [`HOOK_TIME_LIMIT`].
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        RemountHook {
            program: program.into(),
            time_limit: HOOK_TIME_LIMIT,
        }
    }

    /// The hook with another time limit.
    #[must_use]
    pub fn with_time_limit(self, time_limit: Duration) -> Self {
        RemountHook { time_limit, ..self }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs the hook with the mount point as its one argument and waits for it.
    ///
    /// As with Nix the program is executed directly, without a search in `PATH`; environment and working directory are
    /// inherited; standard input is empty; what it prints to standard output is dropped, standard error passes through.
    ///
    /// # Errors
    /// [`Error::RemountHook`] unless it ends with status 0. The deletions that made the remount necessary stand, and
    /// the remount stays pending.
    ///
    /// # Deviation
    /// Nix waits for ever, and after a failure forgets that the remount is pending.
    pub fn run(&self, mount_point: &Path) -> Result<()> {
        let fail = |failure, source| Error::RemountHook {
            hook: self.program.clone(),
            mount_point: mount_point.to_owned(),
            failure,
            source,
        };
        let mut child = self
            .command(mount_point)
            .spawn()
            .map_err(|error| fail(self.why_not_started(&error), Some(error)))?;
        match self.wait(&mut child) {
            Ok(None) => Err(fail(HookFailure::TimedOut(self.time_limit), None)),
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(fail(how_ended(status), None)),
            Err(error) => Err(fail(HookFailure::NotStarted, Some(error))),
        }
    }

    fn command(&self, mount_point: &Path) -> Command {
        // A bare name is the one case that the standard library looks up in PATH.
        let mut command = Command::new(Path::new(".").join(&self.program));
        command
            .arg(mount_point)
            .stdin(Stdio::null())
            // Nobody reads it: a pipe would only be able to fill up, or to be held open by a child left behind.
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            // So that the whole of it can be killed.
            .process_group(0);
        command
    }

    fn why_not_started(&self, error: &io::Error) -> HookFailure {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) if fs::metadata(&self.program).is_ok() => {
                HookFailure::InterpreterMissing
            }
            Some(Errno::NOENT | Errno::NOTDIR) => HookFailure::Missing,
            Some(Errno::ACCESS | Errno::PERM) => HookFailure::NotExecutable,
            Some(Errno::NOEXEC) => HookFailure::NotAProgram,
            _ => HookFailure::NotStarted,
        }
    }

    /// Waits until the hook ends (its status) or its time is over (`None`; it is killed then).
    fn wait(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let pid = Pid::from_child(child);
        let (send, ended) = mpsc::channel();
        let watch = move || {
            // NOWAIT leaves the dead child in place, so that its number cannot come to mean another process before
            // the group is killed.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let result = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options));
            // Once the grace is over nobody listens any more.
            let _ = send.send(result);
        };
        let watcher = thread::Builder::new().name("remount-hook".into()).spawn(watch);
        let in_time = watcher.is_ok() && ended.recv_timeout(self.time_limit).is_ok();
        if in_time {
            return child.wait().map(Some);
        }
        if let Err(errno) = kill_process_group(pid, Signal::KILL) {
            tracing::warn!(pid = %pid.as_raw_nonzero(), %errno, "cannot kill the remount hook");
        }
        if let Err(error) = watcher {
            child.wait()?;
            return Err(error);
        }
        if ended.recv_timeout(KILL_GRACE).is_ok() {
            child.wait()?;
        } else {
            tracing::warn!(pid = %pid.as_raw_nonzero(), "the remount hook was killed but does not end");
        }
        Ok(None)
    }
}

fn how_ended(status: ExitStatus) -> HookFailure {
    match (status.code(), status.signal()) {
        (Some(code), _) => HookFailure::ExitStatus(code),
        (None, Some(signal)) => HookFailure::Signal(signal),
        (None, None) => HookFailure::NotStarted,
    }
}
