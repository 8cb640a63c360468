// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run of tests came to, read from the reports of the three runners in use.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

/// Counts, and the names of what was skipped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: Vec<Skip>,
}

/// Something that did not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Tally {
    /// How many tests it speaks of, run or skipped.
    pub(crate) fn count(&self) -> u64 {
        self.passed + self.failed + self.skipped.len() as u64
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }

    /// Reads the attributes of the root element of a JUnit report, as nextest writes it.
    pub(crate) fn from_junit(text: &str) -> Result<Self> {
        let (_, rest) = text
            .split_once("<testsuites ")
            .context("a JUnit report without <testsuites>")?;
        let (element, _) = rest.split_once('>').context("a JUnit report that was cut off")?;
        let attribute = |name: &str| -> Result<u64> {
            let (_, value) = element
                .split_once(&format!(" {name}=\""))
                .context(name.to_owned())?;
            let (digits, _) = value.split_once('"').context(name.to_owned())?;
            digits
                .parse()
                .with_context(|| format!("{name} of a JUnit report"))
        };
        let failed = attribute("failures")? + attribute("errors")?;
        Ok(Self {
            passed: attribute("tests")?.saturating_sub(failed),
            failed,
            skipped: Vec::new(),
        })
    }

    /// Reads what nextest leaves out because a suite says that it cannot run here.
    pub(crate) fn skips_from_nextest_list(text: &str) -> Result<Vec<Skip>> {
        let list: Value = serde_json::from_str(text).context("the list of nextest")?;
        let mut skips = Vec::new();
        for suite in list["rust-suites"]
            .as_object()
            .context("`rust-suites` in the list of nextest")?
            .values()
        {
            for (name, test) in suite["testcases"].as_object().context("`testcases` of a suite")? {
                if test["ignored"] == true && test["filter-match"]["status"] == "matches" {
                    skips.push(Skip::from_name(name));
                }
            }
        }
        Ok(skips)
    }

    /// Adds up the `test result:` lines of the standard runner, and collects what it calls ignored.
    pub(crate) fn from_libtest(text: &str) -> Result<Self> {
        let mut tally = Self::default();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("test ")) {
            if let Some((name, "ignored")) = line
                .split_once(" ... ")
                .map(|(name, end)| (name, first_word(end)))
            {
                tally.skipped.push(Skip::from_name(name.trim()));
            }
        }
        for line in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("test result: "))
        {
            let counts = line.split_once(". ").context("a test result without counts")?.1;
            for part in counts.split("; ") {
                let Some((number, what)) = part.split_once(' ') else {
                    continue;
                };
                match what {
                    "passed" => tally.passed += number.parse::<u64>()?,
                    "failed" => tally.failed += number.parse::<u64>()?,
                    _ => {}
                }
            }
        }
        Ok(tally)
    }

    /// Reads the report of one of our own suites.
    pub(crate) fn from_suite(text: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(text).context("the report of a suite")?;
        let count = |name: &str| {
            report[name]
                .as_u64()
                .with_context(|| format!("`{name}` in a suite's report"))
        };
        let mut skipped = Vec::new();
        for skip in report["skipped"]
            .as_array()
            .context("`skipped` in a suite's report")?
        {
            let text = |name: &str| skip[name].as_str().unwrap_or_default().to_owned();
            skipped.push(Skip {
                name: text("name"),
                reason: text("reason"),
            });
        }
        Ok(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped,
        })
    }
}

impl Skip {
    /// A suite inside a crate has only the test's name to say why: `name [ignored: reason]`.
    fn from_name(name: &str) -> Self {
        let parts = name
            .strip_suffix(']')
            .and_then(|name| name.split_once(" [ignored: "));
        let (name, reason) = parts.unwrap_or((name, "its suite says that it cannot run here"));
        Self {
            name: name.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn first_word(text: &str) -> &str {
    text.split([' ', ',']).next().unwrap_or_default()
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skipped.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(passed: u64, failed: u64) -> Tally {
        Tally {
            passed,
            failed,
            skipped: Vec::new(),
        }
    }

    #[test]
    fn junit_reports() {
        let text = "<?xml version=\"1.0\"?>\n<testsuites name=\"nextest-run\" tests=\"9\" failures=\"1\" errors=\"2\" \
            uuid=\"x\">\n<testsuite name=\"a\" tests=\"4\" failures=\"0\" errors=\"0\">";
        assert_eq!(Tally::from_junit(text).unwrap(), counted(6, 3));
        assert!(
            Tally::from_junit("<testsuites name=\"x\" tests=\"many\" failures=\"0\" errors=\"0\">").is_err()
        );
        assert!(Tally::from_junit("").is_err());
    }

    #[test]
    fn libtest_results_are_added_up() {
        let text = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out\n\
            noise\ntest result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(Tally::from_libtest(text).unwrap(), counted(3, 3));
        assert!(Tally::from_libtest("test result: nonsense").is_err());
    }

    #[test]
    fn what_a_suite_inside_a_crate_leaves_out_is_collected() {
        let expected = [Skip {
            name: "mounts".to_owned(),
            reason: "no namespace".to_owned(),
        }];
        let list = r#"{"rust-suites":{"a::b":{"testcases":{
            "mounts [ignored: no namespace]":{"ignored":true,"filter-match":{"status":"matches"}},
            "other":{"ignored":true,"filter-match":{"status":"mismatch","reason":"string"}},
            "ran":{"ignored":false,"filter-match":{"status":"matches"}}}}}}"#;
        assert_eq!(Tally::skips_from_nextest_list(list).unwrap(), expected);
        let output = "test ran ... ok\ntest mounts [ignored: no namespace] ... ignored\n\
            test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let tally = Tally::from_libtest(output).unwrap();
        assert_eq!((tally.passed, tally.skipped.as_slice()), (1, expected.as_slice()));
    }

    #[test]
    fn suite_reports_keep_names_and_reasons() {
        let text = r#"{"passed":1,"failed":0,"skipped":[{"name":"root::a","reason":"needs root"}]}"#;
        let tally = Tally::from_suite(text).unwrap();
        assert_eq!(
            tally.skipped,
            [Skip {
                name: "root::a".to_owned(),
                reason: "needs root".to_owned()
            }]
        );
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
        assert!(Tally::from_suite(r#"{"passed":1}"#).is_err());
    }
}
