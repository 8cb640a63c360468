// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose add`: files and directories into the store.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};
use superpose_overlay::store_path::{ContentMethod, HashAlgorithm, HashEncoding, Name, References, StoreDir};
use superpose_overlay::{AddOptions, Added, Outcome, Source, Store};

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{self, Output};
use crate::path_arguments::PathArguments;

/// Add files or directories, and print their store paths
///
/// Nothing is written for what is valid already, in whichever layer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose add --name program --add-root ./result ./build/program")]
pub(crate) struct Args {
    /// Files, directories or symbolic links
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Name of the object [default: last component of PATH]
    #[arg(long)]
    name: Option<OsString>,
    /// What is hashed
    #[arg(long, value_enum, default_value_t = Method::Nar)]
    method: Method,
    /// The hash: md5, sha1, sha256 or sha512
    #[arg(long, value_name = "ALGORITHM", default_value = "sha256")]
    hash_algo: HashAlgorithm,
    #[command(flatten)]
    common: Common,
}

/// What the ways to add objects share.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// A store path that the object refers to; may be repeated
    #[arg(long = "reference", value_name = "STORE-PATH")]
    references: Vec<OsString>,
    /// Make LINK a symbolic link to the object that keeps it from being collected
    #[arg(long, value_name = "LINK")]
    add_root: Option<PathBuf>,
    /// Print paths, hashes and what had to be done
    #[arg(long)]
    json: bool,
}

/// How the content is turned into bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The archive of a file or directory
    Nar,
    /// The bytes of a regular file
    Flat,
    /// The bytes of a regular file that may refer to other objects
    Text,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        if self.paths.len() > 1 && (self.name.is_some() || self.common.add_root.is_some()) {
            return Err(Error::usage(
                "--name and --add-root are for one path: give one, or leave them out",
            ));
        }
        let named: Vec<(Name, &Path)> = self
            .paths
            .iter()
            .map(|path| Ok((self.name_for(path)?, path.as_path())))
            .collect::<Result<_>>()?;
        let mut store = context.store()?;
        let references = self.common.references(&store)?;
        let method = match self.method {
            Method::Nar => ContentMethod::Nar,
            Method::Flat => ContentMethod::Flat,
            Method::Text => ContentMethod::Text,
        };
        let mut added = Vec::with_capacity(named.len());
        for (name, path) in named {
            let options = AddOptions::source(name)
                .with_method(method, self.hash_algo)
                .with_references(references.clone());
            added.push(store.add(Source::Path(path), &options)?);
        }
        self.common.finish(&store, &added)
    }

    fn name_for(&self, path: &Path) -> Result<Name> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => std::path::absolute(path)
                .ok()
                .and_then(|path| Some(path.file_name()?.to_owned()))
                .ok_or_else(|| {
                    Error::usage(format!("'{}' has no name: give one with --name", path.display()))
                })?,
        };
        Name::new(name.as_bytes()).map_err(|error| {
            let error = Error::usage(error);
            if self.name.is_some() {
                error
            } else {
                error.with_hint("give another name with --name")
            }
        })
    }
}

impl Common {
    /// The references that were given.
    pub(super) fn references(&self, store: &Store) -> Result<References> {
        let paths = PathArguments::of(store.layout()).many(&self.references)?;
        let mut references = References::default();
        references.others.extend(paths);
        Ok(references)
    }

    /// Makes the root, and prints what was added.
    pub(super) fn finish(&self, store: &Store, added: &[Added]) -> Result<Done> {
        if let (Some(link), [added]) = (&self.add_root, added) {
            super::add_root::add(store, link, &added.path)?;
        }
        if self.json {
            let dir = store.dir();
            output::json(&added.iter().map(|added| as_json(dir, added)).collect::<Vec<_>>())?;
            return Ok(Done::Fine);
        }
        let mut output = Output::open()?;
        for added in added {
            output.line(store.dir().display(&added.path))?;
        }
        output.finish()?;
        Ok(Done::Fine)
    }
}

fn as_json(dir: &StoreDir, added: &Added) -> Value {
    let (outcome, layer) = outcome_words(added.outcome);
    json!({
        "path": dir.join(&added.path),
        "narHash": added.nar.hash.render(HashEncoding::Sri),
        "narSize": added.nar.size,
        "outcome": outcome,
        "layer": layer,
    })
}

/// What had to be done, and the layer that the object is in, in the words of JSON output.
pub(super) fn outcome_words(outcome: Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Stored => ("stored", "upper".to_owned()),
        Outcome::AlreadyValid(layer) => ("already-valid", layer.to_string()),
    }
}
