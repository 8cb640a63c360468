// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose delete`: named paths out of the store.

use std::ffi::OsString;

use serde_json::json;
use superpose_overlay::{DeleteOptions, Deleted, Liveness};

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output;
use crate::path_arguments::PathArguments;
use crate::size_text::size_text;

/// Delete paths that nothing needs from the upper layer, or from a local store
///
/// All of them or none. A path that the lower store has stays valid: only its copy above goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose delete /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    /// Delete even what a root keeps; what a referrer or a running operation needs stays
    #[arg(long)]
    ignore_liveness: bool,
    /// Print what was deleted and freed
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let mut store = context.store()?;
        let paths = PathArguments::of(store.layout()).many(&self.paths)?;
        let mut options = DeleteOptions::default();
        if self.ignore_liveness {
            options.liveness = Liveness::Ignore;
        }
        let deleted = store.delete(&paths, &options)?;
        let dir = store.dir();
        for path in &deleted.below {
            context.note(format_args!(
                "'{}' stays valid: the lower store has it",
                dir.display(path)
            ));
        }
        if deleted.waiting > 0 {
            context.note(format_args!(
                "{} deleted objects are still in use; their space is given back by a later deletion",
                deleted.waiting
            ));
        }
        if self.json {
            let full = |paths: &[_]| paths.iter().map(|path| dir.join(path)).collect::<Vec<_>>();
            output::json(&json!({
                "deleted": full(&deleted.deleted),
                "below": full(&deleted.below),
                "bytesFreed": deleted.bytes,
                "entriesRemoved": deleted.entries,
                "waiting": deleted.waiting,
                "remounted": deleted.remounted,
            }))?;
        } else {
            output::line(summary(&deleted))?;
        }
        Ok(Done::Fine)
    }
}

/// The line that Nix ends with.
fn summary(deleted: &Deleted) -> String {
    format!(
        "{} store paths deleted, {} freed",
        deleted.deleted.len(),
        size_text(deleted.bytes)
    )
}
