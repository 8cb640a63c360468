// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose copy`: closures from one store to another.

use std::ffi::OsString;

use serde_json::json;
use superpose_daemon::remote::{Remote, RemoteOptions};
use superpose_overlay::{CopyOptions, Recursion, SignatureCheck, Store};

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{self, Output};
use crate::path_arguments::PathArguments;
use crate::size_text::size_text;
use crate::trust::TrustArguments;

/// Copy valid objects, and all that they need, to or from another store
///
/// What the receiving store has already is not copied again, in whichever layer it is. Objects whose path does not follow
/// from their content need a signature by a trusted key; if the receiving store is a daemon's, by one that the daemon trusts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose copy --from /srv/other /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program
  superpose copy --to unix:///run/superpose.sock /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")]
pub(crate) struct Args {
    /// Store paths, base names, or links to store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    /// The store to copy to, instead of that of the command
    #[arg(long, value_name = "STORE", required_unless_present = "from")]
    to: Option<OsString>,
    /// The store to copy from, instead of that of the command
    #[arg(long, value_name = "STORE")]
    from: Option<OsString>,
    /// Only the given paths: what they need has to be there already
    #[arg(long)]
    no_recursive: bool,
    /// Ask for no signatures
    #[arg(long)]
    no_check_sigs: bool,
    #[command(flatten)]
    trust: TrustArguments,
    /// Print what was copied
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let daemons = (
            context.daemon_of(self.from.as_deref())?,
            context.daemon_of(self.to.as_deref())?,
        );
        let layout_of = |url: &Option<OsString>| match url {
            Some(url) => context.layout_of(url),
            None => context.layout(),
        };
        let mut options = CopyOptions::default();
        if self.no_recursive {
            options.recursion = Recursion::PathsOnly;
        }
        if self.no_check_sigs {
            options.signatures = SignatureCheck::Skipped;
        }
        let (mut open, user) = context.long_work()?;
        open.trusted_keys = self.trust.keys()?;
        let (dir, copied) = match daemons {
            (None, None) => {
                let (from, to) = (layout_of(&self.from)?, layout_of(&self.to)?);
                let paths = PathArguments::of(&from).many(&self.paths)?;
                // First: a database that is read already could not be opened for writing, if both stores have it.
                let mut store = Store::open(to, open)?;
                let copied = store.copy_from(context.view_of(from)?, &paths, &options)?;
                (store.dir().clone(), copied)
            }
            (Some(daemon), None) => {
                let to = layout_of(&self.to)?;
                let paths = PathArguments::of(&to).many(&self.paths)?;
                let mut remote = Remote::connect(RemoteOptions::new(daemon.socket, daemon.store_dir))?;
                let mut store = Store::open(to, open)?;
                let copied = remote.pull(&mut store, &paths, &options)?;
                (store.dir().clone(), copied)
            }
            (None, Some(daemon)) => {
                let from = layout_of(&self.from)?;
                let paths = PathArguments::of(&from).many(&self.paths)?;
                let mut remote = Remote::connect(RemoteOptions::new(daemon.socket, daemon.store_dir))?;
                let view = context.view_of(from)?;
                let copied = remote.push(view, &paths, &options, &open.watch)?;
                (view.layout().store_dir().clone(), copied)
            }
            (Some(_), Some(_)) => {
                return Err(Error::usage(
                    "both stores are those of daemons: expected that one of them is a store of this machine's directories",
                ));
            }
        };
        user.clear();
        if copied.realisations_left > 0 {
            context.note(format_args!(
                "{} realisations of content-addressed derivations were left: the receiving store has no place for them, \
                 knows others, or asks for signatures",
                copied.realisations_left
            ));
        }
        if self.json {
            let full: Vec<String> = copied.paths.iter().map(|path| dir.join(path)).collect();
            output::json(&json!({
                "copied": full,
                "bytes": copied.bytes,
                "realisations": copied.realisations,
                "realisationsLeft": copied.realisations_left,
            }))?;
            return Ok(Done::Fine);
        }
        let mut output = Output::open()?;
        output.line(format_args!(
            "{} paths copied, {}",
            copied.paths.len(),
            size_text(copied.bytes)
        ))?;
        output.finish()?;
        Ok(Done::Fine)
    }
}
