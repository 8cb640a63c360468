// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the store of a workload is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::plan::lower_objects;
use crate::{Invocation, Layers};

/// The store of a workload: the lower store in `lower`, and in `disk` all that has to survive a power cut.
#[derive(Debug)]
pub struct Place {
    /// Its directories.
    pub layers: Layers,
    /// Where contents of objects are written before they are added: not on the disk.
    pub sources: PathBuf,
}

impl Place {
    /// The store in a directory that is there and stays.
    ///
    /// # Errors
    /// If the directory for contents cannot be made.
    pub fn lasting(path: &Path) -> Result<Self> {
        Self::within(Layers::lasting(path))
    }

    /// The store in a directory of its own.
    ///
    /// # Errors
    /// If there can be none.
    pub fn scratch() -> Result<Self> {
        Self::within(Layers::new()?)
    }

    fn within(layers: Layers) -> Result<Self> {
        let layers = layers
            .over_read_only()
            .with_upper_in("disk")
            .with_state_in("disk");
        let sources = layers.join("sources");
        fs::create_dir_all(&sources).with_context(|| sources.display().to_string())?;
        Ok(Self { layers, sources })
    }

    /// The file system that the upper layer and the state are on.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.layers.join("disk")
    }

    /// Where links are that keep objects.
    pub(super) fn link(&self, name: impl AsRef<Path>) -> PathBuf {
        self.disk().join("roots").join(name)
    }

    /// The directory in which the program keeps what is on its way out.
    pub(super) fn trash(&self) -> PathBuf {
        self.layers.state().join("superpose/trash")
    }

    /// Fills the lower store, which is the same for every seed. Nothing of it is on the disk.
    ///
    /// # Errors
    /// If the program fails.
    pub fn fill_lower(&self) -> Result<()> {
        for object in lower_objects(&self.sources)? {
            let references = object.references.iter().flat_map(|path| ["--reference", path]);
            let add = self.layers.below()?.arg("add").args(references);
            add.arg(object.source(&self.sources)?).succeed()?;
        }
        // Stock Nix reads no store that lacks the directories which it makes when it writes.
        let state = self.layers.lower().join("nix/var/nix");
        for name in ["gcroots", "profiles/per-user", "temproots", "userpool"] {
            fs::create_dir_all(state.join(name))?;
        }
        let farm = self.layers.lower_dir().join(".links");
        fs::create_dir_all(farm)?;
        Ok(())
    }

    /// Makes what a new disk needs, and roots that keep the lower store; all of it is on the disk then. The merged view must
    /// be mounted.
    ///
    /// # Errors
    /// If the program fails.
    pub fn begin(&self, lower: &[String]) -> Result<()> {
        fs::create_dir_all(self.disk().join("roots"))?;
        fs::create_dir_all(self.disk().join("aside"))?;
        for (number, path) in lower.iter().enumerate() {
            let link = self.link(format!("lower-{number}"));
            let add = self.layers.superpose()?.arg("add-root").arg(link);
            add.arg(path).succeed()?;
        }
        sync_all_of(&self.disk())
    }
}

/// Writes the whole file system that a directory is on to the disk.
pub(super) fn sync_all_of(dir: &Path) -> Result<()> {
    let open = File::open(dir).with_context(|| dir.display().to_string())?;
    rustix::fs::syncfs(open).with_context(|| format!("writing {} to the disk", dir.display()))
}

/// Puts the names in a directory on the disk.
pub(super) fn sync_names_of(dir: &Path) -> Result<()> {
    let open = File::open(dir).with_context(|| dir.display().to_string())?;
    open.sync_all()
        .with_context(|| format!("writing {} to the disk", dir.display()))
}

/// A copy with all attributes.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    Invocation::new("cp").arg("-a").arg(from).arg(to).succeed()?;
    Ok(())
}
