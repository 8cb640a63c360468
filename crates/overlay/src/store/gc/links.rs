// SPDX-License-Identifier: MIT OR Apache-2.0
//! The farm of hard links, `.links`: links that no object shares any more.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::measure::space;
use crate::crash::CrashPoint;
use crate::journal::Intent;
use crate::listing::open_links;
use crate::store::layer::Layer;
use crate::store::{Below, Store};
use crate::{Error, Result};

/// What the removal of links has freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UnusedLinks {
    pub(super) links: u64,
    pub(super) bytes: u64,
    /// Whether the mount was made fresh for it.
    pub(super) remounted: bool,
}

/// The inodes of all links of a layer.
///
/// # Errors
/// If the farm cannot be read.
pub(super) fn inodes(layer: BorrowedFd<'_>, path: &Path) -> Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    if let Some(farm) = open(layer, path)? {
        let failed = |source: Errno| Error::io("list the links of", path, source);
        for entry in Dir::read_from(&farm).map_err(failed)? {
            inodes.insert(entry.map_err(failed)?.ino());
        }
    }
    Ok(inodes)
}

/// Opens the farm of a layer; `None` if it has none. What is no directory is none.
fn open(layer: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match open_links(layer) {
        Ok(farm) => Ok(farm),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(source) => Err(Error::io("open the links of", path, source)),
    }
}

impl Store {
    /// Removes the links that are physically in the collected layer and that no object shares any more.
    ///
    /// One that lies below under the same name leaves behind the mount, so that the one below shows again; the others
    /// leave through the merged view.
    ///
    /// # Errors
    /// If the farm cannot be read or written, or the mount not be made fresh.
    pub(super) fn remove_unused_links(&self) -> Result<UnusedLinks> {
        let mut removed = UnusedLinks::default();
        let Layer { fd: layer, path } = self.layer();
        let Some(farm) = open(layer, path)? else {
            return Ok(removed);
        };
        let real = open(self.real.fd(), self.real.path())?;
        let below = match &self.below {
            Some(below) => Self::farms_below(below)?,
            None => Vec::new(),
        };
        let mut hiding = Vec::new();
        let failed = |source: Errno| Error::io("remove unused links of", path, source);
        for entry in Dir::read_from(&farm).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let stat = match fs::statat(&farm, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if stat.st_nlink != 1 || !matches!(kind, FileType::RegularFile | FileType::Symlink) {
                continue;
            }
            let seen = match &real {
                Some(real) if !is_in(&below, name).map_err(failed)? => {
                    fs::unlinkat(real, name, AtFlags::empty())
                }
                _ => Err(Errno::NOENT),
            };
            match seen {
                Ok(()) => removed.count(space(&stat)),
                // It lies below, too, or the kernel does not know of it: somebody put it there behind the mount.
                Err(Errno::NOENT) if self.below.is_some() => hiding.push((name.to_owned(), space(&stat))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if !hiding.is_empty() {
            self.require_refreshable()?;
            let mut journal = self.idle_journal()?;
            // Nothing that has to be mended, and a remount that is owed.
            journal.begin(&Intent::Linking(Vec::new()))?;
            self.options.crash_points.reached(CrashPoint::IntentWritten);
            for (name, bytes) in hiding {
                match fs::unlinkat(&farm, &name, AtFlags::empty()) {
                    Ok(()) => removed.count(bytes),
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            self.options.crash_points.reached(CrashPoint::LinksUnlinked);
            self.refresh_mount()?;
            removed.remounted = true;
            self.options.crash_points.reached(CrashPoint::Remounted);
            journal.close()?;
            self.options.crash_points.reached(CrashPoint::JournalClosed);
        }
        Ok(removed)
    }

    /// The farms of the layers below.
    fn farms_below(below: &Below) -> Result<Vec<OwnedFd>> {
        let paths = below.lower.layers();
        let mut farms = Vec::new();
        for (layer, dir) in below.lower_dirs.iter().enumerate() {
            let path = paths.get(layer).map_or(Path::new(""), |path| path.as_path());
            farms.extend(open(dir.as_fd(), path)?);
        }
        Ok(farms)
    }
}

impl UnusedLinks {
    fn count(&mut self, bytes: u64) {
        self.links += 1;
        self.bytes += bytes;
    }
}

fn is_in(farms: &[OwnedFd], name: &CStr) -> std::result::Result<bool, Errno> {
    for farm in farms {
        match fs::statat(farm, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(true),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
