// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose load-db`: paths become valid by a text.

use serde_json::json;
use superpose_overlay::Registered;
use superpose_overlay::metadata::{ArchiveLines, Registration, RegistrationText};
use superpose_overlay::store_path::StoreDir;

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::input::InputArgument;
use crate::output;

/// Register all paths of a text that `superpose dump-db` or `nix-store --dump-db` wrote, in one transaction
///
/// The objects are not looked at; `superpose verify` tells whether they are there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose load-db registrations")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgument,
    /// Print how many rows were written
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let text = self.input.text()?;
        let layout = context.layout()?;
        let registrations = parse(&text, layout.store_dir(), ArchiveLines::Given)?;
        let (mut store, user) = context.store_for_registrations()?;
        let done = store.load(registrations)?;
        user.clear();
        finish(context, done, self.json)
    }
}

/// All registrations of a text: one that is wrong anywhere registers nothing.
pub(super) fn parse(text: &[u8], dir: &StoreDir, archives: ArchiveLines) -> Result<Vec<Registration>> {
    let all: Result<Vec<_>, _> = RegistrationText::new(text, dir, archives).collect();
    Ok(all?)
}

pub(super) fn finish(context: &Context, done: Registered, json: bool) -> Result<Done> {
    if json {
        output::json(&json!({ "registered": done.registered, "copied": done.copied }))?;
    } else {
        context.detail(format_args!(
            "{} paths registered, {} rows copied from below",
            done.registered, done.copied
        ));
    }
    Ok(Done::Fine)
}
