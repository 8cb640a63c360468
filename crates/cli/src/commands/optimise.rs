// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose optimise`: what is there twice, once.

use std::path::Path;

use serde_json::{Value, json};
use superpose_overlay::store_path::{HashEncoding, StoreDir, StorePath};
use superpose_overlay::{Duplicated, Effect, Kept, Modified, OptimiseOptions, Optimised, Reason, Skipped};

use super::Done;
use crate::context::Context;
use crate::error::{Result, chain};
use crate::output::{self, Output};
use crate::size_text::size_text;

/// Drop objects of the upper layer that the lower store has by now, and make identical files hard links
///
/// A copy is dropped only when it is the same as the one below. One that differs from it is reported and left, and the command
/// fails: one of the two is damaged, or they were built differently. The paths stay valid. Of a local store, and of what is
/// left in an upper layer, identical files become links to one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose optimise --dry-run")]
pub(crate) struct Args {
    /// Only drop objects that the lower store has
    #[arg(long, conflicts_with = "only_links")]
    only_duplicates: bool,
    /// Only make links
    #[arg(long)]
    only_links: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what was dropped, left and freed
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let (mut store, user) = context.store_for_long_work()?;
        let mut options = OptimiseOptions::default();
        if self.only_duplicates {
            options.duplicated = Duplicated::Objects;
        } else if self.only_links {
            options.duplicated = Duplicated::Files;
        }
        if self.dry_run {
            options.effect = Effect::Foresee;
        }
        let report = store.optimise(&options)?;
        user.clear();
        if report.waiting > 0 {
            context.note(format_args!(
                "{} dropped objects are still in use; their space is given back by a later deletion",
                report.waiting
            ));
        }
        for (count, why) in reasons(&report.skipped) {
            context.note(format_args!("{count} files are not made links: {why}"));
        }
        let dir = store.dir();
        if self.json {
            output::json(&as_json(dir, &report))?;
        } else {
            self.print(dir, &report)?;
        }
        let is_fault = |kept: &Kept| kept.reason.is_fault();
        Ok(Done::fine_if(!report.kept.iter().any(is_fault)))
    }

    fn print(&self, dir: &StoreDir, report: &Optimised) -> Result<()> {
        let mut output = Output::open()?;
        let (dropping, will) = if self.dry_run {
            ("would be dropped", "would be ")
        } else {
            ("dropped", "")
        };
        for path in &report.dropped {
            output.line(format_args!(
                "'{}' {dropping}: the lower store has it",
                dir.display(path)
            ))?;
        }
        for kept in &report.kept {
            output.line(describe(dir, kept))?;
        }
        if !self.only_links {
            output.line(format_args!(
                "{} objects {will}dropped, {} left{}",
                report.dropped.len(),
                report.kept.len(),
                if self.dry_run {
                    String::new()
                } else {
                    format!(", {} freed", size_text(report.bytes_dropped))
                }
            ))?;
        }
        if !self.only_duplicates {
            // The line that Nix ends with.
            output.line(format_args!(
                "{} {will}freed by hard-linking {} files",
                size_text(report.bytes_linked),
                report.linked
            ))?;
        }
        output.finish()
    }
}

/// One line of what was left, and why.
fn describe(dir: &StoreDir, kept: &Kept) -> String {
    let path = dir.display(&kept.path);
    match &kept.reason {
        Reason::Different { difference, modified } => {
            let place = if difference.path.as_os_str().is_empty() {
                String::new()
            } else {
                format!(" at '{}'", difference.path.display())
            };
            format!(
                "'{path}' is left: it is not the same in the two layers{place}: the lower layer has {}, the upper layer {}{}",
                difference.other,
                difference.one,
                faults(modified)
            )
        }
        Reason::Missing { expected } => format!(
            "'{path}' is left: it is valid in the lower store, and missing there: expected it at '{}'",
            expected.display()
        ),
        Reason::RowsDiffer { upper, lower } => format!(
            "'{path}' is left: the databases differ: the lower one says {}, the upper one {}",
            lower.render(HashEncoding::Nix32),
            upper.render(HashEncoding::Nix32)
        ),
        Reason::Unreadable { layer, error } => {
            format!(
                "'{path}' is left: it cannot be read in the {layer} layer: {}",
                chain(error)
            )
        }
        Reason::SeveralBelow => {
            format!("'{path}' is left: several lower directories have it, and would show as one")
        }
        Reason::InUse => format!("'{path}' is left: a process is adding it right now"),
        Reason::Changed => format!("'{path}' is left: it was replaced while it was compared; try again"),
        _ => format!("'{path}' is left"),
    }
}

/// Which of two copies is at fault, as far as their rows tell.
fn faults(modified: &[Modified]) -> String {
    if modified.is_empty() {
        return String::new();
    }
    let fault = |modified: &Modified| {
        format!(
            "that in the {} layer is modified: expected {}, found {}",
            modified.layer,
            modified.expected.render(HashEncoding::Nix32),
            modified.found.render(HashEncoding::Nix32)
        )
    };
    format!("; {}", modified.iter().map(fault).collect::<Vec<_>>().join("; "))
}

/// Why files were not made links, in words.
fn reasons(skipped: &Skipped) -> Vec<(u64, &'static str)> {
    let all = [
        (
            skipped.not_canonical,
            "they are writable, or have another time than store objects",
        ),
        (
            skipped.foreign,
            "they belong to another user than the file that they would become",
        ),
        (skipped.copied_up, "OverlayFS copied them up"),
        (
            skipped.too_many_links,
            "the file system allows no more links to the same file",
        ),
        (skipped.refused, "there is no space or no permission for it"),
        (skipped.changed, "they changed meanwhile, or cannot be read"),
    ];
    all.into_iter().filter(|(count, _)| *count > 0).collect()
}

fn as_json(dir: &StoreDir, report: &Optimised) -> Value {
    let full = |paths: &[StorePath]| paths.iter().map(|path| dir.join(path)).collect::<Vec<_>>();
    let kept = report.kept.iter().map(|kept| kept_as_json(dir, kept));
    let skipped = &report.skipped;
    json!({
        "dropped": full(&report.dropped),
        "kept": kept.collect::<Vec<_>>(),
        "bytesDropped": report.bytes_dropped,
        "waiting": report.waiting,
        "linked": report.linked,
        "bytesLinked": report.bytes_linked,
        "bytesFreed": report.bytes(),
        "searched": report.searched,
        "hashed": report.hashed,
        "skipped": {
            "notCanonical": skipped.not_canonical,
            "foreign": skipped.foreign,
            "copiedUp": skipped.copied_up,
            "tooManyLinks": skipped.too_many_links,
            "refused": skipped.refused,
            "changed": skipped.changed,
        },
        "remounted": report.remounted,
    })
}

fn kept_as_json(dir: &StoreDir, kept: &Kept) -> Value {
    let sri = |hash: &superpose_overlay::store_path::Hash| hash.render(HashEncoding::Sri);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut value = match &kept.reason {
        Reason::Different { difference, modified } => {
            let modified = modified.iter().map(|modified| {
                json!({
                    "layer": modified.layer.to_string(),
                    "expected": sri(&modified.expected),
                    "found": sri(&modified.found),
                })
            });
            json!({
                "reason": "different",
                "at": text(&difference.path),
                "lower": difference.other.to_string(),
                "upper": difference.one.to_string(),
                "modified": modified.collect::<Vec<_>>(),
            })
        }
        Reason::Missing { expected } => {
            json!({ "reason": "missing", "layer": "lower", "expected": text(expected) })
        }
        Reason::RowsDiffer { upper, lower } => {
            json!({ "reason": "rows-differ", "lower": sri(lower), "upper": sri(upper) })
        }
        Reason::Unreadable { layer, error } => {
            json!({ "reason": "unreadable", "layer": layer.to_string(), "error": chain(error) })
        }
        Reason::SeveralBelow => json!({ "reason": "several-below" }),
        Reason::InUse => json!({ "reason": "in-use" }),
        Reason::Changed => json!({ "reason": "changed" }),
        _ => json!({ "reason": "other" }),
    };
    value["path"] = dir.join(&kept.path).into();
    value["fault"] = kept.reason.is_fault().into();
    value
}
