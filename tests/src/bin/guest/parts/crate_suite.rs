// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a suite inside a crate, or some of its trials; what it prints goes out as the result, for it leaves no report.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::order::Order;
use crate::parts::suite;
use crate::{PROGRAMS, SCRATCH, results, selection};

/// Runs `suite` once, with everything that it makes in the scratch directory.
pub(crate) fn run(order: &Order) -> Result<()> {
    suite::open_scratch(order)?;
    let suite = format!("{PROGRAMS}/{}", order.text("suite")?);
    let [arguments] = selection::runs(&suite, order)?
        .try_into()
        .map_err(|runs| anyhow!("one run is possible, not {runs:?}"))?;
    let mut command = Command::new(&suite);
    command.args(arguments);
    command.envs(order.variables("environment"));
    command.env("TMPDIR", SCRATCH).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {suite}"))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
    }
    let status = child.wait()?;
    results::send(&Value::String(text))?;
    ensure!(status.success(), "{suite} ended with {status}");
    Ok(())
}
