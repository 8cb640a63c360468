// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole database as a graph of numbers, read from one end to the other.

use std::sync::mpsc::{self, Receiver};
use std::thread::{self, ScopedJoinHandle};

use rusqlite::types::ValueRef;
use superpose_store_path::StorePath;

use super::database::Database;
use super::gather::{Portion, gather, gathered};
use super::read::{PATH_BY_ID, Reader, row_name};
use crate::Result;
use crate::liveness::{LivenessBuilder, LivenessGraph, Named};

/// How many rows are worth a thread and a connection of its own for the references.
const MANY: usize = 5_000;

/// How many references are handed over to another thread at once.
const BATCH: usize = 4096;

/// Room is made for so many rows at most before they are counted.
const MOST_ROOM: usize = 1 << 20;

/// The first and the last number of a row: to count the rows would take a tenth of the time of reading them.
const SPAN: &str = "SELECT (SELECT min(id) FROM ValidPaths), (SELECT max(id) FROM ValidPaths)";
/// In the order of the index, which holds both columns: the table itself, three times as large, is not read.
const PATHS: &str = "SELECT id, path FROM ValidPaths INDEXED BY sqlite_autoindex_ValidPaths_1 ORDER BY path";
const DERIVERS: &str = "SELECT id, deriver FROM ValidPaths WHERE deriver IS NOT NULL";
const GATHERED_PATHS: &str = gathered!(
    "id, path",
    "FROM ValidPaths INDEXED BY sqlite_autoindex_ValidPaths_1"
);
/// As with the paths.
const REFERENCES: &str =
    "SELECT referrer, reference FROM Refs INDEXED BY sqlite_autoindex_Refs_1 ORDER BY referrer, reference";
/// In the order of the index too, but nothing obliges SQLite to that: whoever receives them sees to it.
const GATHERED_BELOW: &str = gathered!(
    "referrer, reference",
    "FROM Refs INDEXED BY sqlite_autoindex_Refs_1 WHERE referrer < ?1"
);
const GATHERED_FROM: &str = gathered!(
    "referrer, reference",
    "FROM Refs INDEXED BY sqlite_autoindex_Refs_1 WHERE referrer >= ?1"
);
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
                    let (send, references) = mpsc::channel();
                    let cut = span.share();
                    let portion = Portion {
                        room: BATCH,
                        most: BATCH,
                    };
                    let thread =
                        scope.spawn(move || gather(&second, GATHERED_BELOW, [cut], portion, reference, send));
                    let beside = Beside {
                        cut,
                        references,
                        thread,
                    };
                    reader.liveness_graph(span, Some(beside))
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
    fn liveness_graph(&self, span: Span, beside: Option<Beside<'_>>) -> Result<LivenessGraph> {
        let (mut builder, has_derivations) = LivenessBuilder::of_paths(self.all_paths(span)?);
        if has_derivations {
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
        let mut add = |(from, to): (i64, i64)| dangling += u64::from(!builder.reference(from, to));
        if !self.gather_references(beside, &mut add) {
            builder.forget_references();
            dangling = 0;
            self.each_reference(|from, to| dangling += u64::from(!builder.reference(from, to)))?;
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

    /// Reads all paths, in any order.
    fn all_paths(&self, span: Span) -> Result<Vec<(i64, Named)>> {
        let (send, receive) = mpsc::channel();
        let portion = Portion {
            room: span.len().min(MOST_ROOM),
            most: usize::MAX,
        };
        let store_dir = self.store_dir.clone();
        let named = move |id: ValueRef<'_>, path: ValueRef<'_>| {
            let path = Named::parse(&store_dir, path.as_bytes().ok()?).ok()?;
            Some((id.as_i64().ok()?, path))
        };
        match gather(self.connection, GATHERED_PATHS, (), portion, named, send) {
            Ok(()) => Ok(receive.into_iter().next().unwrap_or_default()),
            Err(error) => {
                tracing::debug!(%error, "reading the paths row by row, which tells what is wrong");
                self.each_path()
            }
        }
    }

    fn each_path(&self) -> Result<Vec<(i64, Named)>> {
        let mut paths = Vec::new();
        self.prepare(PATHS)?.each((), |row| {
            let name = || row.get(0).map_or_else(|_| "a row".to_owned(), row_name);
            let record = self.record(row, &name);
            let text = record.text(1, "ValidPaths.path")?;
            let path = record.parsed("ValidPaths.path", Named::parse(self.store_dir, text))?;
            paths.push((record.integer(0, "ValidPaths.id")?, path));
            Ok(())
        })?;
        Ok(paths)
    }

    /// Shows all references in the ascending order of the referrers. If that does not work it is false, and what was
    /// shown is void.
    fn gather_references(&self, beside: Option<Beside<'_>>, show: &mut impl FnMut((i64, i64))) -> bool {
        let (send, own) = mpsc::channel();
        let portion = Portion {
            room: 0,
            most: usize::MAX,
        };
        let from = beside.as_ref().map_or(i64::MIN, |beside| beside.cut);
        let gathered = gather(self.connection, GATHERED_FROM, [from], portion, reference, send);
        let mut last = i64::MIN;
        let mut show_batch = |batch: Vec<(i64, i64)>| {
            batch.into_iter().all(|reference| {
                let is_next = reference.0 >= last;
                last = reference.0;
                show(reference);
                is_next
            })
        };
        let below = beside.map_or(Ok(true), |beside| {
            let is_in_order = beside.references.into_iter().all(&mut show_batch);
            let ended = beside
                .thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map(|()| is_in_order)
        });
        match (below, gathered) {
            (Ok(is_in_order), Ok(())) => is_in_order && own.into_iter().all(show_batch),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "reading the references row by row, which tells what is wrong");
                false
            }
        }
    }

    fn each_reference(&self, mut show: impl FnMut(i64, i64)) -> Result<()> {
        self.prepare(REFERENCES)?.each((), |row| {
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

/// The references of rows below a number, as another thread reads them.
#[derive(Debug)]
struct Beside<'scope> {
    cut: i64,
    references: Receiver<Vec<(i64, i64)>>,
    thread: ScopedJoinHandle<'scope, rusqlite::Result<()>>,
}

/// A referrer and what it refers to.
fn reference(referrer: ValueRef<'_>, reference: ValueRef<'_>) -> Option<(i64, i64)> {
    Some((referrer.as_i64().ok()?, reference.as_i64().ok()?))
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
    fn what_the_other_thread_could_not_finish_or_put_in_order_is_read_again() {
        let top = tempfile::tempdir().expect("a directory");
        let database = database(&top);
        let whole = database.liveness_graph().expect("a graph");
        let (connection, _) = database.writable().expect("it is");
        for (batch, ended) in [
            (vec![(1, 1), (1, 2)], Err(rusqlite::Error::InvalidQuery)),
            (vec![(2, 1), (1, 1), (2, 2)], Ok(())),
        ] {
            let graph = thread::scope(|scope| {
                let (send, references) = mpsc::channel();
                send.send(batch).expect("it is received");
                drop(send);
                let beside = Beside {
                    cut: 3,
                    references,
                    thread: scope.spawn(|| ended),
                };
                database
                    .reader(connection)
                    .liveness_graph(Span::default(), Some(beside))
            });
            assert_eq!(format!("{:?}", graph.expect("a graph")), format!("{whole:?}"));
        }
    }
}
