// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the work tree is, what the environment asks for, and which programs the machine has.
#![allow(
    clippy::disallowed_methods,
    reason = "xtask reads its environment, and does so only in this file"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The directory of the root manifest.
pub(crate) fn root() -> PathBuf {
    // cargo sets the variable when it runs us; the compiled-in value serves a binary started by hand.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// The directory for things that tasks fetch or generate and that every later task finds again. It stays
/// with the work tree: `CARGO_TARGET_DIR` moves what cargo builds, not this.
pub(crate) fn fetched() -> PathBuf {
    root().join("target")
}

/// The cargo that started us.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// The needs that `SUPERPOSE_REQUIRE` (a list with commas) turns from "skip" into "fail".
pub(crate) fn required() -> Vec<String> {
    let text = std::env::var("SUPERPOSE_REQUIRE").unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What is to run emulated machines, if somebody chose.
pub(crate) fn accelerator() -> Option<String> {
    std::env::var("XTASK_ACCEL").ok()
}

/// How many times as long as elsewhere things may take on this machine.
pub(crate) fn time_factor() -> Result<u32> {
    match std::env::var("XTASK_TIME_FACTOR") {
        Ok(text) => text.parse().with_context(|| format!("XTASK_TIME_FACTOR={text}")),
        Err(_) => Ok(1),
    }
}

/// The seed of what is left to chance: the one that the environment names, or another each time.
pub(crate) fn seed() -> String {
    let named = std::env::var("SUPERPOSE_SEED");
    named.unwrap_or_else(|_| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.subsec_nanos().to_string()
    })
}

/// What this run's environment says of what is left to chance.
pub(crate) fn chance() -> Vec<(&'static str, String)> {
    let names = ["SUPERPOSE_SEED", "SUPERPOSE_STEPS", "SUPERPOSE_STRESS_SECONDS"];
    let set = names.into_iter().map(|name| (name, std::env::var(name)));
    set.filter_map(|(name, value)| Some((name, value.ok()?)))
        .collect()
}

/// Whether a program of this name is found in `PATH`.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Where a program is, in `PATH` or where those of administrators are, which ordinary users may run all the same.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut dirs = std::env::split_paths(&path).chain(more);
    dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
}
