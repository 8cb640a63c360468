// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a trial says of a report.

use superpose_mount_check::{Aspect, Certainty, Layer, Outcome, Report};

use crate::harness;

pub(crate) fn done() -> harness::Outcome {
    Ok(())
}

/// The report says that all is as expected.
#[track_caller]
pub(crate) fn as_expected(report: &Report) {
    assert!(report.is_as_expected(), "{report}");
}

/// As expected, and all of it by comparing objects, not by text.
#[track_caller]
pub(crate) fn proven(report: &Report) {
    as_expected(report);
    for evidence in &report.evidence {
        assert_eq!(evidence.certainty, Certainty::Proven, "{report}");
    }
}

/// The report names exactly these differences.
#[track_caller]
pub(crate) fn different(report: &Report, want: &[Aspect]) {
    let Outcome::Different(differences) = &report.outcome else {
        panic!("not different:\n{report}")
    };
    let got: Vec<_> = differences.iter().map(|difference| difference.what).collect();
    assert_eq!(got, want, "{report}");
}

#[track_caller]
pub(crate) fn cannot_tell(report: &Report) {
    assert!(matches!(report.outcome, Outcome::CannotTell(_)), "{report}");
}

#[track_caller]
pub(crate) fn certainty(report: &Report, layer: Layer) -> Certainty {
    report
        .evidence
        .iter()
        .find(|evidence| evidence.layer == layer)
        .expect("every layer has evidence")
        .certainty
}
