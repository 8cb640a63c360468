// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose add-nar`: an archive into the store.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use superpose_overlay::store_path::Name;
use superpose_overlay::{AddOptions, Source};

use super::Done;
use super::add::Common;
use crate::context::Context;
use crate::error::{Error, Result};

/// Add the object in an archive (NAR), and print its store path
///
/// Nothing is written if it is valid already, in whichever layer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store /srv/other dump /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program \\
    | superpose add-nar --name program")]
pub(crate) struct Args {
    /// The archive; standard input if it is `-` or not given
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// Name of the object
    #[arg(long)]
    name: OsString,
    #[command(flatten)]
    common: Common,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let name = Name::new(self.name.as_bytes()).map_err(Error::usage)?;
        let mut archive: Box<dyn Read> = if self.file == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(&self.file).map_err(|error| Error::io("open", &self.file, error))?)
        };
        let mut store = context.store()?;
        let references = self.common.references(&store)?;
        let options = AddOptions::source(name).with_references(references);
        let added = store.add(Source::Nar(&mut archive), &options)?;
        self.common.finish(&store, &[added])
    }
}
