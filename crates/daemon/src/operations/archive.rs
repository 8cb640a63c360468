// SPDX-License-Identifier: MIT OR Apache-2.0
//! An object as an archive, straight from the layer to the client.

use std::ffi::OsString;
use std::io::Write;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use superpose_overlay::nar;
use superpose_overlay::store_path::StorePath;

use super::query::require_valid;
use crate::context::Context;
use crate::error::{Error, Result};

/// An object that is there, held by the directory that it is in.
#[derive(Debug)]
pub(crate) struct Archive {
    directory: OwnedFd,
    name: OsString,
}

/// Finds the object of a valid path. After this nothing of the store is held while the client takes its time.
pub(super) fn of(path: &StorePath, context: &Context) -> Result<Archive> {
    context.ask(|source| require_valid(path, source))?;
    let real = &context.layout().settings().real_dir;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(real, flags, Mode::empty())
        .map_err(|error| Error::io("open the store directory", real, error))?;
    // That it is valid and not there has to be said before the archive is announced.
    rustix::fs::statat(&directory, path.base_name(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Error::io("find the object", real.join(path.base_name()), error))?;
    Ok(Archive {
        directory,
        name: path.base_name().into(),
    })
}

impl Archive {
    /// Writes the archive. A client that was promised one cannot be told of an error: the connection has to be closed.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        nar::dump(&self.directory, &self.name, out)?;
        Ok(())
    }
}
