// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to tell that a run did its work.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use superpose_store_path::StoreDir;

use crate::layers::Layers;

/// How to tell that a run did its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// So many lines, the same of both programs in any order.
    Lines(usize),
    /// JSON with the closure sizes of so many paths, the same of both programs.
    ClosureSizes(usize),
    /// So many rows in the upper database.
    Rows(u64),
    /// An object of this name in the upper layer: the one line that is printed is its path.
    Added,
    /// The upper layer and its database are as they have to be.
    Layer(LayerProof),
    /// That it finds an object that was changed, which is tried when all runs are over.
    Verified,
    /// So many objects and rows in the store that was copied to.
    Copied(u32),
}

/// What has to be in the upper layer and its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerProof {
    /// Objects in the layer.
    pub(crate) objects: u32,
    /// Rows of the objects that are only above.
    pub(crate) own: u32,
    /// Rows in all; both programs know other rows of lower objects after a collection.
    pub(crate) rows: Option<u32>,
    /// The number that the last line printed begins with.
    pub(crate) deleted: Option<u64>,
}

impl Proof {
    /// Reads what a run printed, in a form in which two runs can be compared; fails if it did not do its work.
    pub(crate) fn of(&self, output: &Path, layers: &Layers) -> Result<Vec<String>> {
        let text = fs::read_to_string(output).with_context(|| format!("reading {}", output.display()))?;
        match self {
            Proof::Lines(count) => {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort_unstable();
                let is_right = lines.len() == *count || *count == 0 && !lines.is_empty();
                ensure!(is_right, "{count} lines expected, {} found", lines.len());
                Ok(lines)
            }
            Proof::ClosureSizes(count) => {
                let sizes = closure_sizes(&serde_json::from_str(&text)?)?;
                ensure!(
                    sizes.len() == *count,
                    "{count} sizes expected, {} found",
                    sizes.len()
                );
                Ok(sizes)
            }
            Proof::Rows(count) => {
                let rows = layers.count()?;
                ensure!(rows == *count, "{count} rows expected, {rows} found");
                Ok(Vec::new())
            }
            Proof::Added => {
                let path = StoreDir::default().parse_path(text.trim_end().as_bytes())?;
                ensure!(layers.holds(&path), "{path} is not in the upper layer");
                Ok(vec![text])
            }
            Proof::Layer(proof) => {
                proof.check(&text, layers)?;
                Ok(Vec::new())
            }
            Proof::Verified => Ok(Vec::new()),
            Proof::Copied(count) => {
                let found = layers.copied()?;
                let expected = [u64::from(*count); 2];
                ensure!(
                    found == expected,
                    "{expected:?} rows and objects expected, {found:?} found"
                );
                Ok(Vec::new())
            }
        }
    }
}

impl LayerProof {
    /// So many objects were collected, which were all that the layer had.
    pub(crate) fn collected(count: u32) -> Self {
        Self {
            objects: 0,
            own: 0,
            rows: None,
            deleted: Some(u64::from(count)),
        }
    }

    /// So many objects left the layer, and their rows stayed.
    pub(crate) fn deduplicated(count: u32) -> Self {
        Self {
            objects: 0,
            own: 0,
            rows: Some(count),
            deleted: None,
        }
    }

    fn check(&self, text: &str, layers: &Layers) -> Result<()> {
        let objects = layers.objects()?;
        ensure!(
            objects == u64::from(self.objects),
            "{} objects expected in the upper layer, {objects} found",
            self.objects
        );
        let own = layers.count_own()?;
        ensure!(
            own == u64::from(self.own),
            "{} rows of own objects expected, {own} found",
            self.own
        );
        if let Some(rows) = self.rows {
            let found = layers.count()?;
            ensure!(found == u64::from(rows), "{rows} rows expected, {found} found");
        }
        if let Some(deleted) = self.deleted {
            let line = text.lines().last().unwrap_or_default();
            let number = line.split(' ').next().and_then(|word| word.parse().ok());
            ensure!(
                number == Some(deleted),
                "{deleted} deletions expected, said: {line:?}"
            );
        }
        Ok(())
    }
}

fn closure_sizes(document: &Value) -> Result<Vec<String>> {
    let infos = document["info"].as_object().context("no object `info`")?;
    let sizes = infos.iter().map(|(path, info)| {
        let size = info["closureSize"].as_u64();
        Ok(format!(
            "{path} {}",
            size.with_context(|| format!("no closure size of {path}"))?
        ))
    });
    let mut sizes: Vec<String> = sizes.collect::<Result<_>>()?;
    sizes.sort_unstable();
    Ok(sizes)
}
