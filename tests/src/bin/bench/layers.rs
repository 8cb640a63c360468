// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay store for one program: its own directories and mount over a generated store, put back into the state
//! that each run starts from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use superpose_metadata::{Database, MetadataSource, OpenDatabase};
use superpose_store_path::{StoreDir, StorePath, StoreReference};
use superpose_tests::{Invocation, OverlayMount};

use crate::cases::{Roots, Upper};
use crate::generate::Generated;
use crate::objects::make_canonical;

/// What a run may have changed, and the next one must not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restore {
    /// Nothing: the command only reads, or finds nothing to do, whichever program runs it.
    Nothing,
    /// The upper database.
    Database,
    /// The upper database and the upper layer.
    Layer,
    /// The store that was copied to.
    Destination,
}

/// An overlay store.
#[derive(Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    lower: Generated,
    /// The directory with the database and the upper layer that runs start from.
    pristine: PathBuf,
    own: u32,
    /// Where copies go.
    destination: PathBuf,
    mount: Option<OverlayMount>,
}

impl Layers {
    /// Makes the directories, the roots and the mount; what was there goes. `pristine` holds what [`make_upper`]
    /// made of `upper`.
    ///
    /// [`make_upper`]: crate::generate::make_upper
    pub(crate) fn make(
        dir: &Path,
        lower: &Generated,
        upper: &Upper,
        pristine: &Path,
        destination: &Path,
    ) -> Result<Self> {
        remove(dir)?;
        let mut layers = Self {
            dir: dir.to_owned(),
            lower: lower.clone(),
            pristine: pristine.to_owned(),
            own: upper.own,
            destination: destination.to_owned(),
            mount: None,
        };
        fs::create_dir_all(layers.db())?;
        fs::create_dir_all(layers.merged())?;
        for name in ["schema", "reserved"] {
            copy(&layers.pristine.join("db").join(name), &layers.db().join(name))?;
        }
        if upper.roots != Roots::Nothing {
            layers.add_root("lower", &lower.root_of(lower.count))?;
        }
        if upper.roots == Roots::Everything {
            let own = lower.own(upper.own);
            layers.add_root("own", own.last().context("nothing to make a root of")?)?;
        }
        layers.restore(Restore::Layer)?;
        layers.restore(Restore::Destination)?;
        Ok(layers)
    }

    /// A direct root, which needs no link elsewhere.
    pub(crate) fn add_root(&self, name: &str, path: &StorePath) -> Result<()> {
        let roots = self.dir.join("root/nix/var/nix/gcroots");
        fs::create_dir_all(&roots)?;
        Ok(symlink(StoreDir::default().join(path), roots.join(name))?)
    }

    /// The store's URL, the same for both programs.
    pub(crate) fn url(&self) -> String {
        let upper = self.dir.join("upper");
        StoreReference::overlay(&self.lower.url(), upper, self.dir.join("root")).to_string()
    }

    /// Where copies go: the root directory of a store that need not be there.
    pub(crate) fn destination(&self) -> &Path {
        &self.destination
    }

    /// Puts back what a run may have changed, and brings it to the disk: whoever runs next has to sync only what is
    /// his own.
    pub(crate) fn restore(&mut self, what: Restore) -> Result<()> {
        match what {
            Restore::Nothing => return Ok(()),
            Restore::Destination => return remove(&self.destination),
            Restore::Database => self.restore_database()?,
            Restore::Layer => {
                self.restore_database()?;
                self.restore_layer()?;
            }
        }
        let dir = rustix::fs::open(&self.dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::syncfs(dir)?)
    }

    fn restore_database(&self) -> Result<()> {
        for name in ["db.sqlite-wal", "db.sqlite-shm", "db.sqlite-journal"] {
            let file = self.db().join(name);
            if file.exists() {
                fs::remove_file(&file)?;
            }
        }
        copy(&self.pristine.join("db/db.sqlite"), &self.db().join("db.sqlite"))
    }

    fn restore_layer(&mut self) -> Result<()> {
        drop(self.mount.take());
        let [upper, work] = ["upper", "work"].map(|name| self.dir.join(name));
        for dir in [&upper, &work] {
            remove(dir)?;
        }
        fs::create_dir(&work)?;
        let pristine = self.pristine.join("upper");
        Invocation::new("cp")
            .arg("-a")
            .arg(pristine)
            .arg(&upper)
            .succeed()?;
        self.mount = Some(self.mounted()?);
        Ok(())
    }

    fn mounted(&self) -> Result<OverlayMount> {
        let [upper, work] = ["upper", "work"].map(|name| self.dir.join(name));
        OverlayMount::new(&[&self.lower.store()], &upper, &work, &self.merged())
    }

    /// Puts a changed copy of an object of the lower store above.
    pub(crate) fn damage(&mut self, path: &StorePath) -> Result<()> {
        drop(self.mount.take());
        let object = self.dir.join("upper").join(path.base_name());
        let mut bytes = fs::read(self.lower.store().join(path.base_name()))?;
        let last = bytes.last_mut().context("an empty object")?;
        *last = !*last;
        fs::write(&object, bytes)?;
        make_canonical(&object)?;
        self.mount = Some(self.mounted()?);
        Ok(())
    }

    /// How many paths the upper database holds.
    pub(crate) fn count(&self) -> Result<u64> {
        Ok(self.database()?.count()?)
    }

    /// How many of the paths that are only above it holds.
    pub(crate) fn count_own(&self) -> Result<u64> {
        let valid = self.database()?.are_valid(&self.lower.own(self.own))?;
        Ok(valid.into_iter().filter(|&is_valid| is_valid).count() as u64)
    }

    fn database(&self) -> Result<Database> {
        let options = OpenDatabase::read_only(self.db(), StoreDir::default());
        Ok(Database::open(&options)?)
    }

    /// Whether the upper layer has something of an object's name.
    pub(crate) fn holds(&self, path: &StorePath) -> bool {
        fs::symlink_metadata(self.dir.join("upper").join(path.base_name())).is_ok()
    }

    /// How many objects the upper layer has. What is there and is none is refused, but for what begins with a dot.
    pub(crate) fn objects(&self) -> Result<u64> {
        objects_in(&self.dir.join("upper"))
    }

    /// How many rows and objects the store has that was copied to.
    pub(crate) fn copied(&self) -> Result<[u64; 2]> {
        let options = OpenDatabase::read_only(self.destination.join("nix/var/nix/db"), StoreDir::default());
        let rows = Database::open(&options)?.count()?;
        Ok([rows, objects_in(&self.destination.join("nix/store"))?])
    }

    fn merged(&self) -> PathBuf {
        self.dir.join("root/nix/store")
    }

    fn db(&self) -> PathBuf {
        self.dir.join("root/nix/var/nix/db")
    }
}

fn objects_in(dir: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().into_encoded_bytes();
        if name.starts_with(b".") {
            continue;
        }
        StorePath::from_base_name(&name)?;
        ensure!(
            entry.file_type()?.is_file(),
            "{} is no object",
            entry.path().display()
        );
        count += 1;
    }
    Ok(count)
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
