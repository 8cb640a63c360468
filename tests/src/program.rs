// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program under test.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::Invocation;

/// Names the program; `cargo xtask test` sets it to the one it has just built.
const PROGRAM: &str = "SUPERPOSE_BIN";

/// Prepares a run of the built `superpose`.
///
/// # Errors
/// If the program was not built.
pub fn superpose() -> Result<Invocation> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(Invocation::new(path));
    }
    // Started by hand: cargo put the program one or two directories above the suite's own.
    let suite = std::env::current_exe().context("finding the suite's own program")?;
    let mut dirs = suite.ancestors().skip(1).take(3).map(|dir| dir.join("superpose"));
    match dirs.find(|path: &PathBuf| path.is_file()) {
        Some(path) => Ok(Invocation::new(path)),
        None => bail!("superpose is not built: run `cargo xtask test`, or set {PROGRAM}"),
    }
}
