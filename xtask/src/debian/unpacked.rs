// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory into which packages were unpacked, and how a program in it is started: through the dynamic loader
//! that came with it, so that it sees the machine's own paths and mounts but none of its libraries.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

/// Unpacked packages.
pub(crate) struct Unpacked {
    pub(crate) root: PathBuf,
}

impl Unpacked {
    /// What is in a directory already.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Unpacks packages into a directory, which is emptied before.
    pub(crate) fn make(root: &Path, archives: &[PathBuf]) -> Result<Self> {
        let shell = Shell::new()?;
        shell.remove_path(root)?;
        fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        for archive in archives {
            cmd!(shell, "dpkg-deb -x {archive} {root}").quiet().run()?;
        }
        Ok(Self::at(root))
    }

    /// Prepares a run of a program that is unpacked here, named without its directory.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        let places = ["usr/bin", "usr/sbin", "bin", "sbin"];
        let mut places = places.iter().map(|dir| self.root.join(dir).join(name));
        let program = places.find(|path| path.is_file());
        let program = program.with_context(|| format!("no {name} below {}", self.root.display()))?;
        let mut command = Command::new(self.loader()?);
        command.arg("--argv0").arg(name);
        command.arg("--library-path").arg(self.library_path()?);
        command.arg(program);
        Ok(command)
    }

    /// The dynamic loader of the unpacked C library; its name tells the architecture.
    pub(crate) fn loader(&self) -> Result<PathBuf> {
        for dir in ["usr/lib64", "lib64", "usr/lib", "lib"] {
            for path in entries(&self.root.join(dir))? {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if name.starts_with("ld-linux") && name.contains(".so") {
                    return Ok(path);
                }
            }
        }
        bail!("no dynamic loader below {}", self.root.display())
    }

    /// The directories that hold the unpacked libraries, with colons between.
    pub(crate) fn library_path(&self) -> Result<OsString> {
        let mut found = OsString::new();
        for dir in ["usr/lib", "lib"] {
            for path in entries(&self.root.join(dir))? {
                if path.to_str().is_some_and(|text| text.contains("-linux-gnu")) && path.is_dir() {
                    ensure!(
                        !path.to_string_lossy().contains([':', ';']),
                        "{}: the dynamic loader cannot take a library path with `:` or `;`",
                        path.display()
                    );
                    if !found.is_empty() {
                        found.push(":");
                    }
                    found.push(path);
                }
            }
        }
        ensure!(!found.is_empty(), "no libraries below {}", self.root.display());
        Ok(found)
    }
}

/// The sorted entries of a directory; none if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let Ok(listing) = fs::read_dir(dir) else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for entry in listing {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        paths.push(entry.path());
    }
    paths.sort_unstable();
    Ok(paths)
}
