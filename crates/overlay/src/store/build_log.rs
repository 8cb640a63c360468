// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs of builds that happened elsewhere.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use superpose_store_path::StorePath;

use super::{Durability, Store};
use crate::random::hex_digits;
use crate::state_dir::{Directory, ModeRule};
use crate::{Error, Result};

/// Mode of the directories of logs, as Nix makes them.
const DIRECTORY_MODE: u32 = 0o755;

/// Mode of a log: everybody may read it.
const LOG_MODE: u32 = 0o644;

/// Where in the directory of logs those of derivations are.
const OF_DERIVATIONS: &str = "drvs";

/// How many characters of a base name become a directory, so that no directory has all logs.
const FANNED_OUT: usize = 2;

/// What Nix appends to the name of a log that it compresses.
const COMPRESSED: &str = ".bz2";

impl Store {
    /// Keeps the log of a build of a derivation, where stock Nix finds it; false if there was one already, which stays.
    ///
    /// The derivation need not be valid.
    ///
    /// # Durability
    /// The log appears whole or not at all.
    ///
    /// # Errors
    /// A path that is no derivation; a log that cannot be read to its end; a directory of logs that cannot be made or
    /// written.
    ///
    /// # Deviation
    /// Nix compresses a log that it is given, always with bzip2; here it is plain, as Nix writes its own with
    /// `compress-build-log=false`. Nix reads either.
    pub fn add_build_log(&self, derivation: &StorePath, log: &mut dyn Read) -> Result<bool> {
        if !derivation.is_derivation() {
            return Err(Error::LogOfNoDerivation {
                path: self.dir().join(derivation),
            });
        }
        let (fan, name) = derivation.base_name().split_at(FANNED_OUT);
        let directory = self.log_directory(fan)?;
        for name in [name.to_owned(), format!("{name}{COMPRESSED}")] {
            match rustix::fs::statat(directory.fd(), &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => return Ok(false),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("examine", directory.path().join(&name), error)),
            }
        }
        let scratch = format!("{name}.tmp.{}", hex_digits(16));
        let written = self.write_log(&directory, &scratch, log).and_then(|()| {
            // Whoever was faster has the name.
            let renamed = rustix::fs::renameat_with(
                directory.fd(),
                &scratch,
                directory.fd(),
                name,
                RenameFlags::NOREPLACE,
            );
            match renamed {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(error) => Err(Error::io("name the log", directory.path().join(name), error)),
            }
        });
        if !matches!(written, Ok(true)) {
            // It has served, or never will; what cannot be removed is no log of anything.
            rustix::fs::unlinkat(directory.fd(), &scratch, AtFlags::empty()).ok();
        }
        written
    }

    /// Opens the directory of some logs, and makes it if it is missing.
    fn log_directory(&self, fan: &str) -> Result<Directory> {
        let logs = &self.layout.settings().log_dir;
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(logs)
            .map_err(|error| Error::io("create the directory of logs", logs, error))?;
        Directory::open(logs)?
            .create_below(OF_DERIVATIONS, DIRECTORY_MODE, ModeRule::WhenCreated)?
            .create_below(fan, DIRECTORY_MODE, ModeRule::WhenCreated)
    }

    fn write_log(&self, directory: &Directory, name: &str, log: &mut dyn Read) -> Result<()> {
        let failed = |error: io::Error| Error::io("write the log", directory.path().join(name), error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory.fd(), name, flags, Mode::from_raw_mode(LOG_MODE));
        let mut file = File::from(file.map_err(|error| failed(error.into()))?);
        io::copy(log, &mut file).map_err(failed)?;
        match self.options.durability {
            Durability::Synced => file.sync_all().map_err(failed),
            Durability::Unsynced => Ok(()),
        }
    }
}
