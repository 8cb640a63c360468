// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a guest ended, from what its console said, from the status of the emulator, and from whether it ended at all.

use std::fmt;

/// How the emulator ends when the guest writes N to its exit device: with 2N+1.
const PASSED: i32 = 2 * 0x10 + 1;
const FAILED: i32 = 2 * 0x11 + 1;
const SKIPPED: i32 = 2 * 0x12 + 1;

/// What the kernel says when it is at fault itself.
const OOPSES: [&str; 6] = [
    "Oops: ",
    "BUG: ",
    "general protection fault",
    "kernel BUG at",
    "unable to handle",
    "double fault",
];

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
    /// The guest's kernel itself was at fault: no result of a test.
    Oops(String),
    /// The kernel gave up for another reason, such as the end of its first process.
    Panic(String),
    /// Still running after its time.
    Hang(String),
    /// Ended without a word, or with one that does not fit the status of the emulator.
    Silent(String),
}

impl Verdict {
    /// Judges. The marker's line alone counts together with its status: an emulator that ends well says nothing, since it
    /// does so after a panic, too.
    pub(crate) fn of(console: &str, nonce: &str, status: Option<i32>, is_late: bool) -> Self {
        let lines = || console.lines().map(|line| line.trim_end_matches('\r'));
        let marker = format!("superpose-guest {nonce}: ");
        let marked = lines().rev().find_map(|line| line.strip_prefix(&marker));
        if let Some(ending) = marked.and_then(|text| ending(text, status)) {
            return ending;
        }
        let find = |mark: &str| lines().find(|line| line.contains(mark)).map(str::to_owned);
        if let Some(line) = OOPSES.iter().find_map(|mark| find(mark)) {
            return Self::Oops(line);
        }
        if let Some(line) = find("Kernel panic") {
            return Self::Panic(line);
        }
        let last = lines().rev().find(|line| !line.trim().is_empty());
        let last = format!("the last line is '{}'", last.unwrap_or_default());
        if is_late {
            return Self::Hang(last);
        }
        let status = status.map_or_else(
            || "by a signal".to_owned(),
            |status| format!("with status {status}"),
        );
        Self::Silent(format!("the emulator ended {status}; {last}"))
    }
}

fn ending(text: &str, status: Option<i32>) -> Option<Verdict> {
    let (word, why) = text.split_once(": ").unwrap_or((text, ""));
    match (word, status) {
        ("passed", Some(PASSED)) => Some(Verdict::Passed),
        ("failed", Some(FAILED)) => Some(Verdict::Failed(why.to_owned())),
        ("skipped", Some(SKIPPED)) => Some(Verdict::Skipped(why.to_owned())),
        _ => None,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => f.write_str(why),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Oops(line) => write!(f, "the guest's kernel is at fault: {line}"),
            Self::Panic(line) => write!(f, "the guest's kernel gave up: {line}"),
            Self::Hang(last) => write!(f, "the guest was still running after its time; {last}"),
            Self::Silent(how) => write!(f, "the guest ended without a word; {how}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(console: &str, status: Option<i32>, expected: &Verdict) {
        assert_eq!(&Verdict::of(console, "n1", status, false), expected, "{console}");
    }

    #[test]
    fn the_marker_counts_with_its_own_status_only() {
        check("x\r\nsuperpose-guest n1: passed\r\n", Some(33), &Verdict::Passed);
        let failed = Verdict::Failed("a: b".to_owned());
        check("superpose-guest n1: failed: a: b\r\n", Some(35), &failed);
        let skipped = Verdict::Skipped("old".to_owned());
        check("superpose-guest n1: skipped: old", Some(37), &skipped);
        for status in [Some(0), Some(1), Some(35), None] {
            let verdict = Verdict::of("superpose-guest n1: passed\r\n", "n1", status, false);
            assert!(matches!(verdict, Verdict::Silent(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_marker_of_another_machine_is_no_marker() {
        for console in [
            "superpose-guest n2: passed\n",
            "superpose-guest : passed\n",
            "log superpose-guest n1: passed\n",
            "",
        ] {
            let verdict = Verdict::of(console, "n1", Some(33), false);
            assert!(matches!(verdict, Verdict::Silent(_)), "{console}: {verdict:?}");
        }
    }

    #[test]
    fn faults_of_the_kernel_are_told_from_its_end() {
        let oops = "[    3.1] BUG: unable to handle page fault for address: 0000000000001000\r\n\
            [    3.2] Oops: 0000 [#1] PREEMPT SMP NOPTI\r\n[    3.9] Kernel panic - not syncing: Fatal exception\r\n";
        let verdict = Verdict::of(oops, "n1", Some(0), false);
        assert!(
            matches!(&verdict, Verdict::Oops(line) if line.contains("Oops: 0000")),
            "{verdict:?}"
        );
        let killed = "[    4.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n";
        let verdict = Verdict::of(killed, "n1", Some(0), false);
        assert!(matches!(&verdict, Verdict::Panic(_)), "{verdict:?}");
        // What came before the end does not matter: it ended well.
        let passed = format!("{oops}superpose-guest n1: passed\r\n");
        check(&passed, Some(33), &Verdict::Passed);
    }

    #[test]
    fn late_is_a_hang_with_its_last_line() {
        let verdict = Verdict::of("one\r\ntwo\r\n\r\n", "n1", None, true);
        assert_eq!(verdict, Verdict::Hang("the last line is 'two'".to_owned()));
    }
}
