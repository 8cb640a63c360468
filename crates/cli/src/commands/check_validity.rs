// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose check-validity`: are paths valid?

use std::collections::BTreeMap;
use std::ffi::OsString;

use superpose_overlay::metadata::{self, MetadataSource};

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output::{self, Output};
use crate::path_arguments::PathArguments;

/// Tell whether paths are valid, in whichever layer
///
/// Fails on the first one that is not. Files are not looked at; `superpose verify` does that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose check-validity /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    /// Print the paths that are not valid, and do not fail
    #[arg(long)]
    print_invalid: bool,
    /// Print an object of paths and whether each is valid; fail if one is not
    #[arg(long, conflicts_with = "print_invalid")]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let view = context.view()?;
        let paths = PathArguments::of(view.layout()).many(&self.paths)?;
        let dir = view.store_dir();
        let valid = view.are_valid(&paths)?;
        if self.json {
            let answer: BTreeMap<_, _> = paths.iter().map(|path| dir.join(path)).zip(&valid).collect();
            output::json(&answer)?;
            return Ok(Done::fine_if(valid.iter().all(|&valid| valid)));
        }
        let mut invalid = paths
            .iter()
            .zip(&valid)
            .filter(|(_, valid)| !**valid)
            .map(|(path, _)| path);
        if !self.print_invalid {
            return match invalid.next() {
                Some(path) => Err(metadata::Error::NotValid { path: dir.join(path) }.into()),
                None => Ok(Done::Fine),
            };
        }
        let mut output = Output::open()?;
        for path in invalid {
            output.line(dir.display(path))?;
        }
        output.finish()?;
        Ok(Done::Fine)
    }
}
