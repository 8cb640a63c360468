// SPDX-License-Identifier: MIT OR Apache-2.0
//! The form of each source file: licence line, module documentation, length, and nothing put off.

use super::Finding;
use super::tree::Tree;

const LICENCE: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0";

/// A file that is longer does more than one job.
const MAX_LINES: usize = 600;

/// Written in two halves, or this file would be the first finding.
const PUT_OFF: [(&str, &str); 6] = [
    (concat!("TO", "DO"), "do it, or file an issue"),
    (concat!("FIX", "ME"), "mend it, or file an issue"),
    (concat!("XX", "X"), "say what is meant"),
    (
        concat!("#[ig", "nore"),
        "a test that does not run proves nothing; give it a need instead",
    ),
    (
        concat!("should", "_panic"),
        "check the error, not that there is a panic",
    ),
    (
        concat!("```ig", "nore"),
        "an example that is not compiled goes stale",
    ),
];

/// Checks every Rust source.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .flat_map(|(path, text)| check_file(path, text))
        .collect()
}

fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut lines = text.lines();
    if lines.next() != Some(LICENCE) {
        findings.push(Finding::at(path, 1, format!("expected `{LICENCE}`")));
    }
    if !lines.next().is_some_and(|line| line.starts_with("//!")) {
        findings.push(Finding::at(
            path,
            2,
            "expected the module's documentation (`//!`)",
        ));
    }
    let count = text.lines().count();
    if count > MAX_LINES {
        findings.push(Finding::new(
            path,
            format!("{count} lines, at most {MAX_LINES}: split it by job"),
        ));
    }
    for (index, line) in text.lines().enumerate() {
        for (mark, advice) in PUT_OFF {
            if has_word(line, mark) {
                findings.push(Finding::at(path, index + 1, format!("`{mark}`: {advice}")));
            }
        }
    }
    findings
}

/// Whether `word` occurs with no letter, digit or underscore right beside it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&Tree::of(&[("a.rs", text)])).len()
    }

    #[test]
    fn a_good_file_is_clean() {
        assert_eq!(
            findings(&format!("{LICENCE}\n//! Does one thing.\nfn f() {{}}\n")),
            0
        );
    }

    #[test]
    fn each_missing_line_is_found() {
        assert_eq!(findings(""), 2);
        assert_eq!(findings(&format!("{LICENCE}\nfn f() {{}}\n")), 1);
        assert_eq!(findings("//! Documentation.\n//! More.\n"), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        let text = format!("{LICENCE}\n//! Does much.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(findings(&text), 1);
    }

    #[test]
    fn every_mark_is_found_as_a_word_only() {
        for (mark, _) in PUT_OFF {
            assert_eq!(
                findings(&format!("{LICENCE}\n//! x\n// {mark}: later\n")),
                1,
                "{mark}"
            );
        }
        let (word, _) = PUT_OFF[0];
        assert_eq!(findings(&format!("{LICENCE}\n//! x\nlet a{word}b = 1;\n")), 0);
    }
}
