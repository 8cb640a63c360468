// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose query`: one thing about paths, as `nix-store --query`.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};
use superpose_overlay::metadata::{self, Closure, MetadataSource, PathInfo};
use superpose_overlay::store_path::{HashEncoding, HashPart, StorePath};
use superpose_overlay::{Root, StoreView};

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::order;
use crate::output::{self, Output};
use crate::path_arguments::PathArguments;

/// Ask one thing about paths, as `nix-store --query`
///
/// Lists are the union over all arguments, with dependencies before dependents (referrers: by name); of what belongs to one path there
/// is one line for each argument.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose query --referrers /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    #[command(flatten)]
    question: Question,
    /// Store paths, base names, or links to store paths
    #[arg(
        value_name = "PATH",
        required_unless_present = "hash_part",
        conflicts_with = "hash_part"
    )]
    paths: Vec<OsString>,
    /// Print an array, or an object by path
    #[arg(long)]
    json: bool,
}

/// What is asked; exactly one.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Question {
    /// What the paths refer to
    #[arg(long, help_heading = "Questions")]
    references: bool,
    /// What refers to the paths
    #[arg(long, help_heading = "Questions")]
    referrers: bool,
    /// What refers to the paths, directly or not, and they themselves
    #[arg(long, help_heading = "Questions")]
    referrers_closure: bool,
    /// What the paths refer to, directly or not, and they themselves
    #[arg(long, short = 'R', help_heading = "Questions")]
    requisites: bool,
    /// The derivation each path was built from, or unknown-deriver
    #[arg(long, short, help_heading = "Questions")]
    deriver: bool,
    /// The valid derivations that the paths are outputs of
    #[arg(long, help_heading = "Questions")]
    valid_derivers: bool,
    /// The outputs of derivations
    #[arg(long, help_heading = "Questions")]
    outputs: bool,
    /// The hash of each path's archive
    #[arg(long, help_heading = "Questions")]
    hash: bool,
    /// The size of each path's archive, in bytes
    #[arg(long, help_heading = "Questions")]
    size: bool,
    /// The roots that keep the paths from being collected
    #[arg(long, help_heading = "Questions")]
    roots: bool,
    /// The path that begins with these 32 digits
    #[arg(long, value_name = "PART", help_heading = "Questions")]
    hash_part: Option<OsString>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let question = &self.question;
        let view = context.view()?;
        if let Some(part) = &question.hash_part {
            return self.hash_part(view, part);
        }
        let paths = PathArguments::of(view.layout()).many(&self.paths)?;
        let list = if question.roots {
            return self.roots(view, &paths);
        } else if question.references {
            references(view, &paths)?
        } else if question.referrers {
            referrers(view, &paths)?
        } else if question.referrers_closure {
            let mut list = view.closure(&paths, Closure::Referrers)?;
            // The walk gives dependents first.
            list.reverse();
            list
        } else if question.requisites {
            view.closure(&paths, Closure::References)?
        } else if question.valid_derivers {
            sorted(view, view.valid_derivers(&paths)?.into_iter().flatten().collect())?
        } else if question.outputs {
            outputs(view, &paths)?
        } else {
            return self.values(view, &paths);
        };
        self.print(view, &list)
    }

    /// Prints a list of paths.
    fn print(&self, view: &StoreView, paths: &[StorePath]) -> Result<Done> {
        let dir = view.store_dir();
        let mut output = Output::open()?;
        if self.json {
            output.json(&paths.iter().map(|path| dir.join(path)).collect::<Vec<_>>())?;
        } else {
            for path in paths {
                output.path(dir, path)?;
                output.text("\n")?;
            }
        }
        output.finish()?;
        Ok(Done::Fine)
    }

    /// Prints one value for each path.
    fn values(&self, view: &StoreView, paths: &[StorePath]) -> Result<Done> {
        let dir = view.store_dir();
        let value = |info: &PathInfo| {
            if self.question.deriver {
                info.deriver
                    .as_ref()
                    .map_or(Value::Null, |deriver| dir.join(deriver).into())
            } else if self.question.hash {
                info.nar_hash.render(HashEncoding::Nix32).into()
            } else {
                info.nar_size.into()
            }
        };
        let infos = valid_infos(view, paths)?;
        if self.json {
            let values: BTreeMap<_, _> = infos
                .iter()
                .map(|info| (dir.join(&info.path), value(info)))
                .collect();
            output::json(&values)?;
            return Ok(Done::Fine);
        }
        let mut output = Output::open()?;
        for info in &infos {
            match value(info) {
                Value::Null => output.line("unknown-deriver")?,
                Value::String(text) => output.line(text)?,
                other => output.line(other)?,
            }
        }
        output.finish()?;
        Ok(Done::Fine)
    }

    fn hash_part(&self, view: &StoreView, part: &OsString) -> Result<Done> {
        let part = HashPart::parse(part.as_bytes()).map_err(Error::usage)?;
        match view.path_from_hash_part(&[part])?.into_iter().next().flatten() {
            Some(path) if self.json => output::json(&view.store_dir().join(&path))?,
            Some(path) => output::line(view.store_dir().display(&path))?,
            None => return Err(Error::failed(format!("no valid path begins with '{part}'"))),
        }
        Ok(Done::Fine)
    }

    /// The roots of the paths, and of all that needs them.
    fn roots(&self, view: &StoreView, paths: &[StorePath]) -> Result<Done> {
        let dir = view.store_dir();
        let kept_by: HashSet<StorePath> = view.closure(paths, Closure::Referrers)?.into_iter().collect();
        let mut roots = view.roots()?;
        roots.retain(|root| kept_by.contains(&root.path));
        roots.sort_unstable();
        let mut output = Output::open()?;
        if self.json {
            let entry =
                |root: &Root| json!({ "link": root.link.to_string_lossy(), "path": dir.join(&root.path) });
            output.json(&roots.iter().map(entry).collect::<Vec<_>>())?;
        } else {
            for root in &roots {
                output.line(format_args!(
                    "{} -> {}",
                    root.link.display(),
                    dir.display(&root.path)
                ))?;
            }
        }
        output.finish()?;
        Ok(Done::Fine)
    }
}

/// What is known of paths that all have to be valid.
fn valid_infos(view: &StoreView, paths: &[StorePath]) -> Result<Vec<PathInfo>> {
    let infos = view.path_infos(paths)?.into_iter().zip(paths);
    infos
        .map(|(info, path)| info.ok_or_else(|| not_valid(view, path)))
        .collect()
}

fn not_valid(view: &StoreView, path: &StorePath) -> Error {
    metadata::Error::NotValid {
        path: view.store_dir().join(path),
    }
    .into()
}

fn references(view: &StoreView, paths: &[StorePath]) -> Result<Vec<StorePath>> {
    let infos = valid_infos(view, paths)?;
    sorted(view, infos.into_iter().flat_map(|info| info.references).collect())
}

/// Puts dependencies first.
fn sorted(view: &StoreView, paths: Vec<StorePath>) -> Result<Vec<StorePath>> {
    let infos = view.path_infos(&paths)?;
    let edges: Vec<_> = infos
        .into_iter()
        .flatten()
        .flat_map(|info| {
            info.references
                .into_iter()
                .map(move |reference| (info.path.clone(), reference))
        })
        .collect();
    Ok(order::dependencies_first(paths, &edges))
}

/// The referrers of all paths, by name.
///
/// # Deviation
/// Nix puts dependencies before dependents here too, for which it reads the references of every referrer: of a library
/// that everything uses, those of the whole store.
fn referrers(view: &StoreView, paths: &[StorePath]) -> Result<Vec<StorePath>> {
    let mut list: Vec<StorePath> = view.referrers(paths)?.into_iter().flatten().collect();
    // Those of one path are sorted.
    if paths.len() > 1 {
        list.sort_unstable();
        list.dedup();
    }
    Ok(list)
}

fn outputs(view: &StoreView, paths: &[StorePath]) -> Result<Vec<StorePath>> {
    if let Some(path) = paths.iter().find(|path| !path.is_derivation()) {
        return Err(Error::usage(format!(
            "'{}' is not a derivation",
            view.store_dir().display(path)
        )));
    }
    let mut list = Vec::new();
    for (path, outputs) in paths.iter().zip(view.derivation_outputs(paths)?) {
        let outputs = outputs.ok_or_else(|| not_valid(view, path))?;
        list.extend(outputs.into_iter().map(|(_, output)| output));
    }
    Ok(list)
}
