// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fetched stock Nix, started without the shell that its little programs are: a millisecond of shell would
//! count for us.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::measure::Program;

/// A fetched stock Nix.
#[derive(Debug)]
pub(crate) struct Stock {
    dir: PathBuf,
    loader: PathBuf,
    libraries: PathBuf,
}

impl Stock {
    /// Finds the parts below the directory that `cargo xtask stock-nix` made.
    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let root = dir.join("root");
        let missing = || {
            format!(
                "stock Nix is not in {}: `cargo xtask stock-nix` fetches it",
                dir.display()
            )
        };
        let loader = entry(&root.join("usr/lib64"), |name| name.starts_with("ld-linux"));
        let libraries = entry(&root.join("usr/lib"), |name| name.ends_with("-linux-gnu"));
        Ok(Self {
            dir: dir.to_owned(),
            loader: loader.with_context(missing)?,
            libraries: libraries.with_context(missing)?,
        })
    }

    /// `nix` or `nix-store`: the same binary, which goes by its name.
    pub(crate) fn program(&self, name: &str) -> Program {
        let mut program = Program::new(&self.loader);
        program.args = vec![
            "--argv0".into(),
            name.into(),
            "--library-path".into(),
            self.libraries.clone().into(),
            self.dir.join("root/usr/bin/nix").into(),
        ];
        let dir = |name: &str| OsString::from(self.dir.join(name));
        program.env = vec![
            ("NIX_CONF_DIR", dir("conf")),
            ("NIX_CACHE_HOME", dir("cache")),
            ("NIX_BIN_DIR", dir("bin")),
            ("NIX_USER_CONF_FILES", OsString::new()),
        ];
        program
    }
}

fn entry(dir: &Path, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find(|name| is_it(name)).map(|name| dir.join(name))
}
