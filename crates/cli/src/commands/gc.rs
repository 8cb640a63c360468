// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose gc`: everything out of the store that no root needs.

use serde_json::{Value, json};
use superpose_overlay::store_path::{StoreDir, StorePath};
use superpose_overlay::{CollectAction, CollectOptions, Collected, Store};

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output::{self, Output};
use crate::size_text::size_text;

/// Delete what no root needs from the upper layer, or from a local store
///
/// Roots are the links below gcroots and profiles in the state directory (see add-root), what running processes use,
/// and what they are about to use. What is in the lower store stays. Questions change nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose gc --max-freed 10G")]
pub(crate) struct Args {
    /// Stop as soon as more than so many bytes are freed; K, M, G and T stand for powers of 1024
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_freed: Option<u64>,
    /// Say what would be deleted and freed
    #[arg(long)]
    dry_run: bool,
    /// Print the roots and where they lead
    #[arg(long, group = "question", conflicts_with_all = ["max_freed", "dry_run"])]
    print_roots: bool,
    /// Print the paths of the upper layer and its database that live
    #[arg(long, group = "question", conflicts_with_all = ["max_freed", "dry_run"])]
    print_live: bool,
    /// Print those that do not
    #[arg(long, group = "question", conflicts_with_all = ["max_freed", "dry_run"])]
    print_dead: bool,
    /// Let derivations that live keep their outputs
    #[arg(long)]
    keep_outputs: bool,
    /// Do not let paths that live keep the derivations that they were built by
    #[arg(long)]
    no_keep_derivations: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let (mut store, user) = context.store_for_long_work()?;
        if self.print_roots {
            self.roots(&store)?;
            return Ok(Done::Fine);
        }
        let mut options = CollectOptions::default();
        options.keep_outputs = self.keep_outputs;
        options.keep_derivations = !self.no_keep_derivations;
        options.max_freed = self.max_freed;
        options.action = if self.print_live {
            CollectAction::ListAlive
        } else if self.print_dead || self.dry_run {
            CollectAction::Rehearse
        } else {
            CollectAction::Delete
        };
        let collected = store.collect(&options);
        user.clear();
        let collected = collected?;
        let dir = store.dir();
        if self.print_live {
            self.paths(dir, &collected.alive)?;
        } else if self.print_dead {
            let mut dead = collected.deleted;
            dead.extend(collected.forgotten);
            dead.sort_unstable();
            self.paths(dir, &dead)?;
        } else {
            self.done(context, dir, &collected)?;
        }
        Ok(Done::Fine)
    }

    fn roots(&self, store: &Store) -> Result<()> {
        let (dir, roots) = (store.dir(), store.all_roots()?);
        if self.json {
            let roots = roots
                .iter()
                .map(|root| json!({ "root": root.link.to_string_lossy(), "path": dir.join(&root.path) }));
            return output::json(&roots.collect::<Vec<_>>());
        }
        let mut output = Output::open()?;
        for root in &roots {
            output.line(format_args!(
                "{} -> {}",
                root.link.display(),
                dir.display(&root.path)
            ))?;
        }
        output.finish()
    }

    fn paths(&self, dir: &StoreDir, paths: &[StorePath]) -> Result<()> {
        if self.json {
            return output::json(&full(dir, paths));
        }
        let mut output = Output::open()?;
        for path in paths {
            output.path(dir, path)?;
            output.text("\n")?;
        }
        output.finish()
    }

    fn done(&self, context: &Context, dir: &StoreDir, collected: &Collected) -> Result<()> {
        let verb = if self.dry_run { "would be" } else { "were" };
        for path in &collected.deleted {
            context.detail(format_args!("'{}' {verb} deleted", dir.display(path)));
        }
        for path in &collected.forgotten {
            context.detail(format_args!("the row of '{}' {verb} deleted", dir.display(path)));
        }
        for name in &collected.junk {
            context.detail(format_args!(
                "'{}' {verb} deleted: it is no store path",
                name.display()
            ));
        }
        if collected.waiting > 0 {
            context.note(format_args!(
                "{} deleted objects are still in use; their space is given back by a later collection",
                collected.waiting
            ));
        }
        if self.json {
            return output::json(&self.as_json(dir, collected));
        }
        let (count, size) = (collected.deleted.len(), size_text(collected.bytes));
        if self.dry_run {
            output::line(format_args!(
                "{count} store paths would be deleted, {size} would be freed"
            ))
        } else {
            output::line(format_args!("{count} store paths deleted, {size} freed"))
        }
    }

    fn as_json(&self, dir: &StoreDir, collected: &Collected) -> Value {
        let junk = collected.junk.iter().map(|name| name.to_string_lossy());
        json!({
            "dryRun": self.dry_run,
            "deleted": full(dir, &collected.deleted),
            "forgotten": full(dir, &collected.forgotten),
            "junk": junk.collect::<Vec<_>>(),
            "linksRemoved": collected.links,
            "bytesFreed": collected.bytes,
            "inodesFreed": collected.inodes,
            "entriesRemoved": collected.entries,
            "waiting": collected.waiting,
            "remounted": collected.remounted,
        })
    }
}

fn full(dir: &StoreDir, paths: &[StorePath]) -> Vec<String> {
    paths.iter().map(|path| dir.join(path)).collect()
}

/// A number of bytes as Nix reads it.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((end, 'k' | 'K')) => (&text[..end], 10),
        Some((end, 'm' | 'M')) => (&text[..end], 20),
        Some((end, 'g' | 'G')) => (&text[..end], 30),
        Some((end, 't' | 'T')) => (&text[..end], 40),
        _ => (text, 0),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number);
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "expected a number of bytes below 2^64, such as 1000000 or 10G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_have_suffixes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("3k", Some(3 << 10)),
            ("3K", Some(3 << 10)),
            ("2M", Some(2 << 20)),
            ("1g", Some(1 << 30)),
            ("16777215T", Some(16_777_215 << 40)),
            ("16777216T", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("K", None),
            ("1.5G", None),
            ("+1", None),
            ("-1", None),
            ("1 K", None),
            ("1P", None),
            ("1é", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text:?}");
        }
    }
}
