// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found out about a mount, as JSON. Paths that are not UTF-8 are shown with replacement characters.

use serde_json::{Value, json};
use superpose_overlay::mount_check::mountinfo::MountOption;
use superpose_overlay::mount_check::options::LayerText;
use superpose_overlay::mount_check::{Certainty, Evidence, MountDescription, MountKind, Outcome, Report};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A report: the outcome, what it rests on, and how to mend what is wrong.
pub(crate) fn report(report: &Report) -> Value {
    let (outcome, differences, reasons) = match &report.outcome {
        Outcome::AsExpected => ("as-expected", [].as_slice(), [].as_slice()),
        Outcome::Different(differences) => ("different", differences.as_slice(), [].as_slice()),
        Outcome::CannotTell(reasons) => ("cannot-tell", [].as_slice(), reasons.as_slice()),
    };
    json!({
        "mountPoint": report.mount_point.to_string_lossy(),
        "outcome": outcome,
        "differences": differences.iter().map(|difference| json!({
            "what": difference.what.to_string(),
            "expected": difference.expected,
            "found": difference.found,
            "mend": difference.mend.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "reasons": reasons.iter().map(|reason| json!({
            "why": reason.why,
            "remedy": reason.remedy,
        })).collect::<Vec<_>>(),
        "warnings": report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "evidence": report.evidence.iter().map(evidence).collect::<Vec<_>>(),
        "mount": report.mount.as_ref().map(mount),
    })
}

fn evidence(evidence: &Evidence) -> Value {
    let certainty = match evidence.certainty {
        Certainty::Proven => "proven",
        Certainty::Consistent => "consistent",
        Certainty::Unknown => "unknown",
        Certainty::Refuted => "refuted",
    };
    json!({
        "layer": evidence.layer.to_string(),
        "directory": evidence.expected.to_string_lossy(),
        "certainty": certainty,
        "how": evidence.how,
    })
}

/// A mount, without any expectation.
pub(crate) fn mount(mount: &MountDescription) -> Value {
    let kind = match mount.kind {
        MountKind::Overlay => "overlay",
        MountKind::FuseOverlay => "fuse-overlay",
        _ => "other",
    };
    let layer = |layer: &LayerText| layer.path.to_string_lossy().into_owned();
    let option = |option: &MountOption| match &option.value {
        Some(value) => format!("{}={}", text(&option.key), text(value)),
        None => text(&option.key),
    };
    json!({
        "path": mount.path.to_string_lossy(),
        "kind": kind,
        "isMountPoint": mount.is_mount_point,
        "isReadOnly": mount.is_read_only,
        "fileSystem": mount.info.as_ref().map(|info| text(&info.fs_type)),
        "mountPoint": mount.info.as_ref().map(|info| text(&info.mount_point)),
        "source": mount.info.as_ref().map(|info| text(&info.source)),
        "overlay": mount.overlay.as_ref().map(|overlay| json!({
            "lower": overlay.named_lower().map(layer).collect::<Vec<_>>(),
            "data": overlay.lower.iter().filter(|layer| layer.data_only).map(layer).collect::<Vec<_>>(),
            "upper": overlay.upper.as_ref().map(layer),
            "work": overlay.work.as_ref().map(layer),
            "options": overlay.features.iter().map(option).collect::<Vec<_>>(),
        })),
        "hidden": mount.hidden.len(),
    })
}
