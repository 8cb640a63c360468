// SPDX-License-Identifier: MIT OR Apache-2.0
//! Realisations, in both kinds of table.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row};
use superpose_store_path::StorePath;

use super::fault::lacks_tables;
use super::read::Reader;
use super::schema;
use super::write::Writer;
use crate::{Error, Realisation, RealisationKey, RealisationKind, Result};

/// The statements for one kind of realisation.
struct Statements {
    /// By derivation and output: id, full output path, signatures.
    select: &'static str,
    /// All: id, full output path, signatures, derivation, output.
    all: &'static str,
    /// Takes derivation, output, full output path and signatures.
    insert: &'static str,
    update: &'static str,
    tables: &'static str,
    signatures: &'static str,
    output_path: &'static str,
}

const HASH_MODULO: Statements = Statements {
    select: "SELECT r.id, v.path, r.signatures FROM Realisations r JOIN ValidPaths v ON v.id = r.outputPath \
        WHERE r.drvPath = ?1 AND r.outputName = ?2",
    all: "SELECT r.id, v.path, r.signatures, r.drvPath, r.outputName \
        FROM Realisations r JOIN ValidPaths v ON v.id = r.outputPath",
    insert: "INSERT INTO Realisations (drvPath, outputName, outputPath, signatures) \
        SELECT ?1, ?2, id, ?4 FROM ValidPaths WHERE path = ?3",
    update: "UPDATE Realisations SET signatures = ?2 WHERE id = ?1",
    tables: schema::REALISATIONS,
    signatures: "Realisations.signatures",
    output_path: "Realisations.outputPath",
};

const BUILD_TRACE: Statements = Statements {
    select: "SELECT id, outputPath, signatures FROM BuildTraceV3 WHERE drvPath = ?1 AND outputName = ?2",
    all: "SELECT id, outputPath, signatures, drvPath, outputName FROM BuildTraceV3",
    insert: "INSERT INTO BuildTraceV3 (drvPath, outputName, outputPath, signatures) VALUES (?1, ?2, ?3, ?4)",
    update: "UPDATE BuildTraceV3 SET signatures = ?2 WHERE id = ?1",
    tables: schema::BUILD_TRACE,
    signatures: "BuildTraceV3.signatures",
    output_path: "BuildTraceV3.outputPath",
};

fn statements(kind: RealisationKind) -> &'static Statements {
    match kind {
        RealisationKind::HashModulo => &HASH_MODULO,
        RealisationKind::BuildTrace => &BUILD_TRACE,
    }
}

impl Reader<'_> {
    pub(super) fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>> {
        let found = |key| Ok(self.realisation(key)?.map(|(_, realisation)| realisation));
        keys.iter().map(found).collect()
    }

    /// Returns a realisation and the id of its row.
    fn realisation(&self, key: &RealisationKey) -> Result<Option<(i64, Realisation)>> {
        let statements = statements(key.kind);
        let mut select = match self.connection.prepare_cached(statements.select) {
            // Without the experimental feature there is no table, and so no realisation.
            Err(error) if lacks_tables(&error) => return Ok(None),
            prepared => prepared.map_err(|error| self.fail(error))?,
        };
        let row = select
            .query_row((&key.derivation, &key.output), |row| {
                Ok(self.realisation_of(row, key, statements))
            })
            .optional();
        row.map_err(|error| self.fail(error))?.transpose()
    }

    /// Reads the whole tables, once: in that of Nix 2.35 output paths have no index, and both are small.
    pub(super) fn realisations_of(&self, outputs: &[StorePath]) -> Result<Vec<Realisation>> {
        let wanted: HashSet<String> = outputs.iter().map(|path| self.store_dir.join(path)).collect();
        let mut found = Vec::new();
        for kind in [RealisationKind::HashModulo, RealisationKind::BuildTrace] {
            let statements = statements(kind);
            if wanted.is_empty() || !self.keeps_realisations(kind)? {
                continue;
            }
            self.prepare(statements.all)?.each((), |row| {
                let unnamed = || statements.signatures.to_owned();
                let record = self.record(row, &unnamed);
                // What is wrong with another row is no matter here.
                if !record
                    .text(1, statements.output_path)
                    .is_ok_and(|path| str::from_utf8(path).is_ok_and(|path| wanted.contains(path)))
                {
                    return Ok(());
                }
                let key = RealisationKey {
                    kind,
                    derivation: record.utf8(3, "drvPath")?.to_owned(),
                    output: record.utf8(4, "outputName")?.to_owned(),
                };
                found.push(self.realisation_of(row, &key, statements)?.1);
                Ok(())
            })?;
        }
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    pub(super) fn keeps_realisations(&self, kind: RealisationKind) -> Result<bool> {
        match self.connection.prepare_cached(statements(kind).select) {
            Err(error) if lacks_tables(&error) => Ok(false),
            prepared => prepared.map(|_| true).map_err(|error| self.fail(error)),
        }
    }

    fn realisation_of(
        &self,
        row: &Row<'_>,
        key: &RealisationKey,
        statements: &Statements,
    ) -> Result<(i64, Realisation)> {
        let name = || key.to_string();
        let record = self.record(row, &name);
        let realisation = Realisation {
            key: key.clone(),
            output_path: record.path(1, statements.output_path)?,
            signatures: record.signatures(2, statements.signatures)?,
        };
        Ok((record.integer(0, "id")?, realisation))
    }
}

impl Writer<'_> {
    pub(super) fn register_realisations(&self, realisations: &[Realisation]) -> Result<()> {
        for kind in [RealisationKind::HashModulo, RealisationKind::BuildTrace] {
            if realisations
                .iter()
                .any(|realisation| realisation.key.kind == kind)
            {
                self.make_tables(kind)?;
            }
        }
        realisations
            .iter()
            .try_for_each(|realisation| self.register_realisation(realisation))
    }

    fn make_tables(&self, kind: RealisationKind) -> Result<()> {
        let statements = statements(kind);
        match self.connection.prepare_cached(statements.select) {
            Err(error) if lacks_tables(&error) => self
                .connection
                .execute_batch(statements.tables)
                .map_err(|error| self.fail(error)),
            prepared => prepared.map(drop).map_err(|error| self.fail(error)),
        }
    }

    fn register_realisation(&self, new: &Realisation) -> Result<()> {
        let statements = statements(new.key.kind);
        let output = self.store_dir.join(&new.output_path);
        let written = match self.reader().realisation(&new.key)? {
            None => {
                let text = join(new.signatures.clone());
                self.prepare(statements.insert)?.execute((
                    &new.key.derivation,
                    &new.key.output,
                    &output,
                    text,
                ))
            }
            Some((_, old)) if old.output_path != new.output_path => {
                return Err(Error::ConflictingRealisation {
                    key: new.key.to_string(),
                    existing: self.store_dir.join(&old.output_path),
                    found: output,
                });
            }
            Some((id, mut old)) => {
                old.signatures.extend_from_slice(&new.signatures);
                self.prepare(statements.update)?
                    .execute((id, join(old.signatures)))
            }
        };
        match written.map_err(|error| self.fail(error))? {
            0 => Err(Error::NotValid { path: output }),
            _ => Ok(()),
        }
    }
}

/// Renders signatures. Here, unlike for paths, none at all are an empty text.
fn join(signatures: Vec<superpose_store_path::Signature>) -> String {
    super::transaction::join_signatures(signatures).unwrap_or_default()
}
