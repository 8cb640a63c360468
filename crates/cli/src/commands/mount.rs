// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose mount`: makes the mount of an overlay store.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use superpose_overlay::OverlayLayout;
use superpose_overlay::mounting::{self, Claim, MountPlan, OverlayAttributes};

use super::{Done, access_of};
use crate::context::Context;
use crate::error::{Error, Result};

/// Mount the merged view of the store
///
/// Needs root, unless inside `superpose run`. The upper layer, the work directory and the mount point are made if
/// they are missing. Nothing is done if the right mount is there already.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store 'local-overlay://?root=/srv/merged&lower-store=/srv/lower&upper-layer=/srv/upper' mount")]
pub(crate) struct Args {
    #[command(flatten)]
    work: WorkDirectory,
}

/// Where OverlayFS works.
#[derive(Debug, clap::Args)]
pub(super) struct WorkDirectory {
    /// OverlayFS's own directory, on the file system of the upper layer [default: the upper layer's path and `.work`]
    #[arg(long, value_name = "DIR")]
    workdir: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let layout = context.overlay_layout()?;
        match make(&layout, &self.work)? {
            Made::Now(_claim) => context.detail(format_args!("mounted at '{}'", layout.merged().display())),
            Made::Before => {
                context.note(format_args!(
                    "'{}' is mounted as it should be already",
                    layout.merged().display()
                ));
            }
        }
        Ok(Done::Fine)
    }
}

/// Whether there was something to do.
#[derive(Debug)]
pub(super) enum Made {
    /// The mount is new. While the claim is kept, nobody else mounts the upper layer.
    Now(Claim),
    /// The right mount was there.
    Before,
}

/// Makes the mount of a store, and the directories that it needs.
pub(super) fn make(layout: &OverlayLayout, work: &WorkDirectory) -> Result<Made> {
    let work = work.of(&layout.upper_layer)?;
    if layout.merged().is_dir() && layout.check(access_of(layout))?.is_as_expected() {
        return Ok(Made::Before);
    }
    for directory in [layout.upper_layer.as_path(), &work, layout.merged()] {
        fs::create_dir_all(directory).map_err(|error| Error::io("create the directory", directory, error))?;
    }
    let claim = Claim::take(&layout.upper_layer)?;
    let attributes = OverlayAttributes::for_this_process()
        .map_err(|error| Error::io("examine", Path::new("/proc/self/ns/user"), error))?;
    let plan = MountPlan::new(layout.lower_layers(), &layout.upper_layer, work, layout.merged());
    mounting::mount_overlay(&plan.with_attributes(attributes))?;
    Ok(Made::Now(claim))
}

impl WorkDirectory {
    fn of(&self, upper_layer: &Path) -> Result<PathBuf> {
        match &self.workdir {
            Some(work) => std::path::absolute(work).map_err(|error| Error::io("resolve", work, error)),
            None => {
                let mut work = OsString::from(upper_layer);
                work.push(".work");
                Ok(work.into())
            }
        }
    }
}
