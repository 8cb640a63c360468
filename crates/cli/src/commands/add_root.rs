// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose add-root`: keep an object from being collected.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use superpose_overlay::Store;
use superpose_overlay::store_path::StorePath;

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::path_arguments::PathArguments;

/// Make a symbolic link to a valid path that keeps it, and all that it needs, from being collected
///
/// Remove the link to give the path up. A link that points into the store already is replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose add-root ./result /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    /// The link to make
    link: PathBuf,
    /// A store path, a base name, or a link to a store path
    #[arg(value_name = "PATH")]
    path: OsString,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let store = context.store()?;
        let path = PathArguments::of(store.layout()).one(&self.path)?;
        add(&store, &self.link, &path)?;
        Ok(Done::Fine)
    }
}

/// Makes the link, relative to the working directory.
pub(super) fn add(store: &Store, link: &Path, path: &StorePath) -> Result<()> {
    let link = std::path::absolute(link).map_err(|error| Error::io("resolve", link, error))?;
    Ok(store.add_root(&link, path)?)
}
