// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every source file is part of a crate: one that no `mod` line names is never compiled, and its tests never
//! run.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use super::tree::Tree;

/// The files that cargo starts to compile from, relative to the root of the work tree.
pub(crate) fn crate_roots(metadata: &Value, root: &Path) -> Result<Vec<String>> {
    let mut roots = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        for target in package["targets"].as_array().context("no targets")? {
            let source = target["src_path"].as_str().context("a target without a source")?;
            let relative = Path::new(source).strip_prefix(root).unwrap_or(Path::new(source));
            roots.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(roots)
}

/// Finds the files that nothing names.
pub(crate) fn check(tree: &Tree, roots: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, _) in tree.rust() {
        if !roots.iter().any(|root| root == path) && !is_declared(tree, roots, path) {
            findings.push(Finding::new(
                path,
                "no `mod` line names this file: it is never compiled",
            ));
        }
    }
    findings
}

fn is_declared(tree: &Tree, roots: &[String], path: &str) -> bool {
    let stem = path
        .strip_suffix("/mod.rs")
        .or_else(|| path.strip_suffix(".rs"))
        .unwrap_or(path);
    let Some((dir, name)) = stem.rsplit_once('/') else {
        return false;
    };
    let line = format!("mod {name};");
    // A module that several test programs share says where it lies.
    let by_path = format!(
        "/{}\"]",
        path.rsplit_once("tests/").map_or(path, |(_, rest)| rest)
    );
    tree.rust().any(|(parent, text)| {
        if text
            .lines()
            .any(|candidate| candidate.trim().starts_with("#[path") && candidate.trim().ends_with(&by_path))
        {
            return true;
        }
        let is_parent = parent.rsplit_once('/').is_some_and(|(parent_dir, file)| {
            parent_dir == dir && (file == "mod.rs" || roots.iter().any(|root| root == parent))
        });
        is_parent && text.lines().any(|candidate| declares(candidate, &line))
    })
}

/// Whether a line is the given declaration, with any visibility and attributes before it.
fn declares(candidate: &str, line: &str) -> bool {
    let before = candidate.trim().strip_suffix(line);
    before.is_some_and(|before| before.is_empty() || before.ends_with([' ', ']']) && !before.contains("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_that_nothing_names_is_found() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;\n// mod lost;\n"),
            ("a/src/one.rs", ""),
            ("a/src/two/mod.rs", "#[cfg(test)] mod three;\n"),
            ("a/src/two/three.rs", ""),
            ("a/src/lost.rs", ""),
            ("a/src/two/one.rs", ""),
            (
                "a/tests/it/main.rs",
                "#[path = \"../shared/mod.rs\"]\nmod shared;\n",
            ),
            ("a/tests/shared/mod.rs", ""),
        ]);
        let places: Vec<_> = check(
            &tree,
            &["a/src/lib.rs".to_owned(), "a/tests/it/main.rs".to_owned()],
        )
        .into_iter()
        .map(|finding| finding.place)
        .collect();
        assert_eq!(places, ["a/src/lost.rs", "a/src/two/one.rs"]);
    }
}
