// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows what a verification found and what was mended, to people and to programs.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::discriminant;

use serde_json::{Value, json};
use superpose_overlay::store_path::{Hash, HashEncoding, StoreDir, StorePath};
use superpose_overlay::{Fault, Note, Obstacle, Repaired, Untrusted, VerifyReport};

use crate::error::{Result, chain};
use crate::output::Output;
use crate::size_text::size_text;

/// So many notes of one kind are printed for people.
const NOTES_SHOWN: usize = 10;

/// What was done about faults, by name.
struct Mended<'a>(Option<HashMap<&'a OsStr, &'a Obstacle>>);

impl<'a> Mended<'a> {
    fn of(repaired: Option<&'a Repaired>) -> Self {
        Mended(repaired.map(|repaired| {
            let left = repaired.left.iter();
            left.map(|(name, obstacle)| (name.as_os_str(), obstacle))
                .collect()
        }))
    }

    /// Why the fault stays; nothing if it was mended, or not tried to.
    fn obstacle(&self, fault: &Fault) -> Option<String> {
        let obstacle = self.0.as_ref()?.get(fault.name())?;
        Some(chain(*obstacle))
    }

    fn is_mended(&self, fault: &Fault) -> Option<bool> {
        Some(!self.0.as_ref()?.contains_key(fault.name()))
    }
}

/// For people.
pub(super) fn text(
    output: &mut Output,
    dir: &StoreDir,
    report: &VerifyReport,
    repaired: Option<&Repaired>,
) -> Result<()> {
    for path in &report.forgotten {
        output.line(format_args!(
            "'{}' is gone and nothing needs it: forgotten",
            dir.display(path)
        ))?;
    }
    let mended = Mended::of(repaired);
    for fault in &report.faults {
        output.line(describe_fault(dir, fault))?;
        match (mended.is_mended(fault), mended.obstacle(fault)) {
            (Some(true), _) => output.line("  repaired")?,
            (_, Some(why)) => output.line(format_args!("  not repaired: {why}"))?,
            _ => {}
        }
    }
    notes(output, dir, &report.notes)?;
    let hashed = if report.hashed + report.links > 0 {
        format!(", {} objects hashed ({})", report.hashed, size_text(report.bytes))
    } else {
        String::new()
    };
    let repaired = match &mended.0 {
        Some(_) => {
            let count = report
                .faults
                .iter()
                .filter(|fault| mended.is_mended(fault) == Some(true));
            format!(", {} repaired", count.count())
        }
        None => String::new(),
    };
    output.line(format_args!(
        "{} paths verified{hashed}: {} faults{repaired}",
        report.rows,
        report.faults.len()
    ))
}

/// Of each kind so many as can be read; their number in any case.
fn notes(output: &mut Output, dir: &StoreDir, notes: &[Note]) -> Result<()> {
    let mut counts = HashMap::new();
    for note in notes {
        let count = counts.entry(discriminant(note)).or_insert(0_usize);
        *count += 1;
        if *count <= NOTES_SHOWN {
            output.line(format_args!("note: {}", describe_note(dir, note)))?;
        }
    }
    let more: usize = counts
        .values()
        .map(|count| count.saturating_sub(NOTES_SHOWN))
        .sum();
    if more > 0 {
        output.line(format_args!(
            "note: {more} more like these; --json has all of them"
        ))?;
    }
    Ok(())
}

fn nix32(hash: &Hash) -> String {
    hash.render(HashEncoding::Nix32)
}

fn describe_fault(dir: &StoreDir, fault: &Fault) -> String {
    let path = match fault.path() {
        Some(path) => dir.join(path),
        None => fault.name().to_string_lossy().into_owned(),
    };
    match fault {
        Fault::Missing {
            valid_below: true, ..
        } => {
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
            nix32(expected),
            nix32(found)
        ),
        Fault::Unreadable { error, .. } => format!("'{path}' cannot be verified: {}", chain(error)),
        Fault::Hidden { .. } => {
            format!("'{path}' is valid in the lower store, and a whiteout in the upper layer hides it")
        }
        Fault::Lost { .. } => format!(
            "'{path}' was known from the lower store, which does not have it any more, and the upper layer has none"
        ),
        Fault::Drifted { expected, found, .. } => format!(
            "'{path}' is another one in the lower store: expected {}, found {} in its database",
            nix32(expected),
            nix32(found)
        ),
        Fault::Incomplete { .. } => format!(
            "'{path}' is only a part in the upper layer, and the rest is not valid in the lower store"
        ),
        Fault::MetadataOnly { .. } => {
            format!("'{path}' has no contents in the upper layer: it was copied up by a mount with metacopy")
        }
        Fault::NoHash { found: None, .. } => format!("'{path}' has no hash in its row"),
        Fault::NoHash {
            found: Some(found), ..
        } => format!("'{path}' has no hash in its row: found {}", nix32(&found.hash)),
        Fault::ForeignName { .. } => {
            format!("'{path}' in the upper layer is no store path: the collector of Nix stops at it")
        }
        Fault::Link { found, .. } => {
            format!("the link '.links/{path}' is modified: found {}", nix32(found))
        }
        Fault::UnreadableLink { error, .. } => {
            format!("the link '.links/{path}' cannot be verified: {}", chain(error))
        }
        _ => format!("'{path}' is faulty"),
    }
}

fn describe_note(dir: &StoreDir, note: &Note) -> String {
    let name = note.name().to_string_lossy();
    match note {
        Note::Unregistered { .. } => format!("'{name}' is in the layer and not registered"),
        Note::ForeignName { .. } => format!("'{name}' is no store path"),
        Note::Whiteout { .. } => format!("the whiteout '{name}' hides nothing that is valid"),
        Note::Merged { path } => format!(
            "'{}' is in both layers, and what is seen is the union",
            dir.display(path)
        ),
        Note::CopiedUp { path } => {
            format!(
                "'{}' was changed through the mount and copied up",
                dir.display(path)
            )
        }
        Note::DiffersBelow { path, above, below } => format!(
            "'{}' was built twice: {} is seen, {} is in the lower store",
            dir.display(path),
            nix32(above),
            nix32(below)
        ),
        Note::Size {
            path,
            recorded,
            found,
        } => {
            let path = dir.display(path);
            match (recorded, found) {
                (0, None) => format!("'{path}' has no size in its row"),
                (0, Some(found)) => format!("'{path}' has no size in its row: found {found} bytes"),
                (recorded, found) => format!(
                    "'{path}' has another size than its row says: expected {recorded} bytes, found {}",
                    found.unwrap_or_default()
                ),
            }
        }
        _ => format!("'{name}' is unusual"),
    }
}

/// For programs.
pub(super) fn json(dir: &StoreDir, report: &VerifyReport, repaired: Option<&Repaired>) -> Value {
    let full = |paths: &[StorePath]| paths.iter().map(|path| dir.join(path)).collect::<Vec<_>>();
    let mended = Mended::of(repaired);
    let faults = report.faults.iter().map(|fault| {
        let mut value = fault_json(dir, fault);
        if let (Some(is_mended), Some(members)) = (mended.is_mended(fault), value.as_object_mut()) {
            members.insert("repaired".to_owned(), json!(is_mended));
            members.insert("obstacle".to_owned(), json!(mended.obstacle(fault)));
        }
        value
    });
    let mut value = json!({
        "paths": report.rows,
        "hashed": report.hashed,
        "linksHashed": report.links,
        "bytesHashed": report.bytes,
        "faults": faults.collect::<Vec<_>>(),
        "notes": report.notes.iter().map(|note| note_json(dir, note)).collect::<Vec<_>>(),
        "forgotten": full(&report.forgotten),
    });
    if let (Some(repaired), Some(members)) = (repaired, value.as_object_mut()) {
        let links: Vec<_> = repaired.links.iter().map(|name| name.to_string_lossy()).collect();
        members.insert(
            "repaired".to_owned(),
            json!({
                "objects": full(&repaired.objects),
                "uncovered": full(&repaired.uncovered),
                "rows": full(&repaired.rows),
                "links": links,
                "bytes": repaired.bytes,
            }),
        );
    }
    value
}

fn fault_json(dir: &StoreDir, fault: &Fault) -> Value {
    let sri = |hash: &Hash| hash.render(HashEncoding::Sri);
    let mut value = match fault {
        Fault::Missing {
            referrers,
            valid_below,
            ..
        } => json!({
            "fault": "missing",
            "referrers": referrers.iter().map(|path| dir.join(path)).collect::<Vec<_>>(),
            "validBelow": valid_below,
        }),
        Fault::Modified {
            layer,
            expected,
            found,
            ..
        } => json!({
            "fault": "modified",
            "layer": layer.to_string(),
            "expected": sri(expected),
            "found": sri(found),
        }),
        Fault::Unreadable { error, .. } => json!({ "fault": "unreadable", "error": chain(error) }),
        Fault::Hidden { .. } => json!({ "fault": "hidden" }),
        Fault::Lost { .. } => json!({ "fault": "lost" }),
        Fault::Drifted { expected, found, .. } => json!({
            "fault": "drifted",
            "expected": sri(expected),
            "found": sri(found),
        }),
        Fault::Incomplete { .. } => json!({ "fault": "incomplete" }),
        Fault::MetadataOnly { .. } => json!({ "fault": "metadata-only" }),
        Fault::NoHash { found, .. } => json!({
            "fault": "no-hash",
            "found": found.as_ref().map(|found| sri(&found.hash)),
        }),
        Fault::ForeignName { name } => {
            json!({ "fault": "foreign-name", "name": name.to_string_lossy() })
        }
        Fault::Link { name, found } => json!({
            "fault": "link",
            "name": name.to_string_lossy(),
            "found": sri(found),
        }),
        Fault::UnreadableLink { name, error } => json!({
            "fault": "unreadable-link",
            "name": name.to_string_lossy(),
            "error": chain(error),
        }),
        _ => json!({ "fault": "other" }),
    };
    if let (Some(path), Some(members)) = (fault.path(), value.as_object_mut()) {
        members.insert("path".to_owned(), json!(dir.join(path)));
    }
    value
}

fn note_json(dir: &StoreDir, note: &Note) -> Value {
    let sri = |hash: &Hash| hash.render(HashEncoding::Sri);
    match note {
        Note::Unregistered { path } => json!({ "note": "unregistered", "path": dir.join(path) }),
        Note::ForeignName { name } => json!({ "note": "foreign-name", "name": name.to_string_lossy() }),
        Note::Whiteout { name } => json!({ "note": "whiteout", "name": name.to_string_lossy() }),
        Note::Merged { path } => json!({ "note": "merged", "path": dir.join(path) }),
        Note::CopiedUp { path } => json!({ "note": "copied-up", "path": dir.join(path) }),
        Note::DiffersBelow { path, above, below } => json!({
            "note": "differs-below",
            "path": dir.join(path),
            "above": sri(above),
            "below": sri(below),
        }),
        Note::Size {
            path,
            recorded,
            found,
        } => json!({
            "note": "size",
            "path": dir.join(path),
            "recorded": recorded,
            "found": found,
        }),
        _ => json!({ "note": "other", "name": note.name().to_string_lossy() }),
    }
}

/// Shows the paths that too few trusted keys have signed.
pub(super) fn untrusted(output: &mut Output, dir: &StoreDir, untrusted: &[Untrusted]) -> Result<()> {
    for one in untrusted {
        output.line(format_args!(
            "'{}' is untrusted: {} trusted signatures",
            dir.display(&one.path),
            one.found
        ))?;
    }
    Ok(())
}

/// The same as JSON.
pub(super) fn untrusted_json(dir: &StoreDir, untrusted: &[Untrusted]) -> Value {
    let one = |one: &Untrusted| json!({ "path": dir.join(&one.path), "signatures": one.found });
    untrusted.iter().map(one).collect()
}
