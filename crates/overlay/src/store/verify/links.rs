// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hard-link farm: each file is called by its own hash.
//!
//! Of an overlay store it is the farm of the upper layer that is looked at, not the merged one: entries of the lower
//! store's are its own.

use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType};
use rustix::io::Errno;
use superpose_store_path::HashEncoding;

use super::{Fault, VerifyReport};
use crate::hash_pool::{Job, hash_all};
use crate::listing::{self, LINKS};
use crate::store::Store;
use crate::{Error, Result};

impl Store {
    /// The farm of the layer, and its name in messages; `None` if there is none.
    ///
    /// # Errors
    /// If it is no directory: to follow a link could lead out of the layer.
    pub(in crate::store) fn open_links(&self) -> Result<Option<(OwnedFd, PathBuf)>> {
        let layer = self.layer();
        let path = layer.path.join(LINKS);
        match listing::open_links(layer.fd) {
            Ok(links) => Ok(links.map(|links| (links, path))),
            Err(source) => Err(Error::io("open the directory", path, source)),
        }
    }

    /// Hashes every entry and compares the hash with the name.
    pub(super) fn verify_links(&self, threads: NonZero<usize>, report: &mut VerifyReport) -> Result<()> {
        let Some((links, path)) = self.open_links()? else {
            return Ok(());
        };
        let failed = |source| Error::io("read the directory", &path, source);
        let mut names: Vec<(OsString, u64)> = Vec::new();
        for entry in Dir::read_from(&links).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            match fs::statat(&links, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                // Whiteouts over entries of the lower farm, which collections of stock Nix leave.
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice => {}
                Ok(stat) => names.push((
                    OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(),
                    u64::try_from(stat.st_size).unwrap_or(0),
                )),
                Err(Errno::NOENT) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        let jobs: Vec<Job<'_>> = names
            .iter()
            .map(|(name, size)| Job {
                directory: links.as_fd(),
                name,
                size: *size,
            })
            .collect();
        hash_all(&jobs, threads, &self.options.watch, &mut |number, result| {
            let name = &names[number].0;
            match result {
                Ok(found) => {
                    report.links += 1;
                    report.bytes += found.size;
                    let expected = found.hash.render_bare(HashEncoding::Nix32);
                    if name.as_bytes() != expected.as_bytes() {
                        report.faults.push(Fault::Link {
                            name: name.clone(),
                            found: found.hash,
                        });
                    }
                }
                // A collection of stock Nix holds the lock that a verification shares; a link that is gone was removed by hand.
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
                Err(error) => report.faults.push(Fault::UnreadableLink {
                    name: name.clone(),
                    error: error.into(),
                }),
            }
            Ok(())
        })
    }
}
