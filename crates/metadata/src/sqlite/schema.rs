// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables of a Nix store, as stores of schema 10 have them since Nix 2.35.

use rusqlite::{Connection, TransactionBehavior};

/// The tables, all made only if they are not there.
///
/// The index on `Refs(referrer)` that Nix up to 2.34 makes is left out: the primary key serves the same
/// queries. Recording the migration that drops it saves Nix 2.35 and newer from asking for the big lock
/// exclusively, and 2.34 leaves such a database as it is.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS ValidPaths (
        id               INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        path             TEXT UNIQUE NOT NULL,
        hash             TEXT NOT NULL,
        registrationTime INTEGER NOT NULL,
        deriver          TEXT,
        narSize          INTEGER,
        ultimate         INTEGER,
        sigs             TEXT,
        ca               TEXT
    );
    CREATE TABLE IF NOT EXISTS Refs (
        referrer  INTEGER NOT NULL,
        reference INTEGER NOT NULL,
        PRIMARY KEY (referrer, reference),
        FOREIGN KEY (referrer) REFERENCES ValidPaths(id) ON DELETE CASCADE,
        FOREIGN KEY (reference) REFERENCES ValidPaths(id) ON DELETE RESTRICT
    );
    CREATE INDEX IF NOT EXISTS IndexReference ON Refs(reference);
    -- A path that refers to itself would otherwise be kept by the restriction above.
    CREATE TRIGGER IF NOT EXISTS DeleteSelfRefs BEFORE DELETE ON ValidPaths
    BEGIN
        DELETE FROM Refs WHERE referrer = old.id AND reference = old.id;
    END;
    CREATE TABLE IF NOT EXISTS DerivationOutputs (
        drv  INTEGER NOT NULL,
        id   TEXT NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (drv, id),
        FOREIGN KEY (drv) REFERENCES ValidPaths(id) ON DELETE CASCADE
    );
    CREATE INDEX IF NOT EXISTS IndexDerivationOutputs ON DerivationOutputs(path);
    CREATE TABLE IF NOT EXISTS SchemaMigrations (
        migration TEXT PRIMARY KEY NOT NULL
    );
";

/// What is recorded in a database that was empty before.
const FRESH: &str = "
    INSERT OR IGNORE INTO SchemaMigrations VALUES ('20260309-drop-redundant-indexreferrer');
";

/// The table of realisations of Nix up to 2.34, with its migration.
pub(super) const REALISATIONS: &str = "
    CREATE TABLE IF NOT EXISTS SchemaMigrations (migration TEXT PRIMARY KEY NOT NULL);
    CREATE TABLE IF NOT EXISTS Realisations (
        id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        drvPath    TEXT NOT NULL,
        outputName TEXT NOT NULL,
        outputPath INTEGER NOT NULL,
        signatures TEXT,
        FOREIGN KEY (outputPath) REFERENCES ValidPaths(id) ON DELETE CASCADE
    );
    CREATE INDEX IF NOT EXISTS IndexRealisations ON Realisations(drvPath, outputName);
    CREATE TABLE IF NOT EXISTS RealisationsRefs (
        referrer             INTEGER NOT NULL,
        realisationReference INTEGER,
        FOREIGN KEY (referrer) REFERENCES Realisations(id) ON DELETE CASCADE,
        FOREIGN KEY (realisationReference) REFERENCES Realisations(id) ON DELETE RESTRICT
    );
    CREATE INDEX IF NOT EXISTS IndexRealisationsRefsRealisationReference ON RealisationsRefs(realisationReference);
    CREATE INDEX IF NOT EXISTS IndexRealisationsRefs ON RealisationsRefs(referrer);
    CREATE INDEX IF NOT EXISTS IndexRealisationsRefsOnOutputPath ON Realisations(outputPath);
    -- The rows that would forbid the deletion of a path's realisations go first.
    CREATE TRIGGER IF NOT EXISTS DeleteSelfRefsViaRealisations BEFORE DELETE ON ValidPaths
    BEGIN
        DELETE FROM RealisationsRefs WHERE realisationReference IN (
            SELECT id FROM Realisations WHERE outputPath = old.id
        );
    END;
    INSERT OR IGNORE INTO SchemaMigrations VALUES ('20220326-ca-derivations');
";

/// The table of realisations of Nix 2.35 and newer, with its migration.
pub(super) const BUILD_TRACE: &str = "
    CREATE TABLE IF NOT EXISTS SchemaMigrations (migration TEXT PRIMARY KEY NOT NULL);
    CREATE TABLE IF NOT EXISTS BuildTraceV3 (
        id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        drvPath    TEXT NOT NULL,
        outputName TEXT NOT NULL,
        outputPath TEXT NOT NULL,
        signatures TEXT
    );
    CREATE INDEX IF NOT EXISTS IndexBuildTraceV3 ON BuildTraceV3(drvPath, outputName);
    INSERT OR IGNORE INTO SchemaMigrations VALUES ('20251017-ca-derivations');
";

/// Makes the tables of a store, as far as they are not there.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A database that has lost its schema file may have the index still: its migration is Nix's to make.
    let fresh = !transaction.table_exists(None::<&str>, "ValidPaths")?;
    transaction.execute_batch(TABLES)?;
    if fresh {
        transaction.execute_batch(FRESH)?;
    }
    transaction.commit()
}
