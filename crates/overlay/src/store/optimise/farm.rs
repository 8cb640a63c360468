// SPDX-License-Identifier: MIT OR Apache-2.0
//! The farm of hard links: the directory `.links` that is physically in the layer.
//!
//! It is the one that stock Nix uses, with the names that it uses, so that its collector prunes what we link and its
//! verification checks it. Of an overlay store it is that of the upper layer, never the merged one: through the merged view
//! a link to a file of the lower store's farm would copy it up.

use std::collections::HashSet;
use std::num::NonZero;
use std::path::PathBuf;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, Dir, FileType, Mode, Stat};
use rustix::io::Errno;
use superpose_store_path::nix32;

use super::super::parallel::on_threads;
use super::file::{self, Content};
use crate::listing::{LINKS, open_links};
use crate::state_dir::describe_type;
use crate::store::layer::{Layer, stat_in};
use crate::{Error, Result};

/// The mode that Nix makes it with.
const MODE: Mode = Mode::from_raw_mode(0o755);
/// Digits of a SHA-256.
const DIGITS: usize = 52;

/// The open farm.
#[derive(Debug)]
pub(super) struct Farm {
    fd: OwnedFd,
    path: PathBuf,
}

/// What is in a farm.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The inodes of all its files.
    pub(super) inodes: HashSet<u64>,
    /// The names and inodes, for a closer look.
    names: Vec<String>,
}

/// A file of the farm that others can become links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) inode: u64,
    /// Its user and group.
    pub(super) owner: (u32, u32),
}

/// What the farm has under the name of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nothing.
    None,
    /// A file that others can become links to.
    Fit(Leader),
    /// Something that has to make room: of another content, copied up, a whiteout.
    Unfit,
}

impl Farm {
    /// Opens the farm of a layer; `None` if it has none.
    ///
    /// # Errors
    /// If something else is in its place: to follow a link there would lead out of the layer.
    pub(super) fn open(layer: Layer<'_>) -> Result<Option<Self>> {
        let path = layer.path.join(LINKS);
        match open_links(layer.fd) {
            Ok(fd) => Ok(fd.map(|fd| Farm { fd, path })),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let found = layer.stat(LINKS.as_ref())?.map_or("nothing", |stat| {
                    describe_type(FileType::from_raw_mode(stat.st_mode))
                });
                Err(Error::WrongFileType {
                    path,
                    expected: "a directory",
                    found,
                })
            }
            Err(source) => Err(Error::io("open the directory of hard links", path, source)),
        }
    }

    /// Opens the farm of a layer, and makes it if it is missing.
    pub(super) fn open_or_create(layer: Layer<'_>) -> Result<Self> {
        loop {
            if let Some(farm) = Self::open(layer)? {
                return Ok(farm);
            }
            match fs::mkdirat(layer.fd, LINKS, MODE) {
                // Somebody was quicker.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(source) => {
                    return Err(Error::io(
                        "create the directory of hard links",
                        layer.path.join(LINKS),
                        source,
                    ));
                }
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The inode of the directory itself.
    pub(super) fn inode(&self) -> Result<u64> {
        fs::fstat(&self.fd)
            .map(|stat| stat.st_ino)
            .map_err(|source| self.failed("examine", source))
    }

    /// Lists the farm, without a look at the files.
    pub(super) fn inventory(&self) -> Result<Inventory> {
        let mut inventory = Inventory::default();
        let failed = |source| self.failed("list", source);
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            // Symbolic links are linked by stock Nix only.
            let kind = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
            if kind && name.len() == DIGITS && nix32::is_alphabet(name) {
                inventory.inodes.insert(entry.ino());
                inventory.names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(inventory)
    }

    /// The sizes of all files of the farm.
    pub(super) fn sizes(&self, inventory: &Inventory, threads: NonZero<usize>) -> HashSet<u64> {
        let size = |name: &String| self.stat(name).map(|stat| file::size(&stat));
        on_threads(threads, &inventory.names, size, |_| true)
            .into_iter()
            .flatten()
            .flatten()
            .collect()
    }

    /// The names of files that have no other name: all that were links to them are gone.
    pub(super) fn unused(&self, inventory: &Inventory, threads: NonZero<usize>) -> Vec<String> {
        let is_unused = |name: &String| self.stat(name).is_some_and(|stat| file::names(&stat) == 1);
        let unused = on_threads(threads, &inventory.names, is_unused, |_| true);
        let names = inventory.names.iter().zip(unused);
        names
            .filter(|(_, unused)| *unused == Some(true))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn stat(&self, name: &str) -> Option<Stat> {
        stat_in(self.fd(), name.as_ref())
            .ok()
            .flatten()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// Looks at what the farm has of some content, and whether it is what its name says: to make a good file a link to a
    /// damaged one would lose it.
    pub(super) fn lead(&self, content: &Content) -> Lead {
        let name = name_of(content);
        match stat_in(self.fd(), name.as_ref()) {
            Ok(None) => Lead::None,
            Ok(Some(_)) => match file::hash(self.fd(), name.as_ref()) {
                Ok(file::Hashed { content: found, stat })
                    if found == *content && file::is_canonical(&stat) =>
                {
                    Lead::Fit(leader(&stat))
                }
                Ok(_) | Err(_) => Lead::Unfit,
            },
            Err(_) => Lead::Unfit,
        }
    }

    fn failed(&self, operation: &'static str, source: Errno) -> Error {
        Error::io(operation, &self.path, source)
    }

    /// The path of a file of the farm, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The name of some content in a farm.
pub(super) fn name_of(content: &Content) -> String {
    nix32::encode(content)
}

pub(super) fn leader(stat: &Stat) -> Leader {
    Leader {
        inode: stat.st_ino,
        owner: (stat.st_uid, stat.st_gid),
    }
}
