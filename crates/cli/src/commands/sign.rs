// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose sign`: vouch for paths.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;
use superpose_overlay::metadata::{Closure, MetadataSource};
use superpose_overlay::store_path::SecretKey;

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output;
use crate::path_arguments::PathArguments;

/// A key has about a hundred bytes, and a name.
const MAX_KEY_FILE: u64 = 64 << 10;

/// Sign what is known of valid paths, so that stores that trust the key accept them
///
/// Signatures of lower paths are kept in the upper database. The objects themselves are not looked at: `superpose verify
/// --check-contents` does that. `nix key generate-secret` makes keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose sign --key-file ./secret-key --recursive /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    /// The file with the secret key
    #[arg(short, long, value_name = "FILE")]
    key_file: PathBuf,
    /// And all that they need
    #[arg(short, long)]
    recursive: bool,
    /// Print how many signatures were added
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let key = read_key(&self.key_file)?;
        let mut store = context.store()?;
        let mut paths = PathArguments::of(store.layout()).many(&self.paths)?;
        if self.recursive {
            paths = store.metadata().closure(&paths, Closure::References)?;
        }
        let signed = store.sign(&paths, &key)?;
        if self.json {
            output::json(&json!({ "signatures": signed }))?;
        } else {
            context.note(format_args!("added {signed} signatures"));
        }
        Ok(Done::Fine)
    }
}

fn read_key(file: &Path) -> Result<SecretKey> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_KEY_FILE).read_to_end(&mut text))
        .map_err(|error| Error::io("read the key", file, error))?;
    let key = SecretKey::parse(&text).map_err(Error::usage);
    text.fill(0);
    key
}
