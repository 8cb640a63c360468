// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a suite of the `tests` package, or some of its trials; its report goes out as the result.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::order::Order;
use crate::{PROGRAMS, SCRATCH, machine, results, selection};

const REPORT: &str = "/run/suite-report.json";

/// Runs `suite` with each of `filters` in turn; once as it is if there is none. `user` runs it as somebody else.
pub(crate) fn run(order: &Order) -> Result<()> {
    open_scratch(order)?;
    let suite = format!("{PROGRAMS}/{}", order.text("suite")?);
    let mut reports = Vec::new();
    for arguments in selection::runs(&suite, order)? {
        reports.push(once(order, &suite, &arguments)?);
    }
    let failed: u64 = reports
        .iter()
        .filter_map(|report| report["failed"].as_u64())
        .sum();
    results::send(&Value::Array(reports))?;
    ensure!(failed == 0, "{failed} trials of the suite failed");
    Ok(())
}

/// Makes the directory that a suite works in what the order says, and everybody's: a new file system is root's.
pub(crate) fn open_scratch(order: &Order) -> Result<()> {
    if order.text("scratch").is_ok_and(|kind| kind == "tmpfs") {
        machine::mount_new("tmpfs", SCRATCH, "size=1g")?;
    }
    fs::set_permissions(SCRATCH, fs::Permissions::from_mode(0o1777)).context(SCRATCH)
}

fn once(order: &Order, suite: &str, arguments: &[String]) -> Result<Value> {
    let mut command = match order.text("user") {
        Ok(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "--", suite]);
            command
        }
        Err(_) => Command::new(suite),
    };
    command.args(arguments);
    command.envs(order.variables("environment"));
    command.env("SUPERPOSE_TEST_REPORT", REPORT);
    fs::write(REPORT, "").context(REPORT)?;
    fs::set_permissions(REPORT, fs::Permissions::from_mode(0o666)).context(REPORT)?;
    let status = command.status().with_context(|| format!("starting {suite}"))?;
    let text = fs::read_to_string(REPORT).context(REPORT)?;
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("{suite} ended ({status}) and its report says '{text}'"))?;
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    let skipped = report["skipped"].as_array().map_or(0, Vec::len);
    ensure!(
        count("passed") + count("failed") > 0 || skipped > 0,
        "no trial of {suite} fits {arguments:?}"
    );
    ensure!(
        status.success() || count("failed") > 0,
        "{suite} ended with {status}"
    );
    Ok(report)
}
