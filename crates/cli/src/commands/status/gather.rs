// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at every part of a store. What cannot be looked at is one more problem, and stops nothing.

use std::error::Error as StdError;

use superpose_overlay::metadata::{self, MetadataSource};
use superpose_overlay::mount_check::{Aspect, Outcome, Report};
use superpose_overlay::{Layer, Layout, OverlayLayout, StoreView, Usage, is_interrupted};

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
    /// The upper database, or that of a local store.
    pub(super) rows: Option<Rows>,
    /// Valid paths of the lower store.
    pub(super) lower_rows: Option<u64>,
    /// Whether a removal was interrupted, or a remount is owed.
    pub(super) interrupted: bool,
    pub(super) problems: Vec<Problem>,
}

/// What a database says.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Paths that it knows.
    pub(super) all: u64,
    /// Those whose object is not in the upper layer: copies of rows from below.
    pub(super) copied: u64,
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
            status.rows = Some(Rows::default());
            return;
        }
        Err(error) => {
            status.keep::<()>(Err(error.into()));
            return;
        }
    };
    status.usage = status.keep(view.upper_usage().map_err(Error::from));
    status.rows = status.keep(count_rows(&view));
    // Opened even if it is not counted: one that cannot be is something wrong.
    let below = status.keep(view.lower().map_err(Error::from)).flatten();
    if let (Lower::Count, Some(below)) = (lower, below) {
        status.lower_rows = status.keep(below.count().map_err(Error::from));
    }
}

fn count_rows(view: &StoreView) -> Result<Rows> {
    let mut paths = Vec::new();
    view.upper_metadata().for_each_valid_path(&mut |path| {
        paths.push(path);
        Ok(())
    })?;
    let below = view
        .locate(&paths)?
        .into_iter()
        .filter(|layer| *layer == Layer::Lower)
        .count();
    Ok(Rows {
        all: paths.len() as u64,
        copied: below as u64,
    })
}

impl Status {
    /// Objects of the layer that no row knows: being added at this moment, or left by a crash.
    pub(super) fn unknown_objects(&self) -> Option<u64> {
        let (usage, rows) = (self.usage.as_ref()?, self.rows.as_ref()?);
        Some(usage.objects.saturating_sub(rows.all - rows.copied))
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
