// SPDX-License-Identifier: MIT OR Apache-2.0
//! What belongs to one machine and not to the project: the hosts its packages come from, and the place of the
//! work tree. Both are read from the machine at run time, for they cannot be named here.

use anyhow::Result;

use super::Finding;
use super::tree::Tree;
use crate::{debian, workspace};

/// A lock file names its registry by nature.
const LEFT_OUT: [&str; 1] = ["Cargo.lock"];

/// A path of a machine's own: with fewer parts than this it is as good as any machine's.
const MIN_PARTS: usize = 2;

/// The texts that must not occur, with what each is.
pub(crate) fn of_this_machine() -> Result<Vec<(String, &'static str)>> {
    let hosts = debian::package_hosts()?;
    let mut words: Vec<(String, &'static str)> = hosts
        .into_iter()
        .map(|host| (host, "a host that this machine takes packages from"))
        .collect();
    let root = workspace::root();
    if root.components().count() > MIN_PARTS {
        words.push((
            root.to_string_lossy().into_owned(),
            "the place of the work tree on this machine",
        ));
    }
    Ok(words)
}

/// Looks for the words in every text.
pub(crate) fn check(tree: &Tree, words: &[(String, &'static str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !LEFT_OUT.contains(path)) {
        for (index, line) in text.lines().enumerate() {
            for (word, what) in words.iter().filter(|(word, _)| line.contains(word.as_str())) {
                findings.push(Finding::at(path, index + 1, format!("`{word}`: {what}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_with_its_line_and_the_lock_file_is_left_alone() {
        let tree = Tree::of(&[
            ("a.md", "one\nsee mirror.example for it\n"),
            ("Cargo.lock", "mirror.example"),
        ]);
        let findings = check(&tree, &[("mirror.example".to_owned(), "a host")]);
        assert_eq!(findings, [Finding::at("a.md", 2, "`mirror.example`: a host")]);
    }
}
