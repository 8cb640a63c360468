// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody without rights: whoever runs the suite, or nobody if that is root.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};

use crate::{Invocation, Scratch, program};

/// The user `nobody`, which every machine has, and which owns nothing.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Prepares a run of a program as somebody without rights.
#[must_use]
pub fn as_ordinary_user(program: impl AsRef<OsStr>) -> Invocation {
    if !is_root() {
        return Invocation::new(program);
    }
    Invocation::new("setpriv")
        .args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string()])
        .args(["--clear-groups", "--"])
        .arg(program)
}

/// Prepares a run of the built `superpose` as somebody without rights.
///
/// # Errors
/// If the program was not built.
pub fn superpose_as_ordinary_user() -> Result<Invocation> {
    Ok(as_ordinary_user(program::program_path()?))
}

/// Makes a directory that somebody without rights can write in.
///
/// # Errors
/// If it cannot be made.
pub fn make_writable_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)?;
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Lets somebody without rights read a tree, and nobody but root write to it. No link is followed.
///
/// # Errors
/// If the rights cannot be changed.
pub fn make_read_only(path: &Path) -> Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    if found.is_dir() {
        for entry in std::fs::read_dir(path)? {
            make_read_only(&entry?.path())?;
        }
    }
    let mode = if found.is_dir() {
        0o555
    } else {
        0o444 | (found.permissions().mode() & 0o111)
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Says why an ordinary user cannot do what `superpose run` does, or `None` if he can.
pub(crate) fn user_namespaces_missing() -> Option<String> {
    // As a user would, with the program of util-linux.
    let unshare = as_ordinary_user("unshare").args(["--user", "--map-root-user", "--mount", "true"]);
    match unshare.run() {
        Ok(finished) if finished.code() == Some(0) => {}
        Ok(finished) => return Some(format!("no user namespaces for an ordinary user: {finished}")),
        Err(error) => return Some(format!("no user namespaces for an ordinary user: {error:#}")),
    }
    // The program and the directories of the trials may be below a home that is closed to others.
    let reach = || -> Result<Option<String>> {
        let scratch = Scratch::new()?;
        let program = program::program_path()?;
        let test = as_ordinary_user("test").arg("-x").arg(&program);
        let enter = as_ordinary_user("test").arg("-x").arg(scratch.path());
        let reached = test.run()?.code() == Some(0) && enter.run()?.code() == Some(0);
        let reason = || {
            format!(
                "an ordinary user cannot reach '{}' or '{}'",
                program.display(),
                scratch.path().display()
            )
        };
        Ok((!reached).then(reason))
    };
    reach().unwrap_or_else(|error| Some(format!("{error:#}")))
}
