// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small objects for trials on a local store.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use superpose_tests::Layers;

/// How many names other than those that begin with a dot are in a store directory.
pub(crate) fn objects(dir: &Path) -> Result<usize> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<Result<Vec<_>>>()?;
    Ok(names
        .iter()
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .count())
}

/// The base name of a store path.
pub(crate) fn name_of(path: &str) -> Result<&str> {
    path.strip_prefix("/nix/store/").context("not a store path")
}

/// Adds a text that refers to others, and gives its path.
pub(crate) fn text(layers: &Layers, name: &str, references: &[&str]) -> Result<String> {
    let file = layers.file(name, format!("{name} {}\n", references.join(" ")))?;
    let mut add = layers.below()?.args(["add", "--method", "text"]);
    for reference in references {
        add = add.args(["--reference", reference]);
    }
    Ok(add.arg(file).succeed()?.line()?.to_owned())
}
