// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at every part of a store. What cannot be looked at is one more problem, and stops nothing.

use std::error::Error as StdError;

use superpose_overlay::metadata::{self, MetadataSource};
use superpose_overlay::mount_check::{Aspect, Outcome, Report};
use superpose_overlay::{Layout, OverlayLayout, StoreView, Survey, Usage, is_interrupted};

use crate::commands::access_of;
use crate::error::{Error, Result};

/// Whether the paths of the lower store are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lower {
    Count,
    Skip,
}

/// Everything that was found out.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// The mount; `None` for a local store, and when it cannot be examined.
    pub(super) mount: Option<Report>,
    /// The upper layer, or the store directory of a local store.
    pub(super) usage: Option<Usage>,
    /// The upper layer and its database side by side, or those of a local store.
    pub(super) survey: Option<Survey>,
    /// Valid paths of the lower store.
    pub(super) lower_rows: Option<u64>,
    /// Whether a removal was interrupted, or a remount is owed.
    pub(super) interrupted: bool,
    pub(super) problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) what: String,
    /// How to mend it.
    pub(super) mend: Option<String>,
}

impl Status {
    /// Keeps a value, or the reason why there is none.
    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.problem(error.one_line(), error.hint()))
            .ok()
    }

    fn problem(&mut self, what: impl Into<String>, mend: Option<&str>) {
        self.problems.push(Problem {
            what: what.into(),
            mend: mend.map(str::to_owned),
        });
    }
}

/// Looks at a store.
pub(super) fn gather(layout: &Layout, lower: Lower) -> Status {
    let mut status = Status::default();
    if let Layout::Overlay(overlay) = layout {
        look_at_mount(overlay, &mut status);
        let interrupted = is_interrupted(&overlay.settings.state_dir);
        status.interrupted = status.keep(interrupted.map_err(Error::from)).unwrap_or(false);
        if status.interrupted {
            status.problem(
                "a removal was interrupted, or a remount is owed",
                Some("`superpose remount` finishes it, as does any other command once the store is mounted"),
            );
        }
    }
    let layers = layout.layers();
    for directory in layers.iter().skip(1).filter(|directory| !directory.is_dir()) {
        status.problem(
            format!(
                "the lower store directory '{}' does not exist",
                directory.display()
            ),
            Some("check lower-store in the store URL"),
        );
    }
    look_at_metadata(layout, lower, &mut status);
    status
}

fn look_at_mount(overlay: &OverlayLayout, status: &mut Status) {
    let Some(report) = status.keep(overlay.check(access_of(overlay)).map_err(Error::from)) else {
        return;
    };
    match &report.outcome {
        Outcome::AsExpected => {}
        Outcome::Different(differences) => {
            for difference in differences {
                let missing = matches!(difference.what, Aspect::NotMounted | Aspect::MountPoint);
                let mend = match difference.mend.first() {
                    _ if missing => {
                        "`superpose mount`, or `superpose run -- COMMAND` without root".to_owned()
                    }
                    Some(mend) => mend.to_string(),
                    None => "`superpose check-mount` explains it".to_owned(),
                };
                status.problem(
                    format!(
                        "{}: expected {}, found {}",
                        difference.what, difference.expected, difference.found
                    ),
                    Some(&mend),
                );
            }
        }
        Outcome::CannotTell(reasons) => {
            for reason in reasons {
                status.problem(
                    format!("the mount cannot be verified: {}", reason.why),
                    Some(&reason.remedy),
                );
            }
        }
    }
    status.mount = Some(report);
}

fn look_at_metadata(layout: &Layout, lower: Lower, status: &mut Status) {
    let view = match StoreView::open(layout) {
        Ok(view) => view,
        // A local store that nothing was added to yet; an overlay store is opened without its database.
        Err(superpose_overlay::Error::Metadata(metadata::Error::MissingDatabase { .. })) if matches!(layout, Layout::Local(local) if !local.settings.real_dir.exists()) =>
        {
            status.usage = Some(Usage::default());
            status.survey = Some(Survey::default());
            return;
        }
        Err(error) => {
            status.keep::<()>(Err(error.into()));
            return;
        }
    };
    status.usage = status.keep(view.upper_usage().map_err(Error::from));
    // Opened even if it is not counted: one that cannot be is something wrong.
    let is_whole = status.keep(view.reach().map_err(Error::from)).is_some();
    let below = view.lower().ok().flatten();
    if is_whole {
        status.survey = status.keep(view.survey().map_err(Error::from));
    }
    if let Some(survey) = status.survey.take() {
        judge_survey(&survey, layout, status);
        status.survey = Some(survey);
    }
    if let (Lower::Count, true, Some(below)) = (lower, is_whole, below) {
        status.lower_rows = status.keep(below.count().map_err(Error::from));
    }
}

/// Names what a verification would call a fault, as far as names tell.
fn judge_survey(survey: &Survey, layout: &Layout, status: &mut Status) {
    let count = |number: usize, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{number} {many}")),
    };
    let problems = [
        (
            count(
                survey.hidden.len(),
                "whiteout hides an object of the lower store that is valid",
                "whiteouts hide objects of the lower store that are valid",
            ),
            "`superpose verify --repair`",
        ),
        (
            count(
                survey.nowhere.len(),
                "known path has no object in any layer",
                "known paths have no object in any layer",
            ),
            "`superpose verify` names them, and with --repair and --from brings them back from another store",
        ),
        (
            count(
                survey.foreign.len(),
                "name in the upper layer is no store path",
                "names in the upper layer are no store paths",
            )
            // In a local store every collector removes them.
            .filter(|_| matches!(layout, Layout::Overlay(_))),
            "`superpose verify` names them; remove what nobody uses, since the collector of Nix stops at them",
        ),
    ];
    for (what, mend) in problems {
        if let Some(what) = what {
            status.problem(what, Some(mend));
        }
    }
}

impl Error {
    /// The message with its causes on one line.
    fn one_line(&self) -> String {
        let causes = std::iter::successors(Some(self.message()), |error| StdError::source(*error));
        causes
            .map(|error| error.to_string().trim_end().replace('\n', "; "))
            .collect::<Vec<_>>()
            .join(": ")
    }
}
