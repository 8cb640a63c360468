// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory a collection needs over a very large upper database. Its rows are written directly: objects with
//! files would take an hour, and no collection looks for those that it keeps.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, params};
use superpose_metadata::{Database, OpenDatabase};
use superpose_store_path::{Hash, HashAlgorithm, HashEncoding, StoreDir};

use crate::cases::{Lower, Roots, Sizes, Upper};
use crate::graph;
use crate::layers::{Layers, remove};
use crate::measure;
use crate::objects::{self, FORM, REGISTERED, seed_of, signature};
use crate::runs::Bench;
use crate::table::Samples;

/// One row of so many is dead; all others are below one root.
const DEAD: u32 = 1000;

/// What a collection took.
#[derive(Debug)]
pub(crate) struct ManyRows {
    pub(crate) rows: u32,
    pub(crate) samples: Samples,
}

impl ManyRows {
    /// Collects once.
    pub(crate) fn measure(bench: &Bench, sizes: Sizes) -> Result<Self> {
        let stage = &bench.stage;
        let rows = sizes.rows;
        let alive = rows - rows / DEAD;
        let pristine = stage.work.join(format!("rows-{rows}"));
        let mark = pristine.join("generated");
        let description = format!("form {FORM}, {alive} of {rows} alive\n");
        if !fs::read_to_string(&mark).is_ok_and(|text| text == description) {
            eprintln!("making a database of {rows} rows");
            remove(&pristine)?;
            fs::create_dir_all(pristine.join("upper"))?;
            write_rows(&pristine.join("db"), rows, alive)?;
            fs::write(&mark, description)?;
        }
        let upper = Upper {
            roots: Roots::Nothing,
            ..Upper::EMPTY
        };
        let copied = stage.memory.join("rows.copied");
        let dir = stage.work.join("rows");
        let layers = Layers::make(&dir, stage.store(Lower::Small), &upper, &pristine, &copied)?;
        layers.add_root("rows", &objects::path(alive - 1))?;
        let url = ["--store".into(), layers.url().into()];
        let program = bench.superpose.with(&url).with(&["gc".into()]);
        let sample = measure::run(&program, &stage.work.join("rows.out"))?;
        let left = layers.count()?;
        ensure!(
            left == u64::from(alive),
            "{alive} of {rows} rows should be left, {left} are"
        );
        drop(layers);
        remove(&dir)?;
        Ok(Self {
            rows,
            samples: Samples(vec![sample]),
        })
    }
}

/// Rows with references like those of generated stores. The first `alive` are below the last of them.
fn write_rows(db: &Path, rows: u32, alive: u32) -> Result<()> {
    fs::create_dir_all(db)?;
    drop(Database::open(&OpenDatabase::read_write(
        db,
        StoreDir::default(),
    ))?);
    let file = db.join("db.sqlite");
    let mut connection = Connection::open(&file).with_context(|| format!("opening {}", file.display()))?;
    // Nobody else reads it yet, and whoever finds no mark makes it anew.
    connection.execute_batch(
        "PRAGMA foreign_keys = off; PRAGMA synchronous = off; PRAGMA journal_mode = memory;
         DROP INDEX IndexReference;",
    )?;
    let transaction = connection.transaction()?;
    {
        let dir = StoreDir::default();
        let mut path = transaction.prepare(
            "INSERT INTO ValidPaths (id, path, hash, registrationTime, deriver, narSize, sigs)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut reference = transaction.prepare("INSERT INTO Refs (referrer, reference) VALUES (?, ?)")?;
        let graph = graph::references(rows, &[alive], u64::from(FORM));
        for (object, references) in (0..rows).zip(graph) {
            let mut seeded = seed_of(object);
            let mut digest = [0; 32];
            seeded.fill(&mut digest);
            let hash = Hash::new(HashAlgorithm::Sha256, &digest)?;
            let name = objects::path(object);
            let deriver = format!("{}.drv", dir.join(&name));
            path.execute(params![
                object + 1,
                dir.join(&name),
                hash.render(HashEncoding::Base16),
                REGISTERED,
                deriver,
                1 + seeded.below(1 << 20),
                signature(&mut seeded)?.as_str(),
            ])?;
            for to in references {
                reference.execute([object + 1, to + 1])?;
            }
        }
    }
    transaction.commit()?;
    connection.execute_batch("CREATE INDEX IndexReference ON Refs(reference); PRAGMA journal_mode = wal;")?;
    Ok(())
}
