// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: what every command shares.

use std::ffi::OsString;

use clap::{ArgAction, Parser};

use crate::commands::Command;

/// A writable layer over a Nix store that is never written.
///
/// The store is given as a URL: by --store, else by SUPERPOSE_STORE, else by NIX_REMOTE. An overlay store is
/// local-overlay://?root=DIR&lower-store=URL&upper-layer=DIR, where DIR/nix/store is the merged view; a directory
/// stands for the local store below it; unix://SOCKET?root=DIR is a daemon's store, which only `copy` changes.
#[derive(Debug, Parser)]
#[command(
    name = "superpose",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_help = "\
Exit status: 0 done, 1 failed or found a fault, 2 wrong usage.

Example:
  export SUPERPOSE_STORE='local-overlay://?root=/srv/merged&lower-store=/srv/lower&upper-layer=/srv/upper'
  superpose run -- superpose add ./program"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct GlobalArguments {
    /// The store to work on
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Options of every command"
    )]
    pub(crate) store: Option<OsString>,
    /// Wait for locks and a busy database at most so long [default: for locks without end, for a database an hour]
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        help_heading = "Options of every command"
    )]
    pub(crate) wait: Option<u32>,
    /// Leave it to the kernel when what is added reaches the disk, as Nix does
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) no_sync: bool,
    /// Say more; twice or three times for what only developers need
    #[arg(
        short,
        long,
        global = true,
        action = ArgAction::Count,
        conflicts_with = "quiet",
        help_heading = "Options of every command"
    )]
    pub(crate) verbose: u8,
    /// Say nothing but errors
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) quiet: bool,
}
