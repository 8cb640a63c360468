// SPDX-License-Identifier: MIT OR Apache-2.0
//! Medians, ratios and verdicts, as a table for people.

use std::time::Duration;

use crate::measure::Sample;

/// All runs of one program in one case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<Sample>);

impl Samples {
    /// The median of the times.
    pub(crate) fn median(&self) -> Duration {
        self.median_of(|sample| sample.wall)
    }

    /// The median of the processor's times.
    pub(crate) fn processor(&self) -> Duration {
        self.median_of(|sample| sample.processor)
    }

    fn median_of(&self, time: impl Fn(&Sample) -> Duration) -> Duration {
        let mut times: Vec<Duration> = self.0.iter().map(time).collect();
        times.sort_unstable();
        match (
            times.get(times.len() / 2),
            times.get(times.len().wrapping_sub(1) / 2),
        ) {
            (Some(&upper), Some(&lower)) => (upper + lower) / 2,
            _ => Duration::ZERO,
        }
    }

    /// The most memory of all runs, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.0.iter().map(|sample| sample.memory).max().unwrap_or(0)
    }
}

/// What has to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Shown for comparison.
    None,
}

impl Target {
    pub(crate) fn is_met_by(self, value: f64) -> bool {
        match self {
            Target::AtLeast(limit) => value >= limit,
            Target::AtMost(limit) => value <= limit,
            Target::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Target::AtLeast(limit) => format!("≥ {limit}"),
            Target::AtMost(limit) => format!("≤ {limit}"),
            Target::None => String::new(),
        }
    }
}

/// A line of the report: what was measured, and whether it is good enough.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// One text for each column but the last two.
    pub(crate) cells: Vec<String>,
    pub(crate) value: f64,
    pub(crate) target: Target,
}

impl Row {
    pub(crate) fn is_met(&self) -> bool {
        self.target.is_met_by(self.value)
    }

    fn verdict(&self) -> &'static str {
        match self.target {
            Target::None => "",
            _ if self.is_met() => "met",
            _ => "MISSED",
        }
    }
}

/// Whether targets are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// They are shown, with the verdict.
    Judged,
    /// They are left out: they are for other sizes.
    LeftOut,
}

/// A table with the given columns; two more for the target and the verdict.
pub(crate) fn table(columns: &[&str], rows: &[Row], form: Form, judgement: Judgement) -> String {
    let mut lines = vec![
        columns
            .iter()
            .map(|&column| column.to_owned())
            .collect::<Vec<_>>(),
    ];
    lines.extend(rows.iter().map(|row| row.cells.clone()));
    if judgement == Judgement::Judged {
        for (line, row) in lines
            .iter_mut()
            .zip([None].into_iter().chain(rows.iter().map(Some)))
        {
            line.push(row.map_or_else(|| "target".to_owned(), |row| row.target.text()));
            line.push(row.map_or("", Row::verdict).to_owned());
        }
    }
    match form {
        Form::Markdown => markdown(&lines),
        Form::Plain => plain(&lines),
    }
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Markdown,
}

fn markdown(lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        text.push_str(&format!("| {} |\n", line.join(" | ")));
        if index == 0 {
            let rule: Vec<&str> = (0..line.len())
                .map(|column| if column == 0 { "---" } else { "--:" })
                .collect();
            text.push_str(&format!("|{}|\n", rule.join("|")));
        }
    }
    text
}

fn plain(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or(0);
            if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A time with three digits that count.
pub(crate) fn time_text(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.2} ms")
    } else if milliseconds < 100.0 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.2} s", milliseconds / 1000.0)
    }
}

/// Memory in MiB.
pub(crate) fn memory_text(bytes: u64) -> String {
    format!("{:.1} MiB", mebibytes(bytes))
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How many times longer one time is than another.
pub(crate) fn ratio(longer: Duration, shorter: Duration) -> f64 {
    if shorter.is_zero() {
        0.0
    } else {
        longer.as_secs_f64() / shorter.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(milliseconds: &[u64]) -> Samples {
        let sample = |&wall| Sample {
            wall: Duration::from_millis(wall),
            processor: Duration::ZERO,
            memory: wall,
        };
        Samples(milliseconds.iter().map(sample).collect())
    }

    #[test]
    fn the_median_is_the_middle() {
        let check =
            |times: &[u64], expected| assert_eq!(samples(times).median(), Duration::from_millis(expected));
        check(&[3], 3);
        check(&[9, 1, 2], 2);
        check(&[4, 1, 2, 100], 3);
        check(&[], 0);
    }

    #[test]
    fn a_missed_target_is_seen() {
        let row = |value, target| Row {
            cells: vec!["case".to_owned()],
            value,
            target,
        };
        let rows = [row(9.0, Target::AtLeast(8.0)), row(1.3, Target::AtMost(1.2))];
        assert_eq!(rows.each_ref().map(Row::is_met), [true, false]);
        let others = [
            row(1.0, Target::AtMost(1.0)),
            row(1.1, Target::AtMost(1.0)),
            row(0.0, Target::None),
        ];
        assert_eq!(others.each_ref().map(Row::verdict), ["met", "MISSED", ""]);
        assert_eq!(
            table(&["what"], &rows, Form::Markdown, Judgement::Judged),
            "| what | target |  |\n|---|--:|--:|\n| case | ≥ 8 | met |\n| case | ≤ 1.2 | MISSED |\n"
        );
        assert_eq!(
            table(&["what"], &rows, Form::Plain, Judgement::LeftOut),
            "what\ncase\ncase\n"
        );
    }

    #[test]
    fn times_have_three_digits() {
        let check = |micros, expected: &str| assert_eq!(time_text(Duration::from_micros(micros)), expected);
        check(2_346, "2.35 ms");
        check(27_520, "27.5 ms");
        check(274_520, "275 ms");
        check(3_456_000, "3.46 s");
    }
}
