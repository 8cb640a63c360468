// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose verify`: is what is recorded also there?

use serde_json::{Value, json};
use superpose_overlay::store_path::{HashEncoding, StoreDir, StorePath};
use superpose_overlay::{Contents, Fault, Store, Untrusted, VerifyOptions, VerifyReport};

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output::{self, Output};
use crate::size_text::size_text;
use crate::trust::TrustArguments;

/// Compare every path of the upper database (of a local store: every path) with what is on the disk
///
/// Fails if something is wrong. Rows of objects that are gone and that nothing needs are deleted, as Nix does it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose verify --check-contents")]
pub(crate) struct Args {
    /// Hash every object, too
    #[arg(long)]
    check_contents: bool,
    /// Report paths that fewer than N trusted keys have signed, unless they follow from their content
    #[arg(long, value_name = "N")]
    sigs_needed: Option<usize>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Print what was looked at and all faults
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let (mut open, user) = context.long_work()?;
        open.trusted_keys = self.trust.keys()?;
        let mut store = Store::open(context.layout()?, open)?;
        let mut options = VerifyOptions::default();
        if self.check_contents {
            options.contents = Contents::Check;
        }
        let report = store.verify(&options)?;
        let untrusted = self
            .sigs_needed
            .map(|needed| store.untrusted(needed))
            .transpose()?;
        user.clear();
        let dir = store.dir();
        if self.json {
            let mut found = as_json(dir, &report);
            if let Some(untrusted) = &untrusted {
                found["untrusted"] = untrusted_json(dir, untrusted);
            }
            output::json(&found)?;
        } else {
            print(dir, &report)?;
            if let Some(untrusted) = &untrusted {
                print_untrusted(dir, untrusted)?;
            }
        }
        let is_trusted = untrusted.is_none_or(|untrusted| untrusted.is_empty());
        Ok(Done::fine_if(report.faults.is_empty() && is_trusted))
    }
}

fn print(dir: &StoreDir, report: &VerifyReport) -> Result<()> {
    let mut output = Output::open()?;
    for path in &report.forgotten {
        output.line(format_args!(
            "'{}' is gone and nothing needs it: forgotten",
            dir.display(path)
        ))?;
    }
    for fault in &report.faults {
        output.line(describe(dir, fault))?;
    }
    let hashed = if report.hashed > 0 {
        format!(", {} objects hashed ({})", report.hashed, size_text(report.bytes))
    } else {
        String::new()
    };
    output.line(format_args!(
        "{} paths verified{hashed}: {} faults",
        report.rows,
        report.faults.len()
    ))?;
    output.finish()
}

fn print_untrusted(dir: &StoreDir, untrusted: &[Untrusted]) -> Result<()> {
    let mut output = Output::open()?;
    for one in untrusted {
        output.line(format_args!(
            "'{}' is untrusted: {} trusted signatures",
            dir.display(&one.path),
            one.found
        ))?;
    }
    output.finish()
}

fn untrusted_json(dir: &StoreDir, untrusted: &[Untrusted]) -> Value {
    let one = |one: &Untrusted| json!({ "path": dir.join(&one.path), "signatures": one.found });
    untrusted.iter().map(one).collect()
}

fn describe(dir: &StoreDir, fault: &Fault) -> String {
    let path = dir.display(fault.path());
    match fault {
        Fault::Missing { referrers, .. } if referrers.is_empty() => {
            format!("'{path}' is missing, though it is valid in the lower store")
        }
        Fault::Missing { referrers, .. } => {
            let first = referrers
                .first()
                .map(|first| format!(", such as '{}'", dir.display(first)));
            format!(
                "'{path}' is missing, and {} valid paths need it{}",
                referrers.len(),
                first.unwrap_or_default()
            )
        }
        Fault::Modified {
            layer,
            expected,
            found,
            ..
        } => format!(
            "'{path}' is modified (in the {layer} layer): expected {}, found {}",
            expected.render(HashEncoding::Nix32),
            found.render(HashEncoding::Nix32)
        ),
        Fault::Unreadable { error, .. } => format!("'{path}' cannot be verified: {}", chain(error)),
        _ => format!("'{path}' is faulty"),
    }
}

fn as_json(dir: &StoreDir, report: &VerifyReport) -> Value {
    let full = |paths: &[StorePath]| paths.iter().map(|path| dir.join(path)).collect::<Vec<_>>();
    let faults = report.faults.iter().map(|fault| match fault {
        Fault::Missing { path, referrers } => {
            json!({ "fault": "missing", "path": dir.join(path), "referrers": full(referrers) })
        }
        Fault::Modified {
            path,
            layer,
            expected,
            found,
        } => json!({
            "fault": "modified",
            "path": dir.join(path),
            "layer": layer.to_string(),
            "expected": expected.render(HashEncoding::Sri),
            "found": found.render(HashEncoding::Sri),
        }),
        Fault::Unreadable { path, error } => {
            json!({ "fault": "unreadable", "path": dir.join(path), "error": chain(error) })
        }
        _ => json!({ "fault": "other", "path": dir.join(fault.path()) }),
    });
    json!({
        "paths": report.rows,
        "hashed": report.hashed,
        "bytesHashed": report.bytes,
        "faults": faults.collect::<Vec<_>>(),
        "forgotten": full(&report.forgotten),
    })
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
