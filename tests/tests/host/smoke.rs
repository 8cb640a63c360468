// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program starts at all.

use anyhow::{Context, Result, ensure};
use superpose_tests::{Suite, program_path, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        help_is_data_and_a_wrong_option_is_not,
        nothing_that_only_tests_may_ask_for_is_built_in
    );
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

/// Crashes and faults on demand are features of builds for tests, and leave no trace in others.
fn nothing_that_only_tests_may_ask_for_is_built_in() -> Result<()> {
    let path = program_path()?;
    let program = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let speaks_of = |name: &str| program.windows(name.len()).any(|part| part == name.as_bytes());
    ensure!(
        speaks_of("SUPERPOSE_STORE"),
        "no variable is found in the program"
    );
    for name in ["SUPERPOSE_CRASH_AT", "SUPERPOSE_FAULT"] {
        ensure!(!speaks_of(name), "{} speaks of {name}", path.display());
    }
    Ok(())
}
