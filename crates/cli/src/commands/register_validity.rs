// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose register-validity`: objects that were put into the store by hand become valid.

use superpose_overlay::metadata::ArchiveLines;
use superpose_overlay::{Presence, RegisterOptions};

use super::Done;
use super::load_db::{finish, parse};
use crate::context::Context;
use crate::error::Result;
use crate::input::InputArgument;

/// Register objects that lie in the store directory already, in one transaction
///
/// The text has, for each path, one item per line: path, deriver or nothing, number of references, references; with
/// --hash-given the hash and the size of the archive follow the path. The objects get modes and times as all others have.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose register-validity registrations")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgument,
    /// The text says what the objects are: do not hash them
    #[arg(long)]
    hash_given: bool,
    /// Register again what is valid already
    #[arg(long)]
    reregister: bool,
    /// Print how many rows were written
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let text = self.input.text()?;
        let layout = context.layout()?;
        let archives = if self.hash_given {
            ArchiveLines::Given
        } else {
            ArchiveLines::Absent
        };
        let registrations = parse(&text, layout.store_dir(), archives)?;
        let mut options = RegisterOptions::default();
        if self.reregister {
            options.presence = Presence::Update;
        }
        let (mut store, user) = context.store_for_registrations()?;
        let done = store.register_objects(registrations, &options)?;
        user.clear();
        finish(context, done, self.json)
    }
}
