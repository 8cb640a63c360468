// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions about single paths.

use std::path::Path;

use rusqlite::{CachedStatement, Connection, Row};
use superpose_store_path::{HashPart, StoreDir, StorePath};

use super::fault::explain;
use super::names::{KnownNames, Names};
use super::room::Room;
use super::rows::{Record, info_columns};
use crate::{ArchiveInfo, Error, Outputs, PathInfo, Result, Visit};

pub(super) const ID_BY_PATH: &str = "SELECT id FROM ValidPaths WHERE path = ?1";
pub(super) const PATH_BY_ID: &str = "SELECT path FROM ValidPaths WHERE id = ?1";
const INFO_BY_PATH: &str = concat!("SELECT ", info_columns!(), ", id FROM ValidPaths WHERE path = ?1");
/// The primary key's index holds both columns, unlike Nix's old index on the first, which the planner might prefer.
pub(super) const REFERENCES: &str =
    "SELECT reference FROM Refs INDEXED BY sqlite_autoindex_Refs_1 WHERE referrer = ?1";
const REFERRER_PATHS: &str = "SELECT v.path, v.id FROM Refs r CROSS JOIN ValidPaths v ON v.id = r.referrer \
    WHERE r.reference = (SELECT id FROM ValidPaths WHERE path = ?1)";
const DERIVERS: &str = "SELECT v.path, v.id FROM DerivationOutputs d CROSS JOIN ValidPaths v ON v.id = d.drv \
    WHERE d.path = ?1 ORDER BY v.path";
const OUTPUTS: &str = "SELECT id, path FROM DerivationOutputs WHERE drv = ?1 ORDER BY id";
const FIRST_FROM: &str = "SELECT path, id FROM ValidPaths WHERE path >= ?1 ORDER BY path LIMIT 1";
const ALL: &str = "SELECT path, id FROM ValidPaths";
/// Moves when another connection has committed.
const DATA_VERSION: &str = "PRAGMA data_version";
const COUNT: &str = "SELECT count(*) FROM ValidPaths";

/// Statements that must be possible on a database that is worth opening.
pub(super) const NEEDED: [&str; 2] = [INFO_BY_PATH, REFERENCES];

/// A connection to ask, and what is needed to understand its answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) connection: &'a Connection,
    pub(super) store_dir: &'a StoreDir,
    pub(super) database: &'a Path,
}

impl<'a> Reader<'a> {
    pub(super) fn fail(&self, error: rusqlite::Error) -> Error {
        explain(self.database, "reading", error)
    }

    pub(super) fn prepare(&self, statement: &str) -> Result<Query<'a>> {
        let statement = self
            .connection
            .prepare_cached(statement)
            .map_err(|error| self.fail(error))?;
        Ok(Query {
            reader: *self,
            statement,
        })
    }

    /// Runs several questions on one state of the database: the one of the transaction that is running, if one is.
    pub(super) fn snapshot<T>(&self, ask: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        if !self.connection.is_autocommit() {
            return ask(self);
        }
        let run = |statement| {
            let ran = self
                .connection
                .prepare_cached(statement)
                .and_then(|mut statement| statement.execute([]));
            ran.map(drop).map_err(|error| self.fail(error))
        };
        run("BEGIN")?;
        let answer = ask(self);
        // Some errors have ended the transaction already; ending one that only reads cannot lose anything.
        match run("ROLLBACK") {
            Err(error) if !self.connection.is_autocommit() && answer.is_ok() => Err(error),
            _ => answer,
        }
    }

    /// Returns what moves when others commit, and what moves when this connection changes something.
    pub(super) fn changes(&self) -> Result<(i64, u64)> {
        let version = self.prepare(DATA_VERSION)?.integer(())?;
        Ok((version.unwrap_or_default(), self.connection.total_changes()))
    }

    /// Returns a row together with the name that errors give it.
    pub(super) fn record<'r>(&'r self, row: &'r Row<'r>, name: &'r dyn Fn() -> String) -> Record<'r> {
        Record {
            database: self.database,
            store_dir: self.store_dir,
            row,
            name,
        }
    }

    pub(super) fn not_valid(&self, path: &StorePath) -> Error {
        Error::NotValid {
            path: self.store_dir.join(path),
        }
    }

    /// Returns the ids of paths, in the order of the question.
    pub(super) fn ids(&self, paths: &[StorePath]) -> Result<Vec<Option<i64>>> {
        let mut query = self.prepare(ID_BY_PATH)?;
        let mut text = FullPath::new(self.store_dir);
        self.in_path_order(paths, |path| query.integer(text.of(path)))
    }

    /// Asks something of each path, in the order of their index, so that what lies together is read together. The
    /// answers are in the order of the question.
    fn in_path_order<T>(
        &self,
        paths: &[StorePath],
        mut ask: impl FnMut(&StorePath) -> Result<T>,
    ) -> Result<Vec<T>> {
        let _room = Room::for_paths(self.connection, paths.len());
        let mut order: Vec<usize> = (0..paths.len()).collect();
        order.sort_unstable_by_key(|&place| &paths[place]);
        let mut answers: Vec<Option<T>> = Vec::new();
        answers.resize_with(paths.len(), || None);
        for place in order {
            answers[place] = Some(ask(&paths[place])?);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    pub(super) fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>> {
        Ok(self.ids(paths)?.into_iter().map(|id| id.is_some()).collect())
    }

    pub(super) fn archives(&self, paths: &[StorePath]) -> Result<Vec<Option<ArchiveInfo>>> {
        let mut info_by_path = self.prepare(INFO_BY_PATH)?;
        let mut text = FullPath::new(self.store_dir);
        self.in_path_order(paths, |path| {
            let name = || self.store_dir.join(path);
            info_by_path.first(text.of(path), |row| {
                Ok(ArchiveInfo::from(&self.record(row, &name).info(path)?))
            })
        })
    }

    /// Returns what is known of paths; what `known` has of the names of rows need not be read.
    pub(super) fn path_infos(
        &self,
        paths: &[StorePath],
        known: &mut KnownNames,
    ) -> Result<Vec<Option<PathInfo>>> {
        let _room = Room::for_paths(self.connection, paths.len());
        let mut info_by_path = self.prepare(INFO_BY_PATH)?;
        let mut names = Names::new(self, known)?;
        let mut text = FullPath::new(self.store_dir);
        let mut found = self.in_path_order(paths, |path| {
            let name = || self.store_dir.join(path);
            info_by_path.first(text.of(path), |row| {
                let record = self.record(row, &name);
                Ok((record.integer(7, "ValidPaths.id")?, record.info(path)?))
            })
        })?;
        let mut with_ids: Vec<(i64, &mut PathInfo)> =
            found.iter_mut().flatten().map(|(id, info)| (*id, info)).collect();
        with_ids.sort_unstable_by_key(|(id, _)| *id);
        for (id, info) in &with_ids {
            names.insert(*id, &info.path);
        }
        let mut query = self.prepare(REFERENCES)?;
        let mut references = Vec::new();
        for (id, info) in with_ids {
            let name = || self.store_dir.join(&info.path);
            query.each(id, |row| {
                references.push(self.record(row, &name).integer(0, "Refs.reference")?);
                Ok(())
            })?;
            let paths = references.drain(..).map(|reference| names.of(reference, &name));
            let paths = paths.collect::<Result<_>>()?;
            info.references = paths;
            info.references.sort_unstable();
        }
        Ok(found.into_iter().map(|found| Some(found?.1)).collect())
    }

    /// Returns all paths that a statement finds for each path, sorted. The statement gives a path and its id.
    fn paths_for_each(&self, statement: &str, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        let mut query = self.prepare(statement)?;
        let mut text = FullPath::new(self.store_dir);
        let mut found = |path: &StorePath| {
            let mut found = Vec::new();
            query.each(text.of(path), |row| {
                found.push(self.path(row)?);
                Ok(())
            })?;
            found.sort_unstable();
            found.dedup();
            Ok(found)
        };
        paths.iter().map(&mut found).collect()
    }

    pub(super) fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.paths_for_each(REFERRER_PATHS, paths)
    }

    pub(super) fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.paths_for_each(DERIVERS, paths)
    }

    pub(super) fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>> {
        let ids = self.ids(derivations)?;
        let mut query = self.prepare(OUTPUTS)?;
        let mut outputs = |(path, id): (&StorePath, Option<i64>)| {
            let Some(id) = id else { return Ok(None) };
            let name = || self.store_dir.join(path);
            let mut outputs = Vec::new();
            query.each(id, |row| {
                let record = self.record(row, &name);
                let output = record.utf8(0, "DerivationOutputs.id")?.to_owned();
                outputs.push((output, record.path(1, "DerivationOutputs.path")?));
                Ok(())
            })?;
            Ok(Some(outputs))
        };
        derivations.iter().zip(ids).map(&mut outputs).collect()
    }

    pub(super) fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>> {
        let mut query = self.prepare(FIRST_FROM)?;
        let mut find = |part: &HashPart| {
            let prefix = format!("{}/{part}", self.store_dir);
            let found = query.first(prefix.as_str(), |row| {
                // The next path in order need not be right: it was not asked for.
                let matches = row
                    .get_ref(0)
                    .ok()
                    .and_then(|path| path.as_bytes().ok()?.strip_prefix(prefix.as_bytes()));
                if matches.is_some() {
                    self.path(row).map(Some)
                } else {
                    Ok(None)
                }
            })?;
            Ok(found.flatten())
        };
        parts.iter().map(&mut find).collect()
    }

    pub(super) fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.prepare(ALL)?.each((), |row| visit(self.path(row)?))
    }

    pub(super) fn count(&self) -> Result<u64> {
        let count = self.prepare(COUNT)?.integer(())?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    /// Returns the full path of an id, or what there is to say instead.
    pub(super) fn name_of(&self, id: i64) -> Result<String> {
        let path = Names::new(self, &mut KnownNames::default())?.of(id, &|| row_name(id))?;
        Ok(self.store_dir.join(&path))
    }

    /// Returns the path of a row whose first columns are a path and its id.
    fn path(&self, row: &Row<'_>) -> Result<StorePath> {
        let name = || {
            row.get_ref(1)
                .and_then(|id| Ok(id.as_i64()?))
                .map_or_else(|_| "a row".to_owned(), row_name)
        };
        self.record(row, &name).path(0, "ValidPaths.path")
    }
}

/// What a row is called in errors if its path is of no use.
pub(super) fn row_name(id: i64) -> String {
    format!("row {id}")
}

/// A prepared statement with at most one parameter.
pub(super) struct Query<'a> {
    reader: Reader<'a>,
    statement: CachedStatement<'a>,
}

impl Query<'_> {
    /// Runs the statement and shows every row.
    pub(super) fn each(
        &mut self,
        parameter: impl Parameter,
        mut show: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let reader = self.reader;
        parameter
            .bind(&mut self.statement)
            .map_err(|error| reader.fail(error))?;
        let mut rows = self.statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| reader.fail(error))? {
            show(row)?;
        }
        Ok(())
    }

    /// Runs the statement and makes something of the first row, if there is one.
    pub(super) fn first<T>(
        &mut self,
        parameter: impl Parameter,
        make: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let reader = self.reader;
        parameter
            .bind(&mut self.statement)
            .map_err(|error| reader.fail(error))?;
        let mut rows = self.statement.raw_query();
        let row = rows.next().map_err(|error| reader.fail(error))?;
        row.map(make).transpose()
    }

    /// Runs the statement and returns the integer in the first row, if there is one.
    pub(super) fn integer(&mut self, parameter: impl Parameter) -> Result<Option<i64>> {
        let reader = self.reader;
        self.first(parameter, |row| row.get(0).map_err(|error| reader.fail(error)))
    }
}

/// What a statement is run with.
pub(super) trait Parameter {
    fn bind(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()>;
}

impl Parameter for () {
    fn bind(&self, _: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        Ok(())
    }
}

impl Parameter for i64 {
    fn bind(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        statement.raw_bind_parameter(1, self)
    }
}

impl Parameter for &str {
    fn bind(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        statement.raw_bind_parameter(1, self)
    }
}

/// Full paths, made one after the other in the same memory.
pub(super) struct FullPath<'a> {
    store_dir: &'a StoreDir,
    text: String,
}

impl<'a> FullPath<'a> {
    pub(super) fn new(store_dir: &'a StoreDir) -> Self {
        Self {
            store_dir,
            text: String::new(),
        }
    }

    pub(super) fn of(&mut self, path: &StorePath) -> &str {
        self.text.clear();
        self.store_dir.push(path, &mut self.text);
        &self.text
    }
}
