// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows written inside a transaction.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, params_from_iter};
use superpose_store_path::{HashAlgorithm, HashEncoding, StoreDir, StorePath};

use super::fault::explain;
use super::read::{FullPath, ID_BY_PATH, Query, Reader};
use super::transaction::join_signatures;
use crate::{Error, Outputs, PathInfo, Result};

const INSERT: &str = "INSERT INTO ValidPaths \
    (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
    ON CONFLICT (path) DO NOTHING";
/// The columns that Nix overwrites, and only those.
const UPDATE: &str =
    "UPDATE ValidPaths SET hash = ?2, narSize = ?3, ultimate = ?4, sigs = ?5, ca = ?6 WHERE id = ?1";
const INSERT_REFERENCES: &str = "INSERT OR IGNORE INTO Refs (referrer, reference) VALUES ";
const INSERT_OUTPUT: &str = "INSERT OR REPLACE INTO DerivationOutputs (drv, id, path) VALUES (?1, ?2, ?3)";
const DELETE_REFERENCES: &str = "DELETE FROM Refs WHERE referrer = ?1";

/// References written by one run of a statement; many, since starting one costs as much as writing some.
const REFERENCES_AT_ONCE: usize = 32;

/// From how many references on it pays not to have SQLite look up both ends of each once more. Switching that off and on
/// makes it compile all statements anew.
const MANY_REFERENCES: usize = 5_000;

/// A connection inside a transaction, and what is needed to write to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) connection: &'a Connection,
    pub(super) store_dir: &'a StoreDir,
    pub(super) database: &'a Path,
}

impl<'a> Writer<'a> {
    pub(super) fn reader(&self) -> Reader<'a> {
        Reader {
            connection: self.connection,
            store_dir: self.store_dir,
            database: self.database,
        }
    }

    pub(super) fn fail(&self, error: rusqlite::Error) -> Error {
        explain(self.database, "writing to", error)
    }

    pub(super) fn prepare(&self, statement: &str) -> Result<CachedStatement<'a>> {
        self.connection
            .prepare_cached(statement)
            .map_err(|error| self.fail(error))
    }

    /// Deletes the references of paths that are all going to be deleted. Their order is then free: none is kept by
    /// another one.
    pub(super) fn remove_references_between(&self, ids: &HashSet<i64>) -> Result<()> {
        let mut delete = self.prepare(DELETE_REFERENCES)?;
        for id in ids {
            delete.execute([id]).map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Records the outputs of a derivation.
    pub(super) fn insert_outputs(&self, derivation: i64, outputs: &Outputs) -> Result<()> {
        let mut insert = self.prepare(INSERT_OUTPUT)?;
        for (name, path) in outputs {
            insert
                .execute((derivation, name, self.store_dir.join(path)))
                .map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Records references and returns how many there are. Each is an id and what it refers to, and both must
    /// have been found in this transaction.
    pub(super) fn insert_references(&self, mut references: Vec<(i64, i64)>) -> Result<u64> {
        // In the order of the index that is largest, so that it grows at one end.
        references.sort_unstable();
        references.dedup();
        let _unchecked = (references.len() >= MANY_REFERENCES).then(|| Unchecked::on(self.connection));
        let (chunks, rest) = references.as_chunks::<REFERENCES_AT_ONCE>();
        self.insert_references_at_once(
            chunks.iter().map(<[_; REFERENCES_AT_ONCE]>::as_slice),
            REFERENCES_AT_ONCE,
        )?;
        self.insert_references_at_once(rest.iter().map(std::slice::from_ref), 1)?;
        Ok(references.len() as u64)
    }

    /// Records references in groups of one size, each by one run of a statement.
    fn insert_references_at_once<'r>(
        &self,
        groups: impl Iterator<Item = &'r [(i64, i64)]>,
        size: usize,
    ) -> Result<()> {
        let statement = format!("{INSERT_REFERENCES}{}", vec!["(?, ?)"; size].join(", "));
        let mut insert = self.prepare(&statement)?;
        for group in groups {
            let values = group
                .iter()
                .flat_map(|&(referrer, reference)| [referrer, reference]);
            insert
                .execute(params_from_iter(values))
                .map_err(|error| self.fail(error))?;
        }
        Ok(())
    }
}

/// Foreign keys are not enforced while this lives. Only for rows whose keys were looked up just before.
struct Unchecked<'a> {
    connection: &'a Connection,
}

impl<'a> Unchecked<'a> {
    fn on(connection: &'a Connection) -> Self {
        let unchecked = Self { connection };
        unchecked.enforce(false);
        unchecked
    }

    fn enforce(&self, enforced: bool) {
        if let Err(error) = self
            .connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, enforced)
        {
            tracing::warn!(%error, enforced, "cannot switch the enforcement of foreign keys");
        }
    }
}

impl Drop for Unchecked<'_> {
    fn drop(&mut self) {
        self.enforce(true);
    }
}

/// Writes rows of valid paths.
pub(super) struct PathWriter<'a> {
    writer: Writer<'a>,
    insert: CachedStatement<'a>,
    update: CachedStatement<'a>,
    path: FullPath<'a>,
    deriver: FullPath<'a>,
}

impl<'a> PathWriter<'a> {
    pub(super) fn new(writer: &Writer<'a>) -> Result<Self> {
        Ok(Self {
            writer: *writer,
            insert: writer.prepare(INSERT)?,
            update: writer.prepare(UPDATE)?,
            path: FullPath::new(writer.store_dir),
            deriver: FullPath::new(writer.store_dir),
        })
    }

    /// Inserts a path unless it is valid, and returns the new id if it was not.
    pub(super) fn insert(&mut self, info: &PathInfo, now: i64) -> Result<Option<i64>> {
        let columns = Columns::of(info, self.writer.store_dir)?;
        let registered = if info.registration_time == 0 {
            now
        } else {
            info.registration_time
        };
        let deriver = info.deriver.as_ref().map(|deriver| self.deriver.of(deriver));
        let inserted = self.insert.execute((
            self.path.of(&info.path),
            &columns.hash,
            registered,
            deriver,
            columns.nar_size,
            columns.ultimate,
            &columns.signatures,
            &columns.content_address,
        ));
        match inserted.map_err(|error| self.writer.fail(error))? {
            0 => Ok(None),
            _ => Ok(Some(self.writer.connection.last_insert_rowid())),
        }
    }

    /// Overwrites what may change about a valid path.
    pub(super) fn update(&mut self, id: i64, info: &PathInfo) -> Result<()> {
        let columns = Columns::of(info, self.writer.store_dir)?;
        let updated = self.update.execute((
            id,
            &columns.hash,
            columns.nar_size,
            columns.ultimate,
            &columns.signatures,
            &columns.content_address,
        ));
        updated.map(drop).map_err(|error| self.writer.fail(error))
    }
}

/// Columns as Nix writes them: what is not known is null, never an empty text.
pub(super) struct Columns {
    pub(super) hash: String,
    pub(super) nar_size: Option<i64>,
    ultimate: Option<i64>,
    signatures: Option<String>,
    content_address: Option<String>,
}

impl Columns {
    pub(super) fn of(info: &PathInfo, store_dir: &StoreDir) -> Result<Self> {
        let found = info.nar_hash.algorithm();
        if found != HashAlgorithm::Sha256 {
            return Err(Error::NarHashAlgorithm {
                path: store_dir.join(&info.path),
                found,
            });
        }
        let nar_size = i64::try_from(info.nar_size).map_err(|_| Error::TooLarge {
            path: store_dir.join(&info.path),
            column: "ValidPaths.narSize",
            found: info.nar_size,
        })?;
        Ok(Self {
            hash: info.nar_hash.render(HashEncoding::Base16),
            nar_size: Some(nar_size).filter(|&size| size != 0),
            ultimate: info.ultimate.then_some(1),
            signatures: join_signatures(info.signatures.clone()),
            content_address: info.content_address.map(|address| address.to_string()),
        })
    }
}

/// Ids of valid paths: those just written are remembered, others looked up once.
pub(super) struct Ids<'a> {
    store_dir: &'a StoreDir,
    id_by_path: Query<'a>,
    text: FullPath<'a>,
    known: HashMap<StorePath, i64>,
}

impl<'a> Ids<'a> {
    pub(super) fn new(writer: &Writer<'a>) -> Result<Self> {
        Ok(Self {
            store_dir: writer.store_dir,
            id_by_path: writer.reader().prepare(ID_BY_PATH)?,
            text: FullPath::new(writer.store_dir),
            known: HashMap::new(),
        })
    }

    pub(super) fn insert(&mut self, path: &StorePath, id: i64) {
        self.known.insert(path.clone(), id);
    }

    /// Returns the id of a path, if it is valid.
    pub(super) fn get(&mut self, path: &StorePath) -> Result<Option<i64>> {
        if let Some(&id) = self.known.get(path) {
            return Ok(Some(id));
        }
        let id = self.id_by_path.integer(self.text.of(path))?;
        if let Some(id) = id {
            self.insert(path, id);
        }
        Ok(id)
    }

    /// Appends a path's references as ids.
    pub(super) fn resolve(&mut self, id: i64, info: &PathInfo, into: &mut Vec<(i64, i64)>) -> Result<()> {
        for reference in &info.references {
            let Some(to) = self.get(reference)? else {
                return Err(Error::ReferenceNotValid {
                    path: self.store_dir.join(&info.path),
                    reference: self.store_dir.join(reference),
                });
            };
            into.push((id, to));
        }
        Ok(())
    }
}
