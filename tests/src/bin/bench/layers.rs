// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay store for one program: its own directories and mount over a generated store, put back into the state
//! that each run starts from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use superpose_metadata::{Database, MetadataSource, OpenDatabase};
use superpose_store_path::{StoreDir, StorePath, StoreReference};
use superpose_tests::OverlayMount;

use crate::generate::Generated;

/// What a run may have changed, and the next one must not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restore {
    /// Nothing: the command only reads, whichever program runs it.
    Nothing,
    /// The upper database.
    Database,
    /// The upper database and the upper layer.
    Layer,
}

/// An overlay store.
#[derive(Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    lower: Generated,
    /// The directory with the database that runs start from.
    pristine: PathBuf,
    mount: Option<OverlayMount>,
}

impl Layers {
    /// Makes the directories and the mount; what was there goes.
    pub(crate) fn make(dir: &Path, lower: &Generated, pristine: &Path) -> Result<Self> {
        remove(dir)?;
        let mut layers = Self {
            dir: dir.to_owned(),
            lower: lower.clone(),
            pristine: pristine.to_owned(),
            mount: None,
        };
        fs::create_dir_all(layers.db())?;
        fs::create_dir_all(layers.merged())?;
        for name in ["schema", "reserved"] {
            copy(&layers.pristine.join(name), &layers.db().join(name))?;
        }
        layers.restore(Restore::Layer)?;
        Ok(layers)
    }

    /// The store's URL, the same for both programs.
    pub(crate) fn url(&self) -> String {
        let lower = StoreReference::local(&self.lower.root).with_param("read-only", "true");
        StoreReference::overlay(&lower, self.dir.join("upper"), self.dir.join("root")).to_string()
    }

    /// Puts back what a run may have changed.
    pub(crate) fn restore(&mut self, what: Restore) -> Result<()> {
        if what == Restore::Nothing {
            return Ok(());
        }
        for name in ["db.sqlite-wal", "db.sqlite-shm", "db.sqlite-journal"] {
            let file = self.db().join(name);
            if file.exists() {
                fs::remove_file(&file)?;
            }
        }
        copy(&self.pristine.join("db.sqlite"), &self.db().join("db.sqlite"))?;
        if what == Restore::Layer {
            drop(self.mount.take());
            let [upper, work] = ["upper", "work"].map(|name| self.dir.join(name));
            for dir in [&upper, &work] {
                remove(dir)?;
                fs::create_dir(dir)?;
            }
            let mount = OverlayMount::new(&[&self.lower.store()], &upper, &work, &self.merged())?;
            self.mount = Some(mount);
        }
        Ok(())
    }

    /// How many paths the upper database holds.
    pub(crate) fn count(&self) -> Result<u64> {
        let database = Database::open(&OpenDatabase::read_only(self.db(), StoreDir::default()))?;
        Ok(database.count()?)
    }

    /// Whether the upper layer has something of an object's name.
    pub(crate) fn holds(&self, path: &StorePath) -> bool {
        fs::symlink_metadata(self.dir.join("upper").join(path.base_name())).is_ok()
    }

    fn merged(&self) -> PathBuf {
        self.dir.join("root/nix/store")
    }

    fn db(&self) -> PathBuf {
        self.dir.join("root/nix/var/nix/db")
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Removes a directory with all that is in it, or a file; nothing if it is not there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        anyhow::bail!("{} has no name", path.display());
    };
    let parent = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    superpose_nar::remove_tree(&parent, name).with_context(|| format!("removing {}", path.display()))?;
    Ok(())
}
