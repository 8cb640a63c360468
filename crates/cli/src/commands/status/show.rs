// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows what was found out about a store, to people and to programs.

use serde_json::{Value, json};
use superpose_overlay::Layout;
use superpose_overlay::mount_check::Outcome;

use super::gather::Status;
use crate::error::Result;
use crate::mount_json;
use crate::output::Output;
use crate::size_text::size_text;

/// For people.
pub(super) fn text(output: &mut Output, layout: &Layout, status: &Status) -> Result<()> {
    let settings = layout.settings();
    let mut line = |name: &str, value: &dyn std::fmt::Display| output.line(format_args!("{name:<17}{value}"));
    line("store", &layout.reference())?;
    match layout {
        Layout::Local(_) => line("store directory", &settings.real_dir.display())?,
        Layout::Daemon(daemon) => {
            line("daemon", &daemon.socket.display())?;
            line("store directory", &settings.real_dir.display())?;
        }
        Layout::Overlay(overlay) => {
            line("merged view", &overlay.merged().display())?;
            line("upper layer", &overlay.upper_layer.display())?;
            for lower in overlay.lower_layers() {
                line("lower layer", &lower.display())?;
            }
        }
    }
    line("state directory", &settings.state_dir.display())?;
    if let Some(report) = &status.mount {
        line("mount", &outcome(&report.outcome))?;
        for warning in &report.warnings {
            line("", &format_args!("warning: {warning}"))?;
        }
    }
    if let Some(usage) = &status.usage {
        let size = format_args!(
            "{} objects, {} ({} bytes)",
            usage.objects,
            size_text(usage.bytes),
            usage.bytes
        );
        line("on the disk", &size)?;
        if usage.whiteouts > 0 {
            line("", &format_args!("{} names hide what is below", usage.whiteouts))?;
        }
    }
    if let Some(survey) = &status.survey {
        let unknown = survey.unregistered.len();
        if unknown > 0 {
            line(
                "",
                &format_args!("{unknown} objects are not known: being added, or left by a crash"),
            )?;
        }
        let copied = format_args!("{}, of these {} copied from below", survey.rows, survey.copied);
        match layout {
            Layout::Local(_) | Layout::Daemon(_) => line("known paths", &survey.rows)?,
            Layout::Overlay(_) => line("known paths", &copied)?,
        }
    }
    if let Some(rows) = status.lower_rows {
        line("known below", &rows)?;
    }
    for problem in &status.problems {
        line("problem", &problem.what)?;
        if let Some(mend) = &problem.mend {
            line("  to mend", mend)?;
        }
    }
    if status.problems.is_empty() {
        line("problems", &"none")?;
    }
    Ok(())
}

fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::AsExpected => "as expected",
        Outcome::Different(_) => "not as expected",
        Outcome::CannotTell(_) => "cannot be verified",
    }
}

/// For programs.
pub(super) fn json(layout: &Layout, status: &Status) -> Value {
    let settings = layout.settings();
    let kind = match layout {
        Layout::Local(_) => "local",
        Layout::Daemon(_) => "daemon",
        Layout::Overlay(_) => "local-overlay",
    };
    let layers: Vec<_> = layout
        .layers()
        .iter()
        .map(|layer| layer.to_string_lossy().into_owned())
        .collect();
    let (usage, survey) = (status.usage.as_ref(), status.survey.as_ref());
    json!({
        "url": layout.reference().to_string(),
        "kind": kind,
        "storeDir": settings.store_dir.as_str(),
        "realDir": settings.real_dir.to_string_lossy(),
        "stateDir": settings.state_dir.to_string_lossy(),
        "layers": layers,
        "mount": status.mount.as_ref().map(mount_json::report),
        "upper": {
            "objects": usage.map(|usage| usage.objects),
            "otherFiles": usage.map(|usage| usage.others),
            "whiteouts": usage.map(|usage| usage.whiteouts),
            "bytes": usage.map(|usage| usage.bytes),
            "rows": survey.map(|survey| survey.rows),
            "copiedRows": survey.map(|survey| survey.copied),
            "rowsWithoutObjects": survey.map(|survey| survey.nowhere.len()),
            "unknownObjects": survey.map(|survey| survey.unregistered.len()),
            "foreignNames": survey.map(|survey| survey.foreign.len()),
            "hiddenObjects": survey.map(|survey| survey.hidden.len()),
        },
        "lower": { "rows": status.lower_rows },
        "interrupted": status.interrupted,
        "problems": status.problems.iter().map(|problem| json!({
            "what": problem.what,
            "mend": problem.mend,
        })).collect::<Vec<_>>(),
    })
}
