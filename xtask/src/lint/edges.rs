// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which crate may depend on which, and the picture of it in ARCHITECTURE.md.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use super::tree::Tree;

/// The whole truth about edges: a crate, and those of ours that it may name in its manifest. `tests` looks at
/// everything from outside, and is free.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("store-path", &[]),
    ("nar", &["store-path"]),
    ("worker-protocol", &["store-path"]),
    ("metadata", &["store-path", "worker-protocol"]),
    ("mount-check", &[]),
    ("overlay", &["store-path", "nar", "metadata", "mount-check"]),
    ("daemon", &["overlay", "worker-protocol"]),
    // The program reaches the lower crates through the re-exports of `overlay`.
    ("cli", &["overlay", "daemon"]),
    ("xtask", &[]),
];

const FREE: &str = "tests";

const DOCUMENT: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- crate graph: begin (cargo xtask lint --bless) -->";
const END: &str = "<!-- crate graph: end -->";

/// A crate of ours and those of ours that its manifest names, sorted.
pub(crate) type Edges = Vec<(String, Vec<String>)>;

/// Reads the edges from what cargo knows; dependencies of tests and build scripts count too.
pub(crate) fn read(metadata: &Value) -> Result<Edges> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut edges = Edges::new();
    for package in packages {
        let mut targets = Vec::new();
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            if dependency["path"].is_string() {
                targets.push(short(
                    dependency["name"]
                        .as_str()
                        .context("a dependency without a name")?,
                ));
            }
        }
        targets.sort_unstable();
        targets.dedup();
        edges.push((
            short(package["name"].as_str().context("a package without a name")?),
            targets,
        ));
    }
    edges.sort_unstable();
    Ok(edges)
}

/// The folder's name: the package's without the prefix.
fn short(package: &str) -> String {
    package.strip_prefix("superpose-").unwrap_or(package).to_owned()
}

/// Finds the edges that the table does not have.
pub(crate) fn check(edges: &Edges) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (from, targets) in edges.iter().filter(|(from, _)| from != FREE) {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == from) else {
            findings.push(Finding::new(
                from,
                "this crate is not in the table of allowed edges",
            ));
            continue;
        };
        for to in targets.iter().filter(|to| !allowed.contains(&to.as_str())) {
            findings.push(Finding::new(from, format!("must not depend on {to}")));
        }
    }
    findings
}

/// Compares the picture in ARCHITECTURE.md with the edges.
pub(crate) fn check_graph(tree: &Tree, edges: &Edges) -> Vec<Finding> {
    let Some(text) = tree.text(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, "is missing")];
    };
    match with_graph(text, edges) {
        None => vec![Finding::new(
            DOCUMENT,
            format!("has no lines `{BEGIN}` and `{END}`"),
        )],
        Some(fresh) if fresh != text => {
            vec![Finding::new(
                DOCUMENT,
                "the crate graph is out of date: `cargo xtask lint --bless`",
            )]
        }
        Some(_) => Vec::new(),
    }
}

/// Writes the picture into ARCHITECTURE.md.
pub(crate) fn bless(root: &Path, edges: &Edges) -> Result<()> {
    let path = root.join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
    let fresh = with_graph(&text, edges);
    let fresh = fresh.with_context(|| format!("{DOCUMENT} has no lines `{BEGIN}` and `{END}`"))?;
    fs::write(&path, fresh).with_context(|| format!("writing {DOCUMENT}"))
}

/// The document with the picture between its marks made anew.
fn with_graph(text: &str, edges: &Edges) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}{END}{after}", graph(edges)))
}

fn graph(edges: &Edges) -> String {
    let mut text = String::from("```text\n");
    for (from, targets) in edges {
        let targets = if targets.is_empty() {
            "nothing of ours".to_owned()
        } else {
            targets.join(", ")
        };
        text.push_str(&format!("{from:<15} -> {targets}\n"));
    }
    text.push_str("```\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn edge(from: &str, targets: &[&str]) -> (String, Vec<String>) {
        (from.to_owned(), targets.iter().map(|&to| to.to_owned()).collect())
    }

    #[test]
    fn only_our_own_crates_are_read() {
        let metadata = json!({ "packages": [{
            "name": "superpose-nar",
            "dependencies": [
                { "name": "thiserror" },
                { "name": "superpose-store-path", "path": "/x", "kind": "dev" },
                { "name": "superpose-store-path", "path": "/x" },
            ],
        }] });
        assert_eq!(read(&metadata).unwrap(), [edge("nar", &["store-path"])]);
    }

    #[test]
    fn a_forbidden_edge_and_an_unknown_crate_are_found() {
        let edges = vec![
            edge("mount-check", &["store-path"]),
            edge("helpers", &[]),
            edge("tests", &["overlay"]),
            edge("nar", &["store-path"]),
        ];
        let findings = check(&edges);
        assert_eq!(findings.len(), 2);
        assert_eq!(
            findings[0],
            Finding::new("mount-check", "must not depend on store-path")
        );
    }

    #[test]
    fn a_stale_graph_is_found_and_a_fresh_one_is_not() {
        let edges = vec![edge("nar", &["store-path"])];
        let stale = format!("# A\n{BEGIN}\nold\n{END}\nrest\n");
        let fresh = with_graph(&stale, &edges).unwrap();
        assert!(
            fresh.contains("nar             -> store-path\n") && fresh.ends_with("\nrest\n"),
            "{fresh}"
        );
        let findings = |text: &str| check_graph(&Tree::of(&[(DOCUMENT, text)]), &edges).len();
        assert_eq!((findings(&stale), findings(&fresh), findings("# A\n")), (1, 0, 1));
        assert_eq!(check_graph(&Tree::default(), &edges).len(), 1);
    }
}
