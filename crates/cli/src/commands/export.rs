// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose export`: objects as one stream.

use std::ffi::OsString;

use superpose_overlay::Watch;
use superpose_overlay::metadata::{Closure, MetadataSource};

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output;
use crate::path_arguments::PathArguments;

/// Write valid objects and their references to standard output, for `superpose import` or `nix-store --import`
///
/// Each object is compared with what was registered while it is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose export --recursive /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program >program.export")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    /// And all that they need
    #[arg(short, long)]
    recursive: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        if output::is_terminal() {
            return Err(Error::usage(
                "objects are not written to a terminal: redirect standard output",
            ));
        }
        let view = context.view()?;
        let mut paths = PathArguments::of(view.layout()).many(&self.paths)?;
        if self.recursive {
            paths = view.closure(&paths, Closure::References)?;
        }
        let user = context.user();
        match view.export(&paths, &mut output::raw()?, &Watch::new(user.clone())) {
            Ok(exported) => {
                user.clear();
                context.detail(format_args!(
                    "{} objects exported, {} bytes",
                    exported.objects, exported.bytes
                ));
                Ok(Done::Fine)
            }
            Err(superpose_overlay::Error::WriteExport { source }) => Err(Error::output(source)),
            Err(error) => Err(error.into()),
        }
    }
}
