// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole database as a graph of numbers, read from one end to the other.

use superpose_store_path::StorePath;

use super::database::Database;
use super::read::{PATH_BY_ID, Reader, row_name};
use crate::liveness::{LivenessBuilder, LivenessGraph};
use crate::{MetadataSource, Result};

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
        let count = usize::try_from(self.count()?).unwrap_or(0);
        self.read(|reader| reader.liveness_graph(count))
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
    fn liveness_graph(&self, count: usize) -> Result<LivenessGraph> {
        let mut builder = LivenessBuilder::with_capacity(count);
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
        self.prepare(ALL_REFERENCES)?.each((), |row| {
            let record = self.record(row, &|| "a reference".to_owned());
            let (from, to) = (
                record.integer(0, "Refs.referrer")?,
                record.integer(1, "Refs.reference")?,
            );
            dangling += u64::from(!builder.reference(from, to));
            Ok(())
        })?;
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
