// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a scenario is, and the list of them.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::accelerator::Accelerator;
use super::kernel::{Kernel, Release};
use super::room::Room;
use super::scenarios::{
    odd_layers, power_cut_kill, power_cut_replay, shared_directory, shared_image, stock_nix, suites,
    worked_example,
};
use crate::test::Tally;

/// Something to be tried on real kernels.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// One line for `--list`.
    pub(crate) about: &'static str,
    pub(crate) kernels: &'static [Release],
    /// Whether it is part of a quick run, which has one kernel.
    pub(crate) is_quick: bool,
    pub(crate) run: fn(&Stage<'_>) -> Result<Tally>,
}

/// Where a scenario runs.
pub(crate) struct Stage<'a> {
    pub(crate) room: &'a Room,
    pub(crate) kernel: &'a Kernel,
    /// Of the scenario.
    pub(crate) name: &'static str,
    pub(crate) is_quick: bool,
    /// Of what is left to chance; another each time if none is given.
    pub(crate) seed: Option<u64>,
    /// What was found to be wrong, in short.
    findings: Mutex<Vec<String>>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        room: &'a Room,
        kernel: &'a Kernel,
        name: &'static str,
        is_quick: bool,
        seed: Option<u64>,
    ) -> Self {
        Self {
            room,
            kernel,
            name,
            is_quick,
            seed,
            findings: Mutex::default(),
        }
    }

    /// Whether guests are emulated, and so slow that the kernels have to share what says little about one.
    pub(crate) fn is_emulated(&self) -> bool {
        self.room.accelerator == Accelerator::Tcg
    }

    /// Remembers what is wrong.
    pub(crate) fn find(&self, finding: String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(finding);
    }

    /// What was found to be wrong first.
    pub(crate) fn first_finding(&self) -> Option<String> {
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.first().cloned()
    }
}

/// All of them, in the order in which they start: first what is long, so that at the end no processor waits for the other for
/// long.
pub(crate) const SCENARIOS: [Scenario; 8] = [
    power_cut_replay::SCENARIO,
    power_cut_kill::SCENARIO,
    shared_directory::SCENARIO,
    shared_image::SCENARIO,
    odd_layers::SCENARIO,
    suites::SCENARIO,
    stock_nix::SCENARIO,
    worked_example::SCENARIO,
];

/// The kernel of a quick run.
pub(crate) const QUICK_KERNEL: Release = Release::Trixie;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_none_begins_another() {
        for scenario in &SCENARIOS {
            assert!(scenario.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            assert!(!scenario.kernels.is_empty(), "{}", scenario.name);
            // What a run left is removed by this beginning.
            let begun = SCENARIOS
                .iter()
                .filter(|other| other.name.starts_with(scenario.name));
            assert_eq!(begun.count(), 1, "{}", scenario.name);
            assert!(!scenario.is_quick || scenario.kernels.contains(&QUICK_KERNEL));
        }
    }
}
