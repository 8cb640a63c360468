// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole database as a graph of numbers, read from one end to the other.

use std::sync::mpsc;
use std::thread;

use rusqlite::Connection;
use superpose_store_path::StorePath;

use super::database::Database;
use super::read::{PATH_BY_ID, Reader, row_name};
use crate::Result;
use crate::liveness::{LivenessBuilder, LivenessGraph, Named};

/// How many rows are worth a thread and a connection of its own for the references.
const MANY: usize = 5_000;

/// How many references are handed over at once.
const BATCH: usize = 4096;

/// Room is made for so many rows at most before they are counted.
const MOST_ROOM: usize = 1 << 20;

/// The first and the last number of a row: to count the rows would take a tenth of the time of reading them.
const SPAN: &str = "SELECT (SELECT min(id) FROM ValidPaths), (SELECT max(id) FROM ValidPaths)";
/// In the order of the index, which holds both columns: the table itself, three times as large, is not read.
const PATHS: &str = "SELECT id, path FROM ValidPaths INDEXED BY sqlite_autoindex_ValidPaths_1 ORDER BY path";
const DERIVERS: &str = "SELECT id, deriver FROM ValidPaths WHERE deriver IS NOT NULL";
/// As with the paths.
const REFERENCES_BELOW: &str = "SELECT referrer, reference FROM Refs INDEXED BY sqlite_autoindex_Refs_1 \
    WHERE referrer < ?1 ORDER BY referrer, reference";
const REFERENCES_FROM: &str = "SELECT referrer, reference FROM Refs INDEXED BY sqlite_autoindex_Refs_1 \
    WHERE referrer >= ?1 ORDER BY referrer, reference";
const ALL_OUTPUTS: &str = "SELECT drv, path FROM DerivationOutputs";

impl Database {
    /// Reads what keeps what alive, in one state of the database.
    ///
    /// What it takes of time and memory grows with the number of rows: about 60 bytes for a path with its references.
    ///
    /// # Errors
    /// If the database cannot be read, or holds a path that is none; of its name only the length is looked at, and it is
    /// an error of [`paths_of_rows`](Self::paths_of_rows) if it cannot be one. References of rows that do not exist, and derivers
    /// and outputs that are no paths of this store, keep nothing alive and are passed over.
    pub fn liveness_graph(&self) -> Result<LivenessGraph> {
        let span = self.read(|reader| reader.span())?;
        if span.len() >= MANY
            && let Some(graph) = self.read_by_two(|reader, second| {
                thread::scope(|scope| {
                    let (send, receive) = mpsc::channel();
                    let cut = span.share();
                    scope.spawn(move || send_references(&second, cut, &send));
                    reader.liveness_graph(span, Some((cut, receive)))
                })
            })?
        {
            return Ok(graph);
        }
        self.read(|reader| reader.liveness_graph(span, None))
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
    fn span(&self) -> Result<Span> {
        let span = self.prepare(SPAN)?.first((), |row| {
            let number = |column| row.get(column).unwrap_or(0);
            Ok(Span {
                first: number(0),
                last: number(1),
            })
        })?;
        Ok(span.unwrap_or_default())
    }

    /// Reads the graph. The references of rows below a number are read by another thread meanwhile, in the same state.
    fn liveness_graph(
        &self,
        span: Span,
        others: Option<(i64, mpsc::Receiver<Batch>)>,
    ) -> Result<LivenessGraph> {
        let mut builder = LivenessBuilder::with_capacity(span.len().min(MOST_ROOM));
        self.prepare(PATHS)?.each((), |row| {
            let name = || row.get(0).map_or_else(|_| "a row".to_owned(), row_name);
            let record = self.record(row, &name);
            let text = record.text(1, "ValidPaths.path")?;
            let path = record.parsed("ValidPaths.path", Named::parse(self.store_dir, text))?;
            builder.path(record.integer(0, "ValidPaths.id")?, path);
            Ok(())
        })?;
        if builder.end_paths() {
            self.prepare(DERIVERS)?.each((), |row| {
                let record = self.record(row, &|| "a deriver".to_owned());
                let deriver = row.get_ref(1).ok().and_then(|text| text.as_bytes().ok());
                if let Some(deriver) = deriver.and_then(|text| Named::parse(self.store_dir, text).ok()) {
                    builder.deriver(record.integer(0, "ValidPaths.id")?, deriver);
                }
                Ok(())
            })?;
        }
        let mut dangling = 0_u64;
        let mut is_complete = false;
        if let Some((cut, others)) = others {
            let mut own = Vec::new();
            self.each_reference(cut, |from, to| own.push((from, to)))?;
            let batches = others.into_iter().inspect(|batch| is_complete = batch.is_last);
            for (from, to) in batches.flat_map(|batch| batch.references) {
                dangling += u64::from(!builder.reference(from, to));
            }
            if is_complete {
                for (from, to) in own {
                    dangling += u64::from(!builder.reference(from, to));
                }
            } else {
                // What is wrong is said when they are read again.
                builder.forget_references();
                dangling = 0;
            }
        }
        if !is_complete {
            self.each_reference(i64::MIN, |from, to| {
                dangling += u64::from(!builder.reference(from, to))
            })?;
        }
        if dangling > 0 {
            let database = self.database.display();
            tracing::debug!(%database, dangling, "references from or to rows that do not exist");
        }
        self.prepare(ALL_OUTPUTS)?.each((), |row| {
            let record = self.record(row, &|| "an output".to_owned());
            let output = row.get_ref(1).ok().and_then(|text| text.as_bytes().ok());
            if let Some(output) = output.and_then(|text| Named::parse(self.store_dir, text).ok()) {
                builder.output(record.integer(0, "DerivationOutputs.drv")?, output);
            }
            Ok(())
        })?;
        Ok(builder.finish())
    }

    /// Reads the references of rows from a number on.
    fn each_reference(&self, from: i64, mut show: impl FnMut(i64, i64)) -> Result<()> {
        self.prepare(REFERENCES_FROM)?.each(from, |row| {
            let record = self.record(row, &|| "a reference".to_owned());
            show(
                record.integer(0, "Refs.referrer")?,
                record.integer(1, "Refs.reference")?,
            );
            Ok(())
        })
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

/// The numbers that rows have, at most.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    first: i64,
    last: i64,
}

impl Span {
    fn len(self) -> usize {
        let len = self.last.abs_diff(self.first).saturating_add(1);
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// Where to cut, so that whoever reads the paths and the references from there on has as much to do as whoever reads
    /// the references below.
    fn share(self) -> i64 {
        let quarter = self.last.abs_diff(self.first) / 4;
        self.last.saturating_sub_unsigned(quarter)
    }
}

/// Some references, each a referrer and what it refers to.
#[derive(Debug, Default)]
struct Batch {
    references: Vec<(i64, i64)>,
    is_last: bool,
}

/// Reads the references of rows below a number. Without a last batch they are not all.
fn send_references(connection: &Connection, below: i64, to: &mpsc::Sender<Batch>) {
    let read = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare(REFERENCES_BELOW)?;
        let mut rows = statement.query([below])?;
        let mut batch = Batch::default();
        loop {
            match rows.next()? {
                Some(row) => batch.references.push((row.get(0)?, row.get(1)?)),
                None => batch.is_last = true,
            }
            if batch.is_last || batch.references.len() == BATCH {
                let is_last = batch.is_last;
                // Nobody listens any more if the rows cannot be read.
                if to.send(std::mem::take(&mut batch)).is_err() || is_last {
                    return Ok(());
                }
                batch.references.reserve_exact(BATCH);
            }
        }
    };
    if let Err(error) = read() {
        tracing::debug!(%error, "reading references beside the rows");
    }
}

#[cfg(test)]
mod tests {
    use superpose_store_path::StoreDir;

    use super::*;
    use crate::OpenDatabase;

    /// So many rows that two threads read them, and references of all kinds: to an earlier row, to itself.
    fn database(top: &tempfile::TempDir) -> Database {
        let database =
            Database::open(&OpenDatabase::read_write(top.path(), StoreDir::default())).expect("a database");
        let fill = format!(
            "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {MANY})
             INSERT INTO ValidPaths (id, path, hash, registrationTime, deriver)
             SELECT id, printf('/nix/store/%032d-x', id), '', 0, printf('/nix/store/%032d-x', id + 1) FROM n;
             INSERT INTO Refs (referrer, reference) SELECT id, id FROM ValidPaths;
             INSERT INTO Refs (referrer, reference) SELECT id, id / 2 FROM ValidPaths WHERE id > 1;"
        );
        let (connection, _) = database.writable().expect("it is");
        connection.execute_batch(&fill).expect("rows");
        database
    }

    #[test]
    fn two_threads_read_what_one_reads() {
        let top = tempfile::tempdir().expect("a directory");
        let database = database(&top);
        let one = database
            .read(|reader| reader.liveness_graph(Span::default(), None))
            .expect("a graph");
        let two = database.liveness_graph().expect("a graph");
        assert_eq!((one.len(), format!("{one:?}")), (MANY, format!("{two:?}")));
        assert_eq!(two.references(9), [4, 9]);
    }

    #[test]
    fn a_deriver_that_is_no_path_keeps_nothing() {
        let top = tempfile::tempdir().expect("a directory");
        let database = database(&top);
        let (connection, _) = database.writable().expect("it is");
        let derivation = "UPDATE ValidPaths SET path = path || '.drv' WHERE id = 2;
            UPDATE ValidPaths SET deriver = x'ff00' WHERE id = 3;
            UPDATE ValidPaths SET deriver = 7 WHERE id = 4;
            UPDATE ValidPaths SET deriver = (SELECT path FROM ValidPaths WHERE id = 2) WHERE id = 5;";
        connection.execute_batch(derivation).expect("rows");
        let graph = database.liveness_graph().expect("a graph");
        let derivers: Vec<Option<u32>> = (0..5).map(|node| graph.deriver(node)).collect();
        assert_eq!(derivers, [None, None, None, None, Some(1)]);
    }

    #[test]
    fn what_the_other_thread_could_not_finish_is_read_again() {
        let top = tempfile::tempdir().expect("a directory");
        let database = database(&top);
        let whole = database.liveness_graph().expect("a graph");
        let (send, receive) = mpsc::channel();
        let references = vec![(1, 1), (1, 2)];
        send.send(Batch {
            references,
            is_last: false,
        })
        .expect("it is received");
        drop(send);
        let (connection, _) = database.writable().expect("it is");
        let graph = database
            .reader(connection)
            .liveness_graph(Span::default(), Some((3, receive)));
        assert_eq!(format!("{:?}", graph.expect("a graph")), format!("{whole:?}"));
    }
}
