// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands: one module each, with its arguments beside it.

mod add;
mod add_nar;
mod add_root;
mod check_mount;
mod check_validity;
mod copy;
mod delete;
mod dump;
mod dump_db;
mod ensure;
mod export;
mod gc;
mod import;
mod load_db;
mod mount;
mod optimise;
mod path_info;
mod query;
mod register_validity;
mod remount;
mod restore;
mod run;
mod serve;
mod sign;
mod status;
mod umount;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;
use superpose_overlay::OverlayLayout;
use superpose_overlay::mount_check::Access;

use crate::context::Context;
use crate::error::Result;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::Args),
    CheckMount(check_mount::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Remount(remount::Args),
    Run(run::Args),
    PathInfo(path_info::Args),
    Query(query::Args),
    CheckValidity(check_validity::Args),
    Ensure(ensure::Args),
    Add(add::Args),
    AddNar(add_nar::Args),
    Dump(dump::Args),
    Restore(restore::Args),
    Export(export::Args),
    Import(import::Args),
    Copy(copy::Args),
    Delete(delete::Args),
    Gc(gc::Args),
    AddRoot(add_root::Args),
    Optimise(optimise::Args),
    Verify(verify::Args),
    Serve(serve::Args),
    Sign(sign::Args),
    DumpDb(dump_db::Args),
    LoadDb(load_db::Args),
    RegisterValidity(register_validity::Args),
}

/// What a store's mount has to be good for.
fn access_of(layout: &OverlayLayout) -> Access {
    if layout.settings.read_only {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    }
}

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is well.
    Fine,
    /// What was looked for was found to be wrong; that is what the command says, not an error.
    Fault,
}

impl Done {
    /// A fault if there is anything to complain about.
    fn fine_if(fine: bool) -> Self {
        if fine { Done::Fine } else { Done::Fault }
    }
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        match done {
            Done::Fine => ExitCode::SUCCESS,
            Done::Fault => ExitCode::FAILURE,
        }
    }
}

impl Command {
    /// Does it.
    pub(crate) fn run(&self, context: &Context) -> Result<Done> {
        match self {
            Command::Status(args) => args.run(context),
            Command::CheckMount(args) => args.run(context),
            Command::Mount(args) => args.run(context),
            Command::Umount(args) => args.run(context),
            Command::Remount(args) => args.run(context),
            Command::Run(args) => args.run(context),
            Command::PathInfo(args) => args.run(context),
            Command::Query(args) => args.run(context),
            Command::CheckValidity(args) => args.run(context),
            Command::Ensure(args) => args.run(context),
            Command::Add(args) => args.run(context),
            Command::AddNar(args) => args.run(context),
            Command::Dump(args) => args.run(context),
            Command::Restore(args) => args.run(context),
            Command::Export(args) => args.run(context),
            Command::Import(args) => args.run(context),
            Command::Copy(args) => args.run(context),
            Command::Delete(args) => args.run(context),
            Command::Gc(args) => args.run(context),
            Command::AddRoot(args) => args.run(context),
            Command::Optimise(args) => args.run(context),
            Command::Verify(args) => args.run(context),
            Command::Serve(args) => args.run(context),
            Command::Sign(args) => args.run(context),
            Command::DumpDb(args) => args.run(context),
            Command::LoadDb(args) => args.run(context),
            Command::RegisterValidity(args) => args.run(context),
        }
    }
}
