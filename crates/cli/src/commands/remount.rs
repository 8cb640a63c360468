// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose remount`: makes the mount of an overlay store fresh.

use superpose_overlay::{Layout, Store};

use super::Done;
use crate::context::Context;
use crate::error::Result;

/// Make the kernel forget what it remembers of the layers
///
/// Needed when the lower store has grown, and when a deletion could not do it itself. A remount hook of the store URL is
/// left out: this is the way out when a hook fails, and what a hook may call.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store 'local-overlay://?root=/srv/merged&lower-store=/srv/lower&upper-layer=/srv/upper' remount")]
pub(crate) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let mut layout = context.overlay_layout()?;
        // A hook may call this very command, and this is the way out when a hook fails.
        layout.remount_hook = None;
        // Opening it finishes what an interrupted removal had begun, to which a remount may belong.
        let store = Store::open(Layout::Overlay(layout), context.open_options()?)?;
        store.refresh_mount()?;
        Ok(Done::Fine)
    }
}
