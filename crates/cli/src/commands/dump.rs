// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose dump`: an object as an archive.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use superpose_overlay::metadata::{self, MetadataSource};
use superpose_overlay::nar;
use superpose_overlay::store_path::StorePath;

use super::Done;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output;
use crate::path_arguments::PathArguments;

/// Write a valid object, or a file or directory in one, to standard output as an archive (NAR)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  superpose dump /nix/store/26nci8mz5f9aldbsgmalpkj20xyqqd5c-program >program.nar")]
pub(crate) struct Args {
    /// A store path, a path below one, a base name, or a link to one of these
    #[arg(value_name = "PATH")]
    path: OsString,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Done> {
        if output::is_terminal() {
            return Err(Error::usage(
                "an archive is not written to a terminal: redirect standard output",
            ));
        }
        let view = context.view()?;
        let (path, inside) = PathArguments::of(view.layout()).inside(&self.path)?;
        if view.are_valid(std::slice::from_ref(&path))? != [true] {
            return Err(metadata::Error::NotValid {
                path: view.store_dir().join(&path),
            }
            .into());
        }
        let (directory, name) = open_parent(&view.layout().settings().real_dir, &path, &inside)?;
        let mut out = Checked {
            out: output::raw()?,
            failed: None,
        };
        match (nar::dump(&directory, &name, &mut out), out.failed) {
            (_, Some(error)) => Err(Error::output(error)),
            (result, None) => Ok(result.map(|_| Done::Fine)?),
        }
    }
}

/// Opens the directory that holds what is to be dumped, and gives its name there.
///
/// A link in an object may lead anywhere; what is at its end is not part of the object.
fn open_parent(real: &Path, object: &StorePath, inside: &Path) -> Result<(OwnedFd, OsString)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let store = fs::open(real, flags, Mode::empty())
        .map_err(|errno| Error::io("open the store directory", real, errno))?;
    let object = Path::new(object.base_name());
    let Some(name) = inside.file_name() else {
        return Ok((store, object.into()));
    };
    let parent = object.join(inside.parent().unwrap_or(Path::new("")));
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match fs::openat2(&store, &parent, flags, Mode::empty(), within) {
        Ok(directory) => Ok((directory, name.to_owned())),
        Err(Errno::LOOP) => Err(Error::failed(format!(
            "'{}' leads through a symbolic link: give the path that it points to",
            real.join(parent).display()
        ))),
        Err(errno) => Err(Error::io("open the directory", &real.join(parent), errno)),
    }
}

/// Standard output that remembers its own error, which is not one of the object.
struct Checked<W> {
    out: W,
    failed: Option<std::io::Error>,
}

impl<W: std::io::Write> std::io::Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes).map_err(|error| {
            let kind = error.kind();
            if kind != std::io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
