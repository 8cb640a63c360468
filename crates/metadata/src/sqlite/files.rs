// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of a database directory.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Names of the files in a database directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) dir: PathBuf,
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
        Ok(Self {
            database: dir.join("db.sqlite"),
            wal: dir.join("db.sqlite-wal"),
            shm: dir.join("db.sqlite-shm"),
            journal: dir.join("db.sqlite-journal"),
            schema: dir.join("schema"),
            big_lock: dir.join("big-lock"),
            reserved: dir.join("reserved"),
            dir,
        })
    }
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
