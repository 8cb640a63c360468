// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program under test.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::Invocation;

/// Names the program; `cargo xtask test` sets it to the one it has just built.
const PROGRAM: &str = "SUPERPOSE_BIN";

/// Names the program built with the feature `crash-points`; `cargo xtask test` sets it too.
const CRASHING_PROGRAM: &str = "SUPERPOSE_CRASH_BIN";

/// Prepares a run of the built `superpose`.
///
/// # Errors
/// If the program was not built.
pub fn superpose() -> Result<Invocation> {
    Ok(Invocation::new(program_path()?))
}

/// Prepares a run of a `superpose` that is aborted, as by a power cut, when it reaches the given point, counted
/// from 1; 0 lets it run to its end.
///
/// # Errors
/// If the program was not built so.
pub fn superpose_crashing_at(point: u32) -> Result<Invocation> {
    match std::env::var_os(CRASHING_PROGRAM) {
        Some(path) => Ok(Invocation::new(path).env("SUPERPOSE_CRASH_AT", point.to_string())),
        None => bail!("{CRASHING_PROGRAM} is not set"),
    }
}

/// Where the program is.
///
/// # Errors
/// If it was not built.
pub fn program_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    // Started by hand: cargo put the program one or two directories above the suite's own.
    let suite = std::env::current_exe().context("finding the suite's own program")?;
    let mut dirs = suite.ancestors().skip(1).take(3).map(|dir| dir.join("superpose"));
    match dirs.find(|path: &PathBuf| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("superpose is not built: run `cargo xtask test`, or set {PROGRAM}"),
    }
}

pub(crate) fn crashing_missing() -> Option<String> {
    let path = std::env::var_os(CRASHING_PROGRAM).map(PathBuf::from);
    (!path.is_some_and(|path| path.is_file())).then(|| {
        format!(
            "the program with crash points is not built: run `cargo xtask test`, or set {CRASHING_PROGRAM}"
        )
    })
}
