// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program starts at all.

use anyhow::{Result, ensure};
use superpose_tests::{Suite, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(suite, [], help_is_data_and_a_wrong_option_is_not);
}

fn help_is_data_and_a_wrong_option_is_not() -> Result<()> {
    let help = superpose()?.arg("--help").succeed()?;
    ensure!(help.text()?.contains("Usage"), "no usage in {help}");
    ensure!(help.stderr.is_empty(), "help on standard error: {help}");

    let wrong = superpose()?.arg("--no-such-option").exit_with(2)?;
    ensure!(wrong.stdout.is_empty(), "a complaint on standard output: {wrong}");
    ensure!(
        wrong.errors().contains("--no-such-option"),
        "the option is not named: {wrong}"
    );
    Ok(())
}
