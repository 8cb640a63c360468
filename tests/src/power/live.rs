// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold while the store is in use, after each step.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use super::check::expect_no_trash;
use super::place::Place;
use super::plan::Plan;
use crate::base;

/// Looks through the merged view as others do: the lower store shows whole, whatever left the upper layer in front of it,
/// and nothing waits for a mount to become fresh. No process is started.
///
/// # Errors
/// If anything is not so.
pub fn expect_live(place: &Place, plan: &Plan) -> Result<()> {
    for path in &plan.lower {
        let seen = place.layers.merged().join(base(path));
        plan.object(path)?
            .content
            .expect_at(&seen)
            .context("an object of the lower store, through the merged view")?;
        let found = fs::symlink_metadata(&seen)?;
        ensure!(found.nlink() > 0, "{path} shows a copy that was removed");
    }
    expect_no_trash(place)?;
    let aside = fs::read_dir(place.disk().join("aside"))?.count();
    ensure!(aside == 0, "a copy was not put into its place");
    Ok(())
}
