// SPDX-License-Identifier: MIT OR Apache-2.0
//! Columns as values. Anything may be in a column; what should not be there is an error that names row and column, unless Nix
//! reads it as well and nothing depends on it.

use std::path::Path;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use superpose_store_path::{ContentAddress, Hash, Signature, StoreDir, StorePath};

use crate::{Error, PathInfo, Result};

/// What is in the way of a text of a column being used.
type TextError = superpose_store_path::Error;

/// A row, and what to call it in errors.
pub(super) struct Record<'a> {
    pub(super) database: &'a Path,
    pub(super) store_dir: &'a StoreDir,
    pub(super) row: &'a Row<'a>,
    /// The path that the row is about.
    pub(super) name: &'a dyn Fn() -> String,
}

impl Record<'_> {
    fn value(&self, index: usize) -> ValueRef<'_> {
        // An index that the statement does not have would be a mistake here: as a value it is the error of a null.
        self.row.get_ref(index).unwrap_or(ValueRef::Null)
    }

    fn unexpected(&self, index: usize, column: &'static str, expected: &'static str) -> Error {
        Error::ColumnValue {
            database: self.database.to_owned(),
            row: (self.name)(),
            column,
            expected,
            found: describe(self.value(index)),
        }
    }

    /// Returns a text that must be there.
    pub(super) fn text(&self, index: usize, column: &'static str) -> Result<&[u8]> {
        match self.value(index) {
            ValueRef::Text(text) => Ok(text),
            _ => Err(self.unexpected(index, column, "a text")),
        }
    }

    /// Returns a text that must be there and in UTF-8.
    pub(super) fn utf8(&self, index: usize, column: &'static str) -> Result<&str> {
        str::from_utf8(self.text(index, column)?).map_err(|_| self.unexpected(index, column, "UTF-8"))
    }

    /// Returns a text that may be missing. Nix takes an empty one for a missing one, at least in some columns.
    fn optional_text(&self, index: usize, column: &'static str) -> Result<Option<&[u8]>> {
        match self.value(index) {
            ValueRef::Null | ValueRef::Text(b"") => Ok(None),
            ValueRef::Text(text) => Ok(Some(text)),
            _ => Err(self.unexpected(index, column, "a text or nothing")),
        }
    }

    pub(super) fn integer(&self, index: usize, column: &'static str) -> Result<i64> {
        match self.value(index) {
            ValueRef::Integer(value) => Ok(value),
            _ => Err(self.unexpected(index, column, "an integer")),
        }
    }

    /// Returns a number that nothing depends on; 0 if there is something else, or a negative number.
    ///
    /// Nix, too, takes what SQLite makes of it.
    fn lenient_number(&self, index: usize, column: &'static str) -> i64 {
        match self.value(index) {
            ValueRef::Null => 0,
            ValueRef::Integer(value) if value >= 0 => value,
            other => {
                let (row, found) = ((self.name)(), describe(other));
                tracing::debug!(row, column, found, "read as 0: expected a number of at least 0");
                0
            }
        }
    }

    pub(super) fn parsed<T>(&self, column: &'static str, parsed: Result<T, TextError>) -> Result<T> {
        parsed.map_err(|source| Error::Column {
            database: self.database.to_owned(),
            row: (self.name)(),
            column,
            source: Box::new(source),
        })
    }

    /// Returns a full path.
    pub(super) fn path(&self, index: usize, column: &'static str) -> Result<StorePath> {
        self.parsed(column, self.store_dir.parse_path(self.text(index, column)?))
    }

    /// Returns signatures separated by blanks, sorted. Only at blanks does Nix separate them: a newline is inside of one.
    pub(super) fn signatures(&self, index: usize, column: &'static str) -> Result<Vec<Signature>> {
        let text = self.optional_text(index, column)?.unwrap_or_default();
        let parts = text.split(|&byte| byte == b' ').filter(|part| !part.is_empty());
        let signatures: Result<Vec<_>, _> = parts.map(Signature::parse_lenient).collect();
        let mut signatures = self.parsed(column, signatures)?;
        signatures.sort_unstable();
        signatures.dedup();
        Ok(signatures)
    }

    /// Returns all of a row of valid paths but the references. The first columns must be those of `info_columns!`.
    pub(super) fn info(&self, path: &StorePath) -> Result<PathInfo> {
        let deriver = self
            .optional_text(2, "ValidPaths.deriver")?
            .map(|text| self.store_dir.parse_path(text));
        let content_address = self.optional_text(6, "ValidPaths.ca")?.map(ContentAddress::parse);
        Ok(PathInfo {
            path: path.clone(),
            nar_hash: self.parsed("ValidPaths.hash", Hash::parse(self.text(0, "ValidPaths.hash")?))?,
            nar_size: self.lenient_number(3, "ValidPaths.narSize").unsigned_abs(),
            references: Vec::new(),
            deriver: self.parsed("ValidPaths.deriver", deriver.transpose())?,
            registration_time: self.lenient_number(1, "ValidPaths.registrationTime"),
            ultimate: matches!(self.value(4), ValueRef::Integer(1)),
            signatures: self.signatures(5, "ValidPaths.sigs")?,
            content_address: self.parsed("ValidPaths.ca", content_address.transpose())?,
        })
    }
}

/// The columns that [`Record::info`] reads.
macro_rules! info_columns {
    () => {
        "hash, registrationTime, deriver, narSize, ultimate, sigs, ca"
    };
}
pub(super) use info_columns;

/// How much of a value is shown, in bytes.
const SHOWN: usize = 64;

/// Renders a value for an error.
fn describe(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "nothing".to_owned(),
        ValueRef::Integer(value) => format!("the integer {value}"),
        ValueRef::Real(value) => format!("the number {value}"),
        ValueRef::Text(text) => format!("the text `{}`", text[..text.len().min(SHOWN)].escape_ascii()),
        ValueRef::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}
