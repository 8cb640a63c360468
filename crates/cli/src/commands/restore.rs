// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose restore`: an archive as files.

use std::io::{self, BufReader};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use superpose_overlay::nar::{self, RestoreOptions};

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};

/// Unpack an archive (NAR) from standard input to a new path; no store is needed
///
/// What is made looks as it does in a store: not writable, modified one second after the epoch.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose restore ./program <program.nar")]
pub(crate) struct Args {
    /// Where to unpack; must not exist
    #[arg(value_name = "DEST")]
    destination: PathBuf,
}

impl Args {
    pub(super) fn run(&self, _: &Context) -> Result<Done> {
        let destination = &self.destination;
        let absolute =
            std::path::absolute(destination).map_err(|error| Error::io("resolve", destination, error))?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(Error::usage(format!(
                "'{}' cannot be made: give a new path",
                destination.display()
            )));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, parent, flags, Mode::empty())
            .map_err(|errno| Error::io("open the directory", parent, errno))?;
        let mut archive = BufReader::with_capacity(64 << 10, io::stdin().lock());
        nar::restore(&mut archive, &directory, name, &RestoreOptions::default())?;
        Ok(Done::Fine)
    }
}
