// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paths of rows that others refer to by their id.

use std::collections::HashMap;
use std::path::Path;

use superpose_store_path::StorePath;

use super::read::{PATH_BY_ID, Query, Reader, row_name};
use crate::{Error, Result};

/// Most names that are remembered from one question to the next: about a MiB.
const MOST: usize = 12 * 1024;

/// Paths of ids that were read, which hold for one state of one database.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    paths: HashMap<i64, StorePath>,
    /// What moves with the state, as [`Reader::changes`] tells it.
    changes: Option<(i64, u64)>,
}

impl KnownNames {
    /// Forgets what was read in another state of the database than the reader's, and too much. Within a transaction.
    pub(super) fn refresh(&mut self, reader: &Reader<'_>) -> Result<()> {
        let changes = Some(reader.changes()?);
        if changes != self.changes || self.paths.len() > MOST {
            self.paths.clear();
            self.changes = changes;
        }
        Ok(())
    }
}

/// The paths of ids, each read once.
pub(super) struct Names<'a, 'k> {
    reader: Reader<'a>,
    path_by_id: Query<'a>,
    known: &'k mut HashMap<i64, StorePath>,
}

impl<'a, 'k> Names<'a, 'k> {
    pub(super) fn new(reader: &Reader<'a>, known: &'k mut KnownNames) -> Result<Self> {
        Ok(Self {
            reader: *reader,
            path_by_id: reader.prepare(PATH_BY_ID)?,
            known: &mut known.paths,
        })
    }

    /// Tells the path of an id that was read otherwise.
    pub(super) fn insert(&mut self, id: i64, path: &StorePath) {
        self.known.insert(id, path.clone());
    }

    /// Returns the path of an id that another row refers to.
    pub(super) fn of(&mut self, id: i64, referrer: &dyn Fn() -> String) -> Result<StorePath> {
        if let Some(path) = self.known.get(&id) {
            return Ok(path.clone());
        }
        let reader = self.reader;
        let name = || row_name(id);
        let found = self
            .path_by_id
            .first(id, |row| reader.record(row, &name).path(0, "ValidPaths.path"))?;
        let path = found.ok_or_else(|| dangling(reader.database, id, referrer()))?;
        self.known.insert(id, path.clone());
        Ok(path)
    }
}

/// Makes the error of a reference to a row that does not exist.
pub(super) fn dangling(database: &Path, id: i64, row: String) -> Error {
    Error::ColumnValue {
        database: database.to_owned(),
        row,
        column: "Refs.reference",
        expected: "the id of a valid path",
        found: format!("the integer {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, MetadataSource, OpenDatabase, PathInfo};
    use superpose_store_path::{Hash, StoreDir};

    #[test]
    fn names_hold_until_somebody_changes_the_database() {
        let top = tempfile::tempdir().expect("a directory");
        let options = OpenDatabase::read_write(top.path(), StoreDir::default());
        let mut ours = Database::open(&options).expect("a database");
        let path = |letter: &str| {
            let name = format!("{}-name", letter.repeat(32));
            StorePath::from_base_name(name.as_bytes()).expect("a store path")
        };
        let info = |letter, references| PathInfo {
            references,
            ..PathInfo::new(path(letter), Hash::sha256([1; 32]), 1)
        };
        let infos = [info("a", vec![]), info("b", vec![path("a")])];
        let mut transaction = ours.begin().expect("a transaction");
        let mut no_derivation = |_: &StorePath| Ok(Vec::new());
        let registered = transaction.register(&infos, &mut no_derivation);
        registered.expect("they are new");
        transaction.commit().expect("it is written");
        let references = |database: &Database| {
            let infos = database.path_infos(&[path("b")]).expect("an answer");
            infos
                .into_iter()
                .flatten()
                .next()
                .expect("it is valid")
                .references
        };
        assert_eq!(references(&ours), [path("a")]);

        let theirs = Database::open(&options).expect("the same");
        let rename = |database: &Database, from: &str, to: &str| {
            let dir = StoreDir::default();
            let (connection, _) = database.writable().expect("it is");
            let rename = "UPDATE ValidPaths SET path = ?2 WHERE path = ?1";
            let renamed = connection.execute(rename, [dir.join(&path(from)), dir.join(&path(to))]);
            assert_eq!(renamed.expect("a row"), 1);
        };
        rename(&theirs, "a", "c");
        assert_eq!(references(&ours), [path("c")]);
        rename(&ours, "c", "d");
        assert_eq!(references(&ours), [path("d")]);
    }
}
