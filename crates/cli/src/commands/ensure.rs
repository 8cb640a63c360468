// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose ensure`: make lower paths known above.

use std::ffi::OsString;

use serde_json::json;

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output;
use crate::path_arguments::PathArguments;

/// Make the closures of valid paths known to the upper database
///
/// Rows that are only below are copied, in one transaction; objects are not. Nix needs this before it lets objects
/// refer to lower ones; superpose does it by itself when it adds objects.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose ensure /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    /// Print how many rows were copied
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let mut store = context.store()?;
        let paths = PathArguments::of(store.layout()).many(&self.paths)?;
        let done = store.ensure(&paths)?;
        if self.json {
            output::json(&json!({ "copied": done.copied }))?;
        } else {
            context.detail(format_args!("{} rows copied from below", done.copied));
        }
        Ok(Done::Fine)
    }
}
