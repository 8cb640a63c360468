// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose remount`: makes the mount of an overlay store fresh.

use super::Done;
use crate::context::Context;
use crate::error::Result;

/// Make the kernel forget what it remembers of the layers
///
/// Needed when the lower store has grown, and when a deletion could not do it itself. The remount hook is run if the
/// store URL has one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store 'local-overlay://?root=/srv/merged&lower-store=/srv/lower&upper-layer=/srv/upper' remount")]
pub(crate) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        context.overlay_layout()?;
        // Opening it finishes what an interrupted removal had begun, to which a remount may belong.
        context.store()?.refresh_mount()?;
        Ok(Done::Fine)
    }
}
