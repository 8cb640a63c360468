// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of a database directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Names of the files in a database directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) dir: PathBuf,
    /// The database as the directory names it; possibly a symbolic link.
    pub(super) named: PathBuf,
    /// The database itself. SQLite keeps the next three beside it.
    pub(super) database: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) shm: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) schema: PathBuf,
    pub(super) big_lock: PathBuf,
    pub(super) reserved: PathBuf,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        // SQLite is given a URI, which must not depend on a working directory that may change.
        let dir = std::path::absolute(dir).map_err(|source| Error::Io {
            operation: "making absolute",
            path: dir.to_owned(),
            source,
        })?;
        let named = dir.join("db.sqlite");
        let files = Self {
            wal: beside(&named, "-wal"),
            shm: beside(&named, "-shm"),
            journal: beside(&named, "-journal"),
            database: named.clone(),
            named,
            schema: dir.join("schema"),
            big_lock: dir.join("big-lock"),
            reserved: dir.join("reserved"),
            dir,
        };
        files.resolved()
    }

    /// Returns the files with the database that its name leads to now.
    pub(super) fn resolved(&self) -> Result<Self> {
        let mut files = self.clone();
        files.database = match fs::symlink_metadata(&self.named) {
            Ok(metadata) if metadata.is_symlink() => match fs::canonicalize(&self.named) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("following the link", &self.named)(error));
                }
                // A link that leads nowhere is missing like a file that is not there.
                target => target.unwrap_or_else(|_| self.named.clone()),
            },
            _ => self.named.clone(),
        };
        files.wal = beside(&files.database, "-wal");
        files.shm = beside(&files.database, "-shm");
        files.journal = beside(&files.database, "-journal");
        Ok(files)
    }
}

/// Returns the name of a file that SQLite keeps beside a database.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the error of a file operation.
pub(super) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        operation,
        path,
        source,
    }
}
