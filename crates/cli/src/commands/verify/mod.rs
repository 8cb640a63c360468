// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose verify`: is what is recorded also there, and the other way round?

mod show;

use std::ffi::OsString;

use superpose_overlay::{Contents, Obstacle, Repaired, Store, StoreView, VerifyOptions};

use super::Done;
use crate::context::Context;
use crate::error::Result;
use crate::output::{self, Output};
use crate::trust::TrustArguments;

/// Compare what the upper database knows (of a local store: its database) with what is on the disk, and repair it
///
/// Every row is looked at, and every name in the layer. Fails if something is wrong and not repaired. Rows of objects that are gone and that nothing needs are deleted, as Nix
/// does it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose verify --check-contents --repair --from /srv/good-store")]
pub(crate) struct Args {
    /// Hash every object and every entry of the hard-link farm, too
    #[arg(long)]
    check_contents: bool,
    /// Mend what needs nothing from elsewhere: whiteouts over valid objects, the hard-link farm, hashes and sizes that are
    /// not recorded; with --from objects as well
    #[arg(long)]
    repair: bool,
    /// Take good objects from this store; they come into the upper layer, also if the fault is below
    #[arg(long, value_name = "URL", requires = "repair")]
    from: Option<OsString>,
    /// Report paths that fewer than N trusted keys have signed, unless they follow from their content
    #[arg(long, value_name = "N")]
    sigs_needed: Option<usize>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Print what was looked at, all faults and all notes
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        // What cannot be opened is said before anything long begins.
        let from = match &self.from {
            Some(url) => Some(StoreView::open_verified(&context.layout_of(url)?)?),
            None => None,
        };
        let (mut open, user) = context.long_work()?;
        open.trusted_keys = self.trust.keys()?;
        let mut store = Store::open(context.layout()?, open)?;
        let mut options = VerifyOptions::default();
        if self.check_contents {
            options.contents = Contents::Check;
        }
        let report = store.verify(&options)?;
        let repaired = match self.repair {
            true => Some(store.repair(&report, from.as_ref())?),
            false => None,
        };
        let untrusted = match self.sigs_needed {
            Some(needed) => store.untrusted(needed)?,
            None => Vec::new(),
        };
        user.clear();
        let dir = store.dir();
        if self.json {
            let mut found = show::json(dir, &report, repaired.as_ref());
            if self.sigs_needed.is_some() {
                found["untrusted"] = show::untrusted_json(dir, &untrusted);
            }
            output::json(&found)?;
        } else {
            let mut output = Output::open()?;
            show::text(&mut output, dir, &report, repaired.as_ref())?;
            show::untrusted(&mut output, dir, &untrusted)?;
            output.finish()?;
        }
        let sourceless = repaired.as_ref().map_or(0, without_source);
        if sourceless > 0 {
            context.note(format_args!(
                "{sourceless} objects need a good copy: name a store that has them with --from"
            ));
        }
        let is_left = |name| repaired.as_ref().is_none_or(|repaired| stays(repaired, name));
        Ok(Done::fine_if(
            untrusted.is_empty() && !report.faults.iter().any(|fault| is_left(fault.name())),
        ))
    }
}

/// Whether the fault of this name stays.
fn stays(repaired: &Repaired, name: &std::ffi::OsStr) -> bool {
    repaired.left.iter().any(|(left, _)| left == name)
}

fn without_source(repaired: &Repaired) -> usize {
    let left = repaired.left.iter();
    left.filter(|(_, obstacle)| matches!(obstacle, Obstacle::NoSource))
        .count()
}
