// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many processes of superpose and of stock Nix at once on one overlay store.

use anyhow::Result;
use superpose_tests::{Company, Need, StockNix, Suite, stock_trials, stress};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(suite, [Need::Root], many_processes_of_both_at_once);
}

fn many_processes_of_both_at_once(stock: StockNix) -> Result<()> {
    stress(Company::Stock(stock))
}
