// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of the project as the checks see them: what git tracks or would, read once.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Every file with its text; files that are not text have none.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// One file of the project.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the root of the work tree.
    pub(crate) path: String,
    pub(crate) text: Option<String>,
}

impl Tree {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let output = git.output().context("starting git")?;
        ensure!(
            output.status.success(),
            "git ls-files: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let mut files = Vec::new();
        for name in output
            .stdout
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            let path = String::from_utf8(name.to_vec()).context("a file name of the project is not UTF-8")?;
            // A file that is tracked but deleted is no longer part of the project.
            if let Ok(bytes) = fs::read(root.join(&path)) {
                files.push(File {
                    path,
                    text: String::from_utf8(bytes).ok(),
                });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// A tree for the tests of the checks.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: Some((*text).to_owned()),
        };
        Self {
            files: files.iter().map(file).collect(),
        }
    }

    /// The text of a file, if it is there.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text.as_deref()
    }

    /// Whether a file or a directory of this name is part of the project.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|file| {
            file.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The Rust sources, with their texts.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// Everything that is text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_found_by_whole_names() {
        let tree = Tree::of(&[("crates/nar/src/lib.rs", "")]);
        assert!(tree.has("crates/nar/src/lib.rs") && tree.has("crates/nar/") && tree.has("crates"));
        assert!(!tree.has("crates/na") && !tree.has("crates/nar/src/lib"));
    }
}
