// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the work tree is, what the environment asks for, and which programs the machine has.
#![allow(
    clippy::disallowed_methods,
    reason = "xtask reads its environment, and does so only in this file"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

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

/// Whether a program of this name is found in `PATH`.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
