// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose umount`: removes the mount of an overlay store.

use superpose_overlay::mounting::{self, Detach};

use super::Done;
use crate::context::Context;
use crate::error::Result;

/// Unmount the merged view of the store
///
/// The layers stay as they are. If something uses the mount, it is named.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store 'local-overlay://?root=/srv/merged&lower-store=/srv/lower&upper-layer=/srv/upper' umount")]
pub(crate) struct Args {
    /// Unmount although something uses it; do not mount again before that has ended
    #[arg(long)]
    lazy: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let layout = context.overlay_layout()?;
        let detach = if self.lazy {
            Detach::Lazily
        } else {
            Detach::WhenIdle
        };
        mounting::unmount(layout.merged(), detach)?;
        context.detail(format_args!("unmounted '{}'", layout.merged().display()));
        Ok(Done::Fine)
    }
}
