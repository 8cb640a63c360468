// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose status`: what a store is made of, and what is wrong with it.

mod gather;
mod show;

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output::{self, Output};

/// Show layers, mount, counts and sizes of the store, what is wrong with it, and how to mend that
///
/// Works when nothing is mounted or made yet. Fails if something is wrong. The lower store is not walked: what is
/// shown costs as much as the upper layer is large.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store 'local-overlay://?root=/srv/merged&lower-store=/srv/lower&upper-layer=/srv/upper' status")]
pub(crate) struct Args {
    /// Count the paths of the lower store, too, which takes as long as it is large
    #[arg(long)]
    lower: bool,
    /// Print all as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let layout = context.layout()?;
        let status = gather::gather(
            &layout,
            if self.lower {
                gather::Lower::Count
            } else {
                gather::Lower::Skip
            },
        );
        if self.json {
            output::json(&show::json(&layout, &status))?;
        } else {
            let mut output = Output::open()?;
            show::text(&mut output, &layout, &status)?;
            output.finish()?;
        }
        Ok(Done::fine_if(status.problems.is_empty()))
    }
}
