// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose import`: the objects of a stream into the store.

use serde_json::{Value, json};
use superpose_overlay::Imported;
use superpose_overlay::store_path::StoreDir;

use super::Done;
use super::add::outcome_words;
use crate::context::Context;
use crate::error::Result;
use crate::input::InputArgument;
use crate::output::{self, Output};

/// Add the objects of a stream that `superpose export` or `nix-store --export` wrote, and print their paths
///
/// Nothing is written for what is valid already, in whichever layer. No signatures are asked for: import only what you
/// trust.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose import program.export")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgument,
    /// Print paths and what had to be done
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let mut stream = self.input.open()?;
        let (mut store, user) = context.store_for_long_work()?;
        let imported = store.import(&mut stream)?;
        user.clear();
        let dir = store.dir();
        if self.json {
            output::json(&imported.iter().map(|one| as_json(dir, one)).collect::<Vec<_>>())?;
            return Ok(Done::Fine);
        }
        let mut output = Output::open()?;
        for one in &imported {
            output.line(dir.display(&one.path))?;
        }
        output.finish()?;
        Ok(Done::Fine)
    }
}

fn as_json(dir: &StoreDir, imported: &Imported) -> Value {
    let (outcome, layer) = outcome_words(imported.outcome);
    json!({ "path": dir.join(&imported.path), "outcome": outcome, "layer": layer })
}
