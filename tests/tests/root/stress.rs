// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many processes of superpose at once on one overlay store.

use anyhow::Result;
use superpose_tests::{Company, Need, Suite, stress, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(suite, [Need::Root], many_processes_at_once);
}

fn many_processes_at_once() -> Result<()> {
    stress(Company::Alone)
}
