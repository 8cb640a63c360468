// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose run`: a command with the store mounted for it alone.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::mount::mount_bind_recursive;
use superpose_overlay::OverlayLayout;

use super::Done;
use super::mount::{self, Made, WorkDirectory};
use crate::context::Context;
use crate::environment::{self, NIX_REMOTE, SUPERPOSE_STORE};
use crate::error::{Error, Kind, Result};
use crate::namespace::{self, Namespaces};

/// Run a command that sees the store mounted, in namespaces of its own
///
/// Needs no root: the mount is made in a user namespace, seen by nobody else, and gone with the command. The upper
/// layer stays, and is kept to one such command at a time. SUPERPOSE_STORE and NIX_REMOTE name the store to the command. Its exit status is passed on; 126 and
/// 127 say that it could not be executed or found.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose --store 'local-overlay://?root=/tmp/merged&lower-store=/srv/lower&upper-layer=/tmp/upper' \\
    run -- superpose add ./program")]
pub(crate) struct Args {
    #[command(flatten)]
    work: WorkDirectory,
    /// Show the merged view at the logical store directory, too, if there is such a directory
    #[arg(long)]
    bind_store: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        let layout = context.overlay_layout()?;
        let namespaces = if rustix::process::geteuid().is_root() {
            Namespaces::MountOnly
        } else {
            Namespaces::UserAndMount
        };
        namespace::enter(namespaces).map_err(Error::failed)?;
        if let Made::Now(claim) = mount::make(&layout, &self.work)? {
            claim.leave_to_command()?;
        }
        if self.bind_store {
            bind_store(&layout)?;
        }
        self.execute(&layout)
    }

    /// Puts the command in the place of this process, so that exit status and signals are its own.
    fn execute(&self, layout: &OverlayLayout) -> Result<Done> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Error::usage("no command is given"));
        };
        let url = layout.reference.to_string();
        let error = Command::new(program)
            .args(arguments)
            .env(SUPERPOSE_STORE, &url)
            .env(NIX_REMOTE, &url)
            .exec();
        // EACCES is also what there is to say of a directory of PATH that may not be searched: shells have found
        // nothing then. ENOENT can be about the interpreter of a program that is there.
        let is_missing = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        ) && !environment::has_program(program);
        let program = Path::new(program);
        if is_missing {
            let text = format!("cannot run '{}': there is no such program", program.display());
            return Err(Error::new(Kind::NotFound, text));
        }
        let kind = if error.kind() == io::ErrorKind::NotFound {
            Kind::NotFound
        } else {
            Kind::NotExecutable
        };
        Err(Error::io("run", program, error).of_kind(kind))
    }
}

/// Programs in the store name it by its logical directory.
fn bind_store(layout: &OverlayLayout) -> Result<()> {
    let target = Path::new(layout.settings.store_dir.as_str());
    if target == layout.merged() || !target.is_dir() {
        return Ok(());
    }
    mount_bind_recursive(layout.merged(), target)
        .map_err(|errno| Error::io("show the merged view at", target, errno))
}
