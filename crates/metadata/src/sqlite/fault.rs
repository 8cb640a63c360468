// SPDX-License-Identifier: MIT OR Apache-2.0
//! What SQLite's error codes mean for a Nix store.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::Error;

/// Turns an error of SQLite into one that says what is wrong with the store.
pub(super) fn explain(database: &Path, operation: &'static str, source: rusqlite::Error) -> Error {
    let database = database.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotADatabase { database },
        Some(ErrorCode::DatabaseCorrupt) => Error::DamagedDatabase { database, source },
        _ if lacks_tables(&source) => Error::MissingTables { database, source },
        _ => Error::Sqlite {
            operation,
            database,
            source,
        },
    }
}

/// Tells whether a statement names a table, column or index that the database does not have. SQLite says so in
/// words only.
pub(super) fn lacks_tables(error: &rusqlite::Error) -> bool {
    let message = match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message,
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        _ => return false,
    };
    ["no such table", "no such column", "no such index"]
        .iter()
        .any(|start| message.starts_with(start))
}

/// Tells whether trying again later may help.
pub(super) fn is_busy(error: &Error) -> bool {
    let Error::Sqlite { source, .. } = error else {
        return false;
    };
    matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed)
    )
}

/// Tells whether the way the files were opened does not work here, so that another one may.
pub(super) fn is_out_of_reach(error: &Error) -> bool {
    let Error::Sqlite { source, .. } = error else {
        return false;
    };
    matches!(
        source.sqlite_error_code(),
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}
