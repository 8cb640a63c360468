// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lower store on this machine, made by our own program and grown later, for guests that share it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use xshell::Shell;

use super::room::Room;

/// Objects that it has from the beginning, and that it gets besides those that guests have added.
const FIRST: u32 = 12;
const LATER: u32 = 5;

/// What guests add at first, and the lower store has later. The name says what it is (the guests' side reads it so, too).
pub(crate) const COMMON: [&str; 6] = ["tree-a", "file-a", "tree-b", "file-b", "tree-c", "file-c"];

/// A store, and where what is added to it is put together.
pub(crate) struct LowerStore {
    pub(crate) dir: PathBuf,
    sources: PathBuf,
    program: PathBuf,
    seed: String,
}

impl LowerStore {
    /// Makes a store below a directory: files and trees, each of which refers to some that came before.
    pub(crate) fn new(room: &Room, below: &Path, seed: &str) -> Result<Self> {
        let store = Self {
            dir: below.join("lower"),
            sources: below.join("sources"),
            program: room.programs.program(),
            seed: seed.to_owned(),
        };
        store.remove()?;
        fs::create_dir_all(&store.sources).with_context(|| store.sources.display().to_string())?;
        store.add_some("first", FIRST)?;
        Ok(store)
    }

    /// Has it grow, by what guests have above as well, and more.
    pub(crate) fn grow(&self) -> Result<()> {
        for name in COMMON {
            self.add(name, &[])?;
        }
        self.add_some("later", LATER)
    }

    fn add_some(&self, word: &str, count: u32) -> Result<()> {
        let mut paths: Vec<String> = Vec::new();
        for number in 0..count {
            let kind = if number % 2 == 0 { "tree" } else { "file" };
            let references: Vec<&str> = paths.iter().rev().take(2).map(String::as_str).collect();
            paths.push(self.add(&format!("{kind}-{word}-{number}"), &references)?);
        }
        Ok(())
    }

    fn add(&self, name: &str, references: &[&str]) -> Result<String> {
        let source = self.sources.join(name);
        let text = format!("{name} of {}\n", self.seed);
        let written = if name.starts_with("tree") {
            fs::create_dir_all(&source).and_then(|()| fs::write(source.join("text"), text))
        } else {
            fs::write(&source, text)
        };
        written.with_context(|| source.display().to_string())?;
        let mut command = self.superpose();
        command.arg("add");
        for reference in references {
            command.args(["--reference", reference]);
        }
        let output = command.arg(&source).stdin(Stdio::null()).output();
        let output = output.with_context(|| self.program.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "adding {name}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// A run of our program on the store.
    pub(crate) fn superpose(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--store").arg(&self.dir);
        command
    }

    /// Everything that is in it, but for the marks that readers of a database make.
    pub(crate) fn contents(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.dir.clone()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                let kind = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
                if kind.is_dir() {
                    pending.push(path.clone());
                    found.insert(path, Vec::new());
                } else if kind.is_file() && path.extension().is_none_or(|end| end != "sqlite-shm") {
                    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                    found.insert(path, bytes);
                }
            }
        }
        Ok(found)
    }

    /// Removes it. Its directories are not writable, which means something to whoever is not root.
    #[allow(
        clippy::disallowed_methods,
        reason = "a store of ours alone, in the directory of a run; no other user can put a link there"
    )]
    pub(crate) fn remove(&self) -> Result<()> {
        let mut pending = vec![self.dir.clone()];
        while let Some(dir) = pending.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
                .with_context(|| dir.display().to_string())?;
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        for dir in [&self.dir, &self.sources] {
            Shell::new()?.remove_path(dir)?;
        }
        Ok(())
    }
}
