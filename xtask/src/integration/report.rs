// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run came to, scenario by scenario and kernel by kernel.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::test::{Skip, Tally};

/// How much of a log is shown when something failed.
const LAST_LINES: usize = 40;

/// One scenario on one kernel.
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) kernel: String,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

/// The whole run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Prints the table; the last line is the sum.
    pub(crate) fn print(&self, required: bool) -> Tally {
        let mut total = Tally::default();
        println!();
        for row in &self.rows {
            let Row {
                scenario,
                kernel,
                tally,
                took,
            } = row;
            println!("{scenario:<16} {kernel:<24} {:>5} s  {tally}", took.as_secs());
            let mut tally = tally.clone();
            for Skip { name, .. } in &mut tally.skipped {
                *name = format!("{scenario} on {kernel}: {name}");
            }
            total.add(tally);
        }
        if required {
            for Skip { name, reason } in total.skipped.drain(..) {
                println!("FAILED {name}: {reason}, but SUPERPOSE_REQUIRE wants it");
                total.failed += 1;
            }
        }
        for Skip { name, reason } in &total.skipped {
            println!("skipped {name}: {reason}");
        }
        println!("{total}");
        total
    }
}

/// Prints the end of every log whose name begins so.
pub(crate) fn print_logs(dir: &Path, beginning: &str, kernel: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort_unstable();
    for log in logs {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(beginning) && name.ends_with(&format!("-{kernel}.log")) {
            let text = fs::read(&log).unwrap_or_default();
            println!("the end of {}:", log.display());
            for line in last_lines(&String::from_utf8_lossy(&text)) {
                println!("    {line}");
            }
        }
    }
}

fn last_lines(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines[from..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(passed: u64, skipped: &[&str]) -> Row {
        let skipped = skipped.iter().map(|name| Skip {
            name: (*name).to_owned(),
            reason: "because".to_owned(),
        });
        Row {
            scenario: "one",
            kernel: "6.1".to_owned(),
            tally: Tally {
                passed,
                failed: 0,
                skipped: skipped.collect(),
            },
            took: Duration::ZERO,
        }
    }

    #[test]
    fn rows_are_added_and_a_required_skip_is_a_failure() {
        let report = Report {
            rows: vec![row(2, &["a"]), row(1, &[])],
        };
        let total = report.print(false);
        assert_eq!((total.passed, total.failed), (3, 0));
        assert_eq!(total.skipped[0].name, "one on 6.1: a");
        let total = report.print(true);
        assert_eq!((total.failed, total.skipped.len()), (1, 0));
    }

    #[test]
    fn a_log_is_shown_from_its_end() {
        let text: String = (0..100).map(|n| format!("{n}\r\n")).collect();
        let lines = last_lines(&text);
        assert_eq!((lines.len(), lines[LAST_LINES - 1]), (LAST_LINES, "99"));
    }
}
