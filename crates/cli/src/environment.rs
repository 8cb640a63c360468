// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the environment says. Nothing else reads it: the libraries get it as arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use superpose_daemon::Socket;
use superpose_overlay::OpenOptions;
use superpose_overlay::store_path::{Defaults, StoreDir};

use crate::error::{Error, Result};

/// Names the store for superpose alone.
pub(crate) const SUPERPOSE_STORE: &str = "SUPERPOSE_STORE";
/// Names the store for Nix and everything that follows it.
pub(crate) const NIX_REMOTE: &str = "NIX_REMOTE";

/// The variable of that name, unless it is empty: to Nix an empty one is as good as none.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The URL of the store, if the environment names one.
pub(crate) fn store() -> Option<OsString> {
    variable(SUPERPOSE_STORE).or_else(|| variable(NIX_REMOTE))
}

/// What a URL leaves open, as Nix takes it from the environment.
pub(crate) fn defaults() -> Result<Defaults> {
    let nix = Defaults::default();
    let store_dir = match variable("NIX_STORE_DIR").or_else(|| variable("NIX_STORE")) {
        Some(text) => StoreDir::new(text.as_bytes()).map_err(Error::usage)?,
        None => nix.store_dir,
    };
    Ok(Defaults {
        store_dir,
        state_dir: directory("NIX_STATE_DIR")?.unwrap_or(nix.state_dir),
        log_dir: directory("NIX_LOG_DIR")?.unwrap_or(nix.log_dir),
        daemon_socket: directory("NIX_DAEMON_SOCKET_PATH")?,
    })
}

fn directory(name: &str) -> Result<Option<PathBuf>> {
    match variable(name).map(PathBuf::from) {
        Some(path) if !path.is_absolute() => Err(Error::usage(format!(
            "the variable {name} is '{}', expected an absolute path",
            path.display()
        ))),
        path => Ok(path),
    }
}

/// The sockets that a service manager hands over, as systemd does; none without one.
pub(crate) fn activated_sockets() -> Result<Vec<Socket>> {
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    Ok(Socket::activated(pid.as_deref(), count.as_deref())?)
}

/// Whether somebody asked for plain text: `NO_COLOR` of any value, or a terminal that knows no more.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub(crate) fn wants_plain_text() -> bool {
    // Unlike elsewhere an empty value counts: so do Nix and no-color.org's forerunners.
    std::env::var_os("NO_COLOR").is_some() || variable("TERM").is_none_or(|term| term == "dumb")
}

/// Whether there is a file of that name, in `PATH` if the name has no slash.
pub(crate) fn has_program(name: &OsStr) -> bool {
    if name.as_bytes().contains(&b'/') {
        return Path::new(name).exists();
    }
    variable("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).exists()))
}

/// How stores are opened.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn open_options() -> Result<OpenOptions> {
    Ok(OpenOptions::default())
}

/// How stores are opened; `SUPERPOSE_CRASH_AT=n` aborts at the n-th crash point.
#[cfg(feature = "crash-points")]
pub(crate) fn open_options() -> Result<OpenOptions> {
    let mut options = OpenOptions::default();
    if let Some(text) = variable("SUPERPOSE_CRASH_AT") {
        let point = text.to_str().and_then(|text| text.parse().ok());
        let point = point.ok_or_else(|| Error::usage("SUPERPOSE_CRASH_AT is not a number"))?;
        options.crash_points = superpose_overlay::CrashPoints::abort_at(point);
    }
    Ok(options)
}
