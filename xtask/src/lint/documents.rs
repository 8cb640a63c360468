// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents: each is there, and every file and test that one names exists. Also the reading of
//! Markdown that the check of commands shares.

use super::Finding;
use super::tree::Tree;

/// The documents that a reader relies on.
pub(crate) const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "DEVIATIONS.md",
    "SECURITY.md",
    "CHANGELOG.md",
];

/// Where each deviation names the test that pins it.
const DEVIATIONS: &str = "DEVIATIONS.md";

/// Checks all documents.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in DOCUMENTS {
        match tree.text(document) {
            None => findings.push(Finding::new(document, "is missing")),
            Some(text) => findings.extend(check_paths(tree, document, text)),
        }
    }
    if let Some(text) = tree.text(DEVIATIONS) {
        findings.extend(check_tests(tree, text));
    }
    findings
}

fn check_paths(tree: &Tree, document: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut missing = |line: usize, path: &str| {
        if !tree.has(path) {
            findings.push(Finding::at(document, line, format!("`{path}` does not exist")));
        }
    };
    for (line, code) in code(text) {
        for word in code.split_whitespace() {
            if let Some(path) = project_path(tree, word) {
                missing(line, path);
            }
        }
    }
    for (line, target) in links(text) {
        let is_elsewhere = target.contains("://") || target.starts_with(['#', '/']);
        let path = target.split('#').next().unwrap_or_default();
        if !is_elsewhere && !path.is_empty() {
            missing(line, path);
        }
    }
    findings
}

/// A word that can only mean a file of the project: its first part is one of the project's folders (or `src`,
/// which is none: a document names whole paths), or it is a manifest or document in the root.
fn project_path<'a>(tree: &Tree, word: &'a str) -> Option<&'a str> {
    let word = word.trim_matches(|c: char| matches!(c, ',' | ';' | ':' | '(' | ')' | '"' | '\''));
    let word = word.strip_prefix("./").unwrap_or(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if word.is_empty() || !word.chars().all(is_plain) || word.contains("...") {
        return None;
    }
    match word.split_once('/') {
        Some((first, _)) => (!first.is_empty() && (first == "src" || tree.has(first))).then_some(word),
        None => {
            let (stem, extension) = word.rsplit_once('.')?;
            (!stem.is_empty() && matches!(extension, "md" | "toml")).then_some(word)
        }
    }
}

/// Every test that DEVIATIONS.md names (`tier::module::function`) is a function of the tree, and every row of
/// a table there names one.
fn check_tests(tree: &Tree, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut named = 0;
    for (line, code) in code(text) {
        let Some(function) = test_name(code) else { continue };
        named += 1;
        if !tree.rust().any(|(_, source)| defines(source, function)) {
            findings.push(Finding::at(
                DEVIATIONS,
                line,
                format!("there is no test `{code}`"),
            ));
        }
    }
    if named == 0 {
        findings.push(Finding::new(
            DEVIATIONS,
            "names no test (`tier::module::function`)",
        ));
    }
    let rows: Vec<(usize, &str)> = numbered(text).filter(|(_, line)| line.starts_with('|')).collect();
    for (line, row) in rows {
        let is_head = text
            .lines()
            .nth(line)
            .is_some_and(|next| next.starts_with("|-") || next.starts_with("| -"));
        let is_rule = row.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
        let names_test = code(row).iter().any(|(_, code)| test_name(code).is_some());
        if !is_head && !is_rule && !names_test {
            findings.push(Finding::at(
                DEVIATIONS,
                line,
                "this deviation names no test that pins it",
            ));
        }
    }
    findings
}

/// The function of a test's full name.
fn test_name(code: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let (_, function) = code.rsplit_once("::")?;
    let is_function = function.starts_with(|c: char| c.is_ascii_lowercase());
    (code.chars().all(is_name) && is_function).then_some(function)
}

fn defines(source: &str, function: &str) -> bool {
    source.match_indices("fn ").any(|(at, _)| {
        source[at + 3..]
            .strip_prefix(function)
            .is_some_and(|rest| rest.starts_with(['(', '<']))
    })
}

/// What a document sets as code, with line numbers: each span, and each line of each fenced block.
pub(crate) fn code(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_block = false;
    for (number, line) in numbered(text) {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            found.push((number, line.trim()));
        } else {
            // Between an odd and an even backtick; a span may not go on in the next line.
            found.extend(
                line.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(|span| (number, span.trim())),
            );
        }
    }
    found
}

/// The targets of the links of a document, with line numbers.
fn links(text: &str) -> Vec<(usize, &str)> {
    let targets = |(number, line)| {
        let parts = str::split(line, "](").skip(1);
        parts
            .filter_map(move |part: &str| Some((number, part.split_once(')')?.0)))
            .collect::<Vec<_>>()
    };
    numbered(text).flat_map(targets).collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<Finding> {
        let tree = Tree::of(&[
            ("crates/nar/src/lib.rs", ""),
            ("README.md", ""),
            ("Cargo.toml", ""),
        ]);
        check_paths(&tree, "README.md", text)
    }

    #[test]
    fn existing_and_foreign_paths_are_left_alone() {
        let text = "`crates/nar`, `crates/nar/src/lib.rs`, [here](crates/nar/), [there](https://example.org/x),\n\
            `Cargo.toml` `store-a/nix/store` `/nix/store` `crates/*/src` `nix.conf` [up](#heading)\n";
        assert_eq!(paths(text), []);
    }

    #[test]
    fn paths_that_do_not_exist_are_found_with_their_line() {
        let text =
            "fine\n`crates/gone`\n```sh\ncat crates/nar/old.rs\n```\n[x](gone.md) `old.toml` `src/lib.rs`\n";
        let places: Vec<_> = paths(text).into_iter().map(|finding| finding.place).collect();
        assert_eq!(
            places,
            [
                "README.md:2",
                "README.md:4",
                "README.md:6",
                "README.md:6",
                "README.md:6"
            ]
        );
    }

    #[test]
    fn missing_documents_are_found() {
        assert_eq!(check(&Tree::default()).len(), DOCUMENTS.len());
    }

    #[test]
    fn deviations_name_tests_that_exist() {
        let tree = Tree::of(&[("a.rs", "fn pinned() {}\nfn pinned_elsewhere<T>() {}\n")]);
        let good =
            "| what | test |\n|---|---|\n| a | `root::delete::pinned` |\n| b | `host::pinned_elsewhere` |\n";
        assert_eq!(check_tests(&tree, good), []);
        let stale = "| what | test |\n|---|---|\n| a | `root::delete::pinned_e` |\n| b | none |\n";
        let places: Vec<_> = check_tests(&tree, stale)
            .into_iter()
            .map(|finding| finding.place)
            .collect();
        assert_eq!(places, ["DEVIATIONS.md:3", "DEVIATIONS.md:4"]);
        assert_eq!(check_tests(&tree, "no test, only `Type::Name`").len(), 1);
    }
}
