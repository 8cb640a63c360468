// SPDX-License-Identifier: MIT OR Apache-2.0
//! Write transactions: all that is done in one becomes visible together, or not at all.

use std::collections::HashSet;

use rusqlite::Connection;
use superpose_store_path::{ReadDerivation, Signature, StorePath};

use super::busy::retry;
use super::copy_in::{CopyStats, KnownOutputs};
use super::database::Database;
use super::fault::explain;
use super::names::KnownNames;
use super::register::RegisterStats;
use super::room::Room;
use super::write::{Columns, Writer};
use crate::{ArchiveInfo, Error, MetadataSource, PathInfo, Realisation, Result};

const DELETE_BY_ID: &str = "DELETE FROM ValidPaths WHERE id = ?1";
const OTHER_REFERRERS: &str = "SELECT referrer FROM Refs WHERE reference = ?1";
const SET_ARCHIVE: &str = "UPDATE ValidPaths SET hash = ?2, narSize = ?3 WHERE path = ?1";
const SET_SIGNATURES: &str = "UPDATE ValidPaths SET sigs = ?2 WHERE path = ?1";

/// A transaction that writes. Dropped without [`commit`](Self::commit), it leaves no trace.
///
/// Other writers wait while it lives, so nothing slow should be done between its beginning and its end.
#[derive(Debug)]
pub struct Transaction<'a> {
    database: &'a Database,
    is_open: bool,
}

impl<'a> Transaction<'a> {
    /// Takes charge of the transaction that was just begun.
    pub(super) fn new(database: &'a mut Database) -> Self {
        Self {
            database,
            is_open: true,
        }
    }

    /// Returns the database, to be asked what it holds in the state that the transaction has made.
    #[must_use]
    pub fn database(&self) -> &Database {
        self.database
    }

    /// Makes everything visible.
    ///
    /// # Durability
    /// It survives the death of this process. A power cut it survives only once [`Database::sync`] was called, or SQLite
    /// has copied the log into the database, or if there is no log ([`JournalMode::Truncate`](crate::JournalMode::Truncate))
    /// and [`MetadataSync::Normal`](crate::MetadataSync::Normal) was asked for. Until then a power cut undoes whole
    /// transactions, the last ones first.
    ///
    /// # Errors
    /// If SQLite cannot write it. Then it was not done.
    pub fn commit(mut self) -> Result<()> {
        let (connection, file) = self.database.writable()?;
        retry(file, self.database.busy_limit(), || {
            end(connection, "COMMIT").map_err(|error| explain(file, "committing to", error))
        })?;
        self.is_open = false;
        Ok(())
    }

    /// Registers paths as valid, as Nix does: a path that is valid already gets the new archive hash and length,
    /// trust, signatures and content address, and references are only ever added.
    ///
    /// `read` supplies the files of derivations, the registered ones and their inputs.
    ///
    /// # Errors
    /// If a reference is not valid in this database and not among the paths, if they form a cycle, if a content address
    /// does not lead to its path, or if a derivation is not right. The transaction should then be dropped.
    pub fn register(&mut self, infos: &[PathInfo], read: &mut ReadDerivation<'_>) -> Result<RegisterStats> {
        self.writer()?.register(infos, read)
    }

    /// Copies what another source knows: paths that are not valid here become so, with everything as it is given;
    /// those that are valid are left alone.
    ///
    /// `from` is asked for the outputs of the derivations among them. Nothing is checked but that
    /// references are valid here or among the paths: a source that is trusted to be read is trusted to be copied.
    ///
    /// # Errors
    /// If a reference is not valid, a derivation is not valid in `from`, or that cannot be read. The transaction should
    /// then be dropped.
    pub fn copy_in(&mut self, infos: &[PathInfo], from: &dyn MetadataSource) -> Result<CopyStats> {
        self.writer()?
            .copy_in(infos, &mut |paths| from.derivation_outputs(paths))
    }

    /// Makes paths no longer valid, and returns how many were. Those that were not are no matter.
    ///
    /// # Errors
    /// [`Error::StillReferenced`] if other paths refer to one of them; nothing is removed then.
    pub fn invalidate(&mut self, paths: &[StorePath]) -> Result<u64> {
        let writer = self.writer()?;
        let reader = writer.reader();
        let _room = Room::for_paths(reader.connection, paths.len());
        let targets: Vec<(&StorePath, i64)> = paths
            .iter()
            .zip(reader.ids(paths)?)
            .filter_map(|(path, id)| Some((path, id?)))
            .collect();
        let ids: HashSet<i64> = targets.iter().map(|&(_, id)| id).collect();
        let mut referrers = reader.prepare(OTHER_REFERRERS)?;
        for &(path, id) in &targets {
            let mut others = Vec::new();
            referrers.each(id, |row| {
                let referrer: i64 = row.get(0).map_err(|error| reader.fail(error))?;
                if !ids.contains(&referrer) {
                    others.push(referrer);
                }
                Ok(())
            })?;
            if let Some(&first) = others.first() {
                return Err(Error::StillReferenced {
                    path: reader.store_dir.join(path),
                    referrer: reader.name_of(first)?,
                    more: others.len() - 1,
                });
            }
        }
        writer.remove_references_between(&ids)?;
        let mut delete = writer.prepare(DELETE_BY_ID)?;
        for id in &ids {
            delete.execute([id]).map_err(|error| writer.fail(error))?;
        }
        Ok(ids.len() as u64)
    }

    /// Replaces hash and length of the archive of a valid path, and nothing else of it.
    ///
    /// # Errors
    /// [`Error::NotValid`] if the path is not valid; a hash of another algorithm than SHA-256, or a length that no column
    /// holds.
    pub fn set_archive(&mut self, path: &StorePath, archive: &ArchiveInfo) -> Result<()> {
        let writer = self.writer()?;
        let columns = Columns::of(
            &PathInfo::new(path.clone(), archive.hash, archive.size),
            writer.store_dir,
        )?;
        let mut update = writer.prepare(SET_ARCHIVE)?;
        let changed = update
            .execute((writer.store_dir.join(path), columns.hash, columns.nar_size))
            .map_err(|error| writer.fail(error))?;
        match changed {
            0 => Err(writer.reader().not_valid(path)),
            _ => Ok(()),
        }
    }

    /// Adds signatures to a valid path. Those that it has stay.
    ///
    /// # Errors
    /// [`Error::NotValid`] if the path is not valid.
    pub fn add_signatures(&mut self, path: &StorePath, signatures: &[Signature]) -> Result<()> {
        let writer = self.writer()?;
        let reader = writer.reader();
        let info = reader
            .path_infos(std::slice::from_ref(path), &mut KnownNames::default())?
            .pop()
            .flatten();
        let mut all = info.ok_or_else(|| reader.not_valid(path))?.signatures;
        all.extend_from_slice(signatures);
        let text = join_signatures(all);
        let mut update = writer.prepare(SET_SIGNATURES)?;
        update
            .execute((reader.store_dir.join(path), text))
            .map_err(|error| writer.fail(error))?;
        Ok(())
    }

    /// Records realisations. The table of their kind is made if the store has none yet.
    ///
    /// # Errors
    /// [`Error::ConflictingRealisation`] if a key is known with another output path; [`Error::NotValid`] if the output
    /// path of a [`HashModulo`](crate::RealisationKind::HashModulo) realisation is not valid.
    pub fn register_realisations(&mut self, realisations: &[Realisation]) -> Result<()> {
        self.writer()?.register_realisations(realisations)
    }

    fn writer(&self) -> Result<Writer<'_>> {
        let (connection, file) = self.database.writable()?;
        Ok(Writer {
            connection,
            store_dir: self.database.store_dir(),
            database: file,
        })
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let Ok((connection, file)) = self.database.writable() else {
            return;
        };
        if self.is_open
            && !connection.is_autocommit()
            && let Err(error) = end(connection, "ROLLBACK")
        {
            // Closing the connection ends the transaction as well.
            tracing::warn!(database = %file.display(), %error, "cannot roll back");
        }
    }
}

fn end(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

/// Renders signatures as Nix writes them: sorted, separated by blanks; nothing at all if there are none.
pub(super) fn join_signatures(mut signatures: Vec<Signature>) -> Option<String> {
    signatures.sort_unstable();
    signatures.dedup();
    let texts: Vec<&str> = signatures.iter().map(Signature::as_str).collect();
    Some(texts.join(" ")).filter(|text| !text.is_empty())
}

impl Database {
    /// Registers paths in a transaction of their own; see [`Transaction::register`].
    ///
    /// # Errors
    /// As [`Transaction::register`], and those of beginning and committing. Nothing is registered then.
    pub fn register(&mut self, infos: &[PathInfo], read: &mut ReadDerivation<'_>) -> Result<RegisterStats> {
        self.write(|transaction| transaction.register(infos, read))
    }

    /// Copies paths from another source in a transaction of their own; see [`Transaction::copy_in`].
    ///
    /// `from` is asked before the transaction begins, so that other writers do not wait for it.
    ///
    /// # Errors
    /// As [`Transaction::copy_in`], and those of beginning and committing. Nothing is copied then.
    pub fn copy_in(&mut self, infos: &[PathInfo], from: &dyn MetadataSource) -> Result<CopyStats> {
        let mut outputs = KnownOutputs::of(infos, from)?;
        self.write(|transaction| {
            let writer = transaction.writer()?;
            writer.copy_in(infos, &mut |paths| Ok(outputs.take(paths)))
        })
    }

    /// Makes paths no longer valid in a transaction of their own; see [`Transaction::invalidate`].
    ///
    /// # Errors
    /// As [`Transaction::invalidate`], and those of beginning and committing. Nothing is removed then.
    pub fn invalidate(&mut self, paths: &[StorePath]) -> Result<u64> {
        self.write(|transaction| transaction.invalidate(paths))
    }

    /// Adds signatures in a transaction of their own; see [`Transaction::add_signatures`].
    ///
    /// # Errors
    /// As [`Transaction::add_signatures`], and those of beginning and committing. Nothing is added then.
    pub fn add_signatures(&mut self, path: &StorePath, signatures: &[Signature]) -> Result<()> {
        self.write(|transaction| transaction.add_signatures(path, signatures))
    }

    /// Records realisations in a transaction of their own; see [`Transaction::register_realisations`].
    ///
    /// # Errors
    /// As [`Transaction::register_realisations`], and those of beginning and committing. Nothing is recorded then.
    pub fn register_realisations(&mut self, realisations: &[Realisation]) -> Result<()> {
        self.write(|transaction| transaction.register_realisations(realisations))
    }

    fn write<T>(&mut self, run: impl FnOnce(&mut Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut transaction = self.begin()?;
        let done = run(&mut transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}
