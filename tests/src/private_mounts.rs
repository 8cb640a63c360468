// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mount namespace of our own, so that no mount of a trial is ever seen by the machine. The system call is
//! out of reach of safe code; the process starts itself anew through `unshare` of util-linux instead.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Holds the name of the namespace that was left. The variable alone proves nothing (it may come from a
/// caller's caller), so it is compared with the namespace that we are in.
const LEFT: &str = "SUPERPOSE_LEFT_MOUNT_NAMESPACE";

/// Restarts this process in a mount namespace of its own, unless it is in one already. Returns the reason if
/// that is not possible.
pub(crate) fn enter() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let here = match fs::read_link("/proc/self/ns/mnt") {
        Ok(link) => link.into_os_string(),
        Err(error) => return Some(format!("the mount namespace cannot be read: {error}")),
    };
    if let Some(left) = std::env::var_os(LEFT) {
        return if left == here {
            Some("unshare made no new mount namespace".to_owned())
        } else {
            None
        };
    }
    if let Err(reason) = can_unshare() {
        return Some(reason);
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Some(format!("the test program cannot find itself: {error}")),
    };
    let error = restart(&program, &here);
    Some(format!("unshare cannot be started: {error}"))
}

/// `exec` would end the suite where `unshare` is refused, so a harmless program goes first.
fn can_unshare() -> Result<(), String> {
    let output = unshare().arg("true").output();
    let output = output.map_err(|error| format!("unshare cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "no mount namespace of our own: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn restart(program: &Path, here: &OsString) -> std::io::Error {
    unshare()
        .arg("--")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(LEFT, here)
        .exec()
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command
}
