// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose path-info`: what is known of paths.

mod json;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;

use superpose_overlay::metadata::{self, Closure, MetadataSource, PathInfo};
use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Layer, StoreView};

use self::json::ClosureSizes;
use super::Done;
use crate::closure_size::closure_sizes;
use crate::context::Context;
use crate::error::Result;
use crate::order;
use crate::output::Output;
use crate::path_arguments::{self, PathArguments};

/// Show what is known of paths, as `nix path-info`
///
/// Dependencies come before dependents. In JSON, `layer` tells where the object lies and `metadata` which database
/// answered: `upper` or `lower`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "\
Example:
  superpose path-info --recursive --closure-size --json ./result",
    group(clap::ArgGroup::new("which").args(["paths", "all", "stdin"]).required(true).multiple(true))
)]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Also what the paths refer to, directly or not
    #[arg(short, long)]
    recursive: bool,
    /// Print the size of each path's archive, in bytes
    #[arg(short, long)]
    size: bool,
    /// Print the sum of the sizes of all that each path needs, itself included
    #[arg(short = 'S', long)]
    closure_size: bool,
    /// Print the layer that holds the object
    #[arg(long)]
    layer: bool,
    /// Print everything as JSON; null for a path that is not valid
    #[arg(long)]
    json: bool,
    /// The form of the JSON, as in Nix 2.33 and newer: 1, 2 or 3
    #[arg(
        long,
        value_name = "VERSION",
        default_value_t = 1,
        hide_default_value = true,
        value_parser = clap::value_parser!(u8).range(1..=3),
        requires = "json"
    )]
    json_format: u8,
    /// All valid paths of both layers
    #[arg(long, conflicts_with_all = ["paths", "stdin"])]
    all: bool,
    /// Read more paths from standard input, one on a line
    #[arg(long)]
    stdin: bool,
}

/// What was found out about one path.
struct Known {
    path: StorePath,
    /// `None` if the path is not valid.
    info: Option<PathInfo>,
    /// In bytes; 0 unless wanted.
    closure_size: u64,
}

impl Known {
    fn new(info: PathInfo, closure_size: u64) -> Self {
        Known {
            path: info.path.clone(),
            info: Some(info),
            closure_size,
        }
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let view = context.view()?;
        let paths = self.wanted(view)?;
        let mut output = Output::open()?;
        if self.json {
            let known = self.ask(view, paths)?;
            let sizes = if self.closure_size {
                ClosureSizes::Shown
            } else {
                ClosureSizes::Left
            };
            json::print(&mut output, view, known, self.json_format, sizes)?;
        } else if self.recursive && !(self.size || self.closure_size || self.layer) {
            // Nothing but names: much less to read from the database.
            for path in view.closure(&paths, Closure::References)? {
                output.path(view.store_dir(), &path)?;
                output.text("\n")?;
            }
        } else {
            let mut known = self.ask(view, paths)?;
            if !self.recursive {
                known = dependencies_first(view, known)?;
            }
            self.print(&mut output, view, &known)?;
        }
        output.finish()?;
        Ok(Done::Fine)
    }

    /// The paths that were named.
    fn wanted(&self, view: &StoreView) -> Result<Vec<StorePath>> {
        let mut paths = Vec::new();
        if self.all {
            view.for_each_valid_path(&mut |path| {
                paths.push(path);
                Ok(())
            })?;
            return Ok(paths);
        }
        let arguments = PathArguments::of(view.layout());
        if !self.stdin {
            return arguments.many(&self.paths);
        }
        let mut all = self.paths.clone();
        all.extend(path_arguments::from_standard_input()?);
        arguments.many(&all)
    }

    /// What there is to know, dependencies first if all that the paths need is wanted.
    fn ask(&self, view: &StoreView, wanted: Vec<StorePath>) -> Result<Vec<Known>> {
        let nothing = |path| Known {
            path,
            info: None,
            closure_size: 0,
        };
        if !self.recursive && !self.closure_size {
            let infos = view.path_infos(&wanted)?;
            let both = wanted.into_iter().zip(infos);
            return Ok(both
                .map(|(path, info)| info.map_or_else(|| nothing(path), |info| Known::new(info, 0)))
                .collect());
        }
        let mut roots = wanted.clone();
        if self.json && !self.recursive {
            // The others become null, and must not be walked from.
            let mut valid = view.are_valid(&roots)?.into_iter();
            roots.retain(|_| valid.next() == Some(true));
        }
        let infos = view.closure_infos(&roots, &mut |paths| Ok(vec![false; paths.len()]))?;
        let sizes = if self.closure_size {
            closure_sizes(&infos)
        } else {
            vec![0; infos.len()]
        };
        let known = infos
            .into_iter()
            .zip(sizes)
            .map(|(info, size)| Known::new(info, size));
        if self.recursive {
            return Ok(known.collect());
        }
        let asked: HashSet<&StorePath> = wanted.iter().collect();
        let mut known: HashMap<StorePath, Known> = known
            .filter(|known| asked.contains(&known.path))
            .map(|known| (known.path.clone(), known))
            .collect();
        Ok(wanted
            .into_iter()
            .map(|path| known.remove(&path).unwrap_or_else(|| nothing(path)))
            .collect())
    }

    /// Prints one line for each path, with tabs between the columns.
    fn print(&self, output: &mut Output, view: &StoreView, known: &[Known]) -> Result<()> {
        let layers = if self.layer {
            view.locate(&known.iter().map(|known| known.path.clone()).collect::<Vec<_>>())?
        } else {
            Vec::new()
        };
        let longest = known
            .iter()
            .map(|known| known.path.base_name().len())
            .max()
            .unwrap_or(0);
        for (number, known) in known.iter().enumerate() {
            output.path(view.store_dir(), &known.path)?;
            if self.size || self.closure_size || self.layer {
                output.text(&" ".repeat(longest - known.path.base_name().len()))?;
            }
            let size = known.info.as_ref().map_or(0, |info| info.nar_size);
            for (wanted, size) in [(self.size, size), (self.closure_size, known.closure_size)] {
                if wanted {
                    output.text(&format!("\t{size:>11}"))?;
                }
            }
            if let Some(layer) = layers.get(number) {
                output.text(if *layer == Layer::Upper {
                    "\tupper"
                } else {
                    "\tlower"
                })?;
            }
            output.text("\n")?;
        }
        Ok(())
    }
}

/// Refuses what is not valid, and puts dependencies first.
fn dependencies_first(view: &StoreView, known: Vec<Known>) -> Result<Vec<Known>> {
    let mut edges = Vec::new();
    for known in &known {
        let Some(info) = &known.info else {
            return Err(metadata::Error::NotValid {
                path: view.store_dir().join(&known.path),
            }
            .into());
        };
        edges.extend(
            info.references
                .iter()
                .map(|reference| (known.path.clone(), reference.clone())),
        );
    }
    let order = order::dependencies_first(known.iter().map(|known| known.path.clone()).collect(), &edges);
    let mut by_path: HashMap<StorePath, Known> = known
        .into_iter()
        .map(|known| (known.path.clone(), known))
        .collect();
    Ok(order.iter().filter_map(|path| by_path.remove(path)).collect())
}
