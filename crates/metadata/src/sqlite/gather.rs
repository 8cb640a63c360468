// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many rows at once: an aggregate function that hands over what it is shown, while SQLite goes through a table from one
//! end to the other. To step from row to row takes twice the time.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::mpsc::Sender;

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, Error, Params};

/// The question for two columns of many rows, for [`gather`].
macro_rules! gathered {
    ($columns:literal, $rest:literal) => {
        concat!("SELECT superpose_gather(", $columns, ") ", $rest)
    };
}
pub(super) use gathered;

/// How the function is called that [`gathered`] names.
const NAME: &str = "superpose_gather";

/// How the values that are gathered are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Portion {
    /// For so many values room is made at first.
    pub(super) room: usize,
    /// So many are handed over at once; the last ones may be fewer.
    pub(super) most: usize,
}

/// Asks a question that is [`gathered!`], and sends what `value` makes of the two columns of each row.
///
/// # Errors
/// If the database cannot be read, if nobody receives, or for a row of which nothing can be made. Which one that was is
/// not said.
pub(super) fn gather<T>(
    connection: &Connection,
    question: &str,
    parameters: impl Params,
    portion: Portion,
    value: impl Fn(ValueRef<'_>, ValueRef<'_>) -> Option<T> + Send + 'static,
    to: Sender<Vec<T>>,
) -> rusqlite::Result<()>
where
    T: Send + RefUnwindSafe + UnwindSafe + 'static,
{
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function(NAME, 2, flags, Gather { value, portion, to })?;
    let answer = connection.query_row(question, parameters, |_| Ok(()));
    // With it goes what sends, so that whoever receives sees the end.
    connection.remove_function(NAME, 2)?;
    answer
}

struct Gather<T, F> {
    value: F,
    portion: Portion,
    to: Sender<Vec<T>>,
}

impl<T, F> Gather<T, F> {
    fn send(&self, values: Vec<T>) -> rusqlite::Result<()> {
        self.to
            .send(values)
            .map_err(|_| Error::UserFunctionError("nobody receives".into()))
    }
}

impl<T, F> Aggregate<Vec<T>, Null> for Gather<T, F>
where
    T: Send + RefUnwindSafe + UnwindSafe,
    F: Fn(ValueRef<'_>, ValueRef<'_>) -> Option<T>,
{
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Vec<T>> {
        Ok(Vec::with_capacity(self.portion.room))
    }

    fn step(&self, row: &mut Context<'_>, values: &mut Vec<T>) -> rusqlite::Result<()> {
        let value = (self.value)(row.get_raw(0), row.get_raw(1));
        values.push(value.ok_or(Error::InvalidQuery)?);
        if values.len() == self.portion.most {
            self.send(std::mem::replace(values, Vec::with_capacity(self.portion.room)))?;
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, values: Option<Vec<T>>) -> rusqlite::Result<Null> {
        if let Some(values) = values.filter(|values| !values.is_empty()) {
            self.send(values)?;
        }
        Ok(Null)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const QUESTION: &str = gathered!("a, b", "FROM t WHERE a < ?1");

    fn table(rows: &str) -> Connection {
        let connection = Connection::open_in_memory().expect("a database");
        let create = format!("CREATE TABLE t (a, b); INSERT INTO t VALUES {rows};");
        connection.execute_batch(&create).expect("rows");
        connection
    }

    fn numbers(connection: &Connection, below: i64, most: usize) -> rusqlite::Result<Vec<Vec<(i64, i64)>>> {
        let (send, receive) = mpsc::channel();
        let pair = |a: ValueRef<'_>, b: ValueRef<'_>| Some((a.as_i64().ok()?, b.as_i64().ok()?));
        gather(
            connection,
            QUESTION,
            [below],
            Portion { room: 1, most },
            pair,
            send,
        )?;
        Ok(receive.into_iter().collect())
    }

    #[test]
    fn all_rows_are_handed_over_in_portions() {
        let connection = table("(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)");
        for (below, most, expected) in [
            (
                6,
                usize::MAX,
                vec![vec![(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]],
            ),
            (
                6,
                2,
                vec![vec![(1, 10), (2, 20)], vec![(3, 30), (4, 40)], vec![(5, 50)]],
            ),
            (5, 2, vec![vec![(1, 10), (2, 20)], vec![(3, 30), (4, 40)]]),
            (1, 2, vec![]),
        ] {
            assert_eq!(numbers(&connection, below, most).expect("numbers"), expected);
        }
    }

    #[test]
    fn a_row_that_is_none_is_an_error_and_the_connection_is_as_before() {
        let connection = table("(1, 10), (2, 'two')");
        assert!(numbers(&connection, 3, 1).is_err());
        assert_eq!(numbers(&connection, 2, 1).expect("numbers"), [[(1, 10)]]);
        let left = connection.prepare(QUESTION).expect_err("the function is gone");
        assert!(left.to_string().contains(NAME), "{left}");
    }

    #[test]
    fn nobody_is_sent_for_who_does_not_listen() {
        let connection = table("(1, 10), (2, 20)");
        let (send, receive) = mpsc::channel();
        drop(receive);
        let portion = Portion { room: 0, most: 1 };
        assert!(gather(&connection, QUESTION, [3], portion, |_, _| Some(()), send).is_err());
    }
}
