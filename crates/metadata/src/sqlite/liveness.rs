// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole database as a graph of numbers, read from one end to the other.

use std::thread;

use rusqlite::Connection;
use superpose_store_path::StorePath;

use super::database::Database;
use super::read::{PATH_BY_ID, Reader, row_name};
use crate::Result;
use crate::liveness::{LivenessBuilder, LivenessGraph};

/// How many rows are worth a thread and a connection of its own for the references.
const MANY: usize = 5_000;

/// Room is made for so many rows at most before they are counted.
const MOST_ROOM: usize = 1 << 20;

/// The numbers that rows have, at most: to count the rows themselves would take a tenth of the time of reading them.
const SPAN: &str = "SELECT (SELECT max(id) FROM ValidPaths) - (SELECT min(id) FROM ValidPaths) + 1";
const ROWS: &str = "SELECT id, path, deriver FROM ValidPaths ORDER BY id";
/// In the order of the index, which holds both columns: the table itself is not read.
const ALL_REFERENCES: &str = "SELECT referrer, reference FROM Refs INDEXED BY sqlite_autoindex_Refs_1 \
    ORDER BY referrer, reference";
const ALL_OUTPUTS: &str = "SELECT drv, path FROM DerivationOutputs";

impl Database {
    /// Reads what keeps what alive, in one state of the database.
    ///
    /// What it takes of time and memory grows with the number of rows: about 60 bytes for a path with its references.
    ///
    /// # Errors
    /// If the database cannot be read, or holds a path that is none. References of rows that do not exist, and derivers
    /// and outputs that are no paths of this store, keep nothing alive and are passed over.
    pub fn liveness_graph(&self) -> Result<LivenessGraph> {
        let span = self.read(|reader| reader.span())?;
        if span >= MANY
            && let Some(graph) = self.read_by_two(|reader, second| {
                thread::scope(|scope| {
                    let references = scope.spawn(move || numbered_references(&second));
                    // If it panicked, or failed, the references are read again, and what is wrong is said then.
                    reader.liveness_graph(span, || references.join().ok()?.ok()?)
                })
            })?
        {
            return Ok(graph);
        }
        self.read(|reader| reader.liveness_graph(span, || None))
    }

    /// Returns the paths of rows, in the order of the question; `None` for rows that do not exist.
    ///
    /// # Errors
    /// If the database cannot be read, or one of the rows holds a path that is none.
    pub fn paths_of_rows(&self, rows: &[i64]) -> Result<Vec<Option<StorePath>>> {
        self.read(|reader| reader.paths_of_rows(rows))
    }
}

impl Reader<'_> {
    fn span(&self) -> Result<usize> {
        let span = self
            .prepare(SPAN)?
            .first((), |row| Ok(row.get(0).unwrap_or(0_i64)))?;
        Ok(usize::try_from(span.unwrap_or(0)).unwrap_or(usize::MAX))
    }

    /// Reads the graph; `references` gives those that another thread has read meanwhile, of the same state.
    fn liveness_graph(
        &self,
        span: usize,
        references: impl FnOnce() -> Option<Vec<(u32, u32)>>,
    ) -> Result<LivenessGraph> {
        let mut builder = LivenessBuilder::with_capacity(span.min(MOST_ROOM));
        self.prepare(ROWS)?.each((), |row| {
            let name = || row.get(0).map_or_else(|_| "a row".to_owned(), row_name);
            let record = self.record(row, &name);
            let path = record.path(1, "ValidPaths.path")?;
            let deriver = row.get_ref(2).ok().and_then(|text| text.as_bytes().ok());
            let deriver = deriver.and_then(|text| self.store_dir.parse_path(text).ok());
            builder.row(record.integer(0, "ValidPaths.id")?, &path, deriver.as_ref());
            Ok(())
        })?;
        builder.end_rows();
        let mut dangling = 0_u64;
        if let Some(references) = references() {
            for (from, to) in references {
                dangling += u64::from(!builder.reference(from.into(), to.into()));
            }
        } else {
            self.prepare(ALL_REFERENCES)?.each((), |row| {
                let record = self.record(row, &|| "a reference".to_owned());
                let (from, to) = (
                    record.integer(0, "Refs.referrer")?,
                    record.integer(1, "Refs.reference")?,
                );
                dangling += u64::from(!builder.reference(from, to));
                Ok(())
            })?;
        }
        if dangling > 0 {
            let database = self.database.display();
            tracing::debug!(%database, dangling, "references from or to rows that do not exist");
        }
        self.prepare(ALL_OUTPUTS)?.each((), |row| {
            let record = self.record(row, &|| "an output".to_owned());
            let output = row.get_ref(1).ok().and_then(|text| text.as_bytes().ok());
            if let Some(output) = output.and_then(|text| self.store_dir.parse_path(text).ok()) {
                builder.output(record.integer(0, "DerivationOutputs.drv")?, &output);
            }
            Ok(())
        })?;
        Ok(builder.finish())
    }

    fn paths_of_rows(&self, rows: &[i64]) -> Result<Vec<Option<StorePath>>> {
        let mut query = self.prepare(PATH_BY_ID)?;
        let mut path = |&id: &i64| {
            let name = || row_name(id);
            query.first(id, |row| self.record(row, &name).path(0, "ValidPaths.path"))
        };
        rows.iter().map(&mut path).collect()
    }
}

/// Reads all references by the numbers of their rows; `None` if one is none that a database of less than 2^32 rows has
/// ever given.
fn numbered_references(connection: &Connection) -> rusqlite::Result<Option<Vec<(u32, u32)>>> {
    let mut references = Vec::new();
    let mut statement = connection.prepare(ALL_REFERENCES)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let (Ok(from), Ok(to)) = (row.get(0), row.get(1)) else {
            return Ok(None);
        };
        references.push((from, to));
    }
    Ok(Some(references))
}
