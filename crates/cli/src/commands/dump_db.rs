// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose dump-db`: which paths are valid, as text.

use std::ffi::OsString;

use superpose_overlay::metadata::{self, MetadataSource, Registration};
use superpose_overlay::store_path::StorePath;

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output::Output;
use crate::path_arguments::PathArguments;

/// Paths that are asked about at once: bounds the memory, not the work.
const BATCH: usize = 4096;

/// Write what is known of paths as text, for `superpose load-db` or `nix-store --load-db`
///
/// Of an overlay store those that the upper database knows, unless paths are given. Signatures and content addresses are
/// not part of the text.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose dump-db >registrations")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths [default: all]
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let view = context.view()?;
        let mut output = Output::open()?;
        if !self.paths.is_empty() {
            let paths = PathArguments::of(view.layout()).many(&self.paths)?;
            dump(view, &paths, &mut output)?;
        } else {
            let source = view.upper_metadata();
            let mut paths = Vec::new();
            source.for_each_valid_path(&mut |path| {
                paths.push(path);
                Ok(())
            })?;
            paths.sort_unstable();
            dump(source, &paths, &mut output)?;
        }
        output.finish()?;
        Ok(Done::Fine)
    }
}

fn dump(source: &dyn MetadataSource, paths: &[StorePath], output: &mut Output) -> Result<()> {
    let dir = source.store_dir();
    let mut text = String::new();
    for batch in paths.chunks(BATCH) {
        for (path, info) in batch.iter().zip(source.path_infos(batch)?) {
            let info = info.ok_or_else(|| metadata::Error::NotValid { path: dir.join(path) })?;
            text.clear();
            Registration::from(&info).render(dir, &mut text);
            output.text(&text)?;
        }
    }
    Ok(())
}
