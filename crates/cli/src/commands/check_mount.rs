// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose check-mount`: is an overlay mounted as it should be?

use std::path::PathBuf;

use superpose_overlay::mount_check::{self, Expected, Report};

use super::{Done, access_of};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::mount_json;
use crate::output::{self, Output};

/// Check the mount of the store, or of any OverlayFS directory, and explain what differs
///
/// Without DIR the mount that the store needs is checked. With DIR and its layers that mount is checked, with DIR
/// alone it is described. Layers are compared by what they are, not by how they are called.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose check-mount --upper /srv/upper --lower /srv/lower/nix/store /srv/merged/nix/store")]
pub(crate) struct Args {
    /// The merged directory; if not given, that of the store
    #[arg(value_name = "DIR", conflicts_with = "store")]
    directory: Option<PathBuf>,
    /// The upper layer that DIR should have
    #[arg(long, value_name = "DIR", requires = "directory", requires = "lower")]
    upper: Option<PathBuf>,
    /// A lower directory that DIR should have; may be repeated, the top-most first
    #[arg(long, value_name = "DIR", requires = "directory", requires = "upper")]
    lower: Vec<PathBuf>,
    /// Print all that was found out
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let report = match (&self.directory, &self.upper) {
            (None, _) => {
                let layout = context.overlay_layout()?;
                layout.check(access_of(&layout))?
            }
            (Some(directory), Some(upper)) => self.check(directory, upper)?,
            (Some(directory), None) => {
                let mount = mount_check::describe(&absolute(directory)?)?;
                if self.json {
                    output::json(&mount_json::mount(&mount))?;
                } else {
                    print(&mount)?;
                }
                return Ok(Done::Fine);
            }
        };
        if self.json {
            output::json(&mount_json::report(&report))?;
        } else {
            print(&report)?;
        }
        Ok(Done::fine_if(report.is_as_expected()))
    }

    fn check(&self, directory: &PathBuf, upper: &PathBuf) -> Result<Report> {
        Ok(mount_check::check(&Expected {
            mount_point: &absolute(directory)?,
            lower: self.lower.iter().map(absolute).collect::<Result<_>>()?,
            upper: &absolute(upper)?,
        })?)
    }
}

fn print(found: &impl std::fmt::Display) -> Result<()> {
    let mut output = Output::open()?;
    output.text(&found.to_string())?;
    output.finish()
}

fn absolute(path: &PathBuf) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("resolve", path, error))
}
