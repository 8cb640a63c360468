// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local stores with as many objects as wanted, and what lies above them when a run begins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use superpose_metadata::{Database, MetadataSource, OpenDatabase, PathInfo};
use superpose_store_path::{StoreDir, StorePath, StoreReference};

use crate::cases::{Copies, Upper};
use crate::graph;
use crate::objects::{FORM, make_canonical, make_large_object, make_object, path};

/// A generated store.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    /// The root directory: the objects are in `nix/store`.
    pub(crate) root: PathBuf,
    pub(crate) count: u32,
    closures: Vec<u32>,
}

impl Generated {
    /// Describes a store with that many objects, with a closure of each of these sizes, lowest first.
    pub(crate) fn new(root: &Path, count: u32, closures: &[u32]) -> Self {
        Self {
            root: root.to_owned(),
            count,
            closures: closures.to_owned(),
        }
    }

    /// The directory of the objects.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("nix/store")
    }

    /// Its URL for reading.
    pub(crate) fn url(&self) -> StoreReference {
        StoreReference::local(&self.root).with_param("read-only", "true")
    }

    /// Opens its database for reading.
    pub(crate) fn database(&self) -> Result<Database> {
        let options = OpenDatabase::read_only(self.root.join("nix/var/nix/db"), StoreDir::default());
        Ok(Database::open(&options)?)
    }

    /// The object that most others refer to.
    pub(crate) fn library(&self) -> StorePath {
        path(0)
    }

    /// The objects that an upper layer over this store has for itself, the one that needs all others last.
    pub(crate) fn own(&self, count: u32) -> Vec<StorePath> {
        (self.count..self.count + count).map(path).collect()
    }

    /// The first objects, which refer to each other only.
    pub(crate) fn first(&self, count: u32) -> Vec<StorePath> {
        (0..count.min(self.count)).map(path).collect()
    }

    /// The object whose closure has exactly `size` objects.
    pub(crate) fn root_of(&self, size: u32) -> StorePath {
        path(size - 1)
    }

    /// Whether the store is there as described, from this run or an earlier one.
    pub(crate) fn is_made(&self) -> bool {
        fs::read_to_string(self.mark()).is_ok_and(|text| text == self.description())
    }

    /// Makes the store; what was there goes.
    pub(crate) fn make(&self) -> Result<()> {
        let references = graph::references(self.count, &self.closures, u64::from(FORM));
        self.make_of(|store, object| make_object(store, object, &references[object as usize]))?;
        fs::write(self.mark(), self.description())?;
        Ok(())
    }

    /// The same with objects of so many bytes each that refer to nothing.
    pub(crate) fn make_of_large(&self, bytes: u64) -> Result<()> {
        self.make_of(|store, object| make_large_object(store, object, bytes))
    }

    fn make_of(&self, make: impl Fn(&Path, u32) -> Result<PathInfo>) -> Result<()> {
        crate::layers::remove(&self.root)?;
        let (store, db) = (self.store(), self.root.join("nix/var/nix/db"));
        for dir in [&store, &db] {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let infos = (0..self.count).map(|object| make(&store, object));
        let infos = infos.collect::<Result<Vec<_>>>()?;
        let mut database = Database::open(&OpenDatabase::read_write(&db, StoreDir::default()))?;
        database.register(&infos, &mut |_| Err("there are no derivations".into()))?;
        Ok(())
    }

    /// How many references all objects have.
    pub(crate) fn references(&self) -> usize {
        let references = graph::references(self.count, &self.closures, u64::from(FORM));
        references.iter().map(Vec::len).sum()
    }

    fn mark(&self) -> PathBuf {
        self.root.join("generated")
    }

    fn description(&self) -> String {
        format!(
            "form {FORM}, {} objects, closures {:?}\n",
            self.count, self.closures
        )
    }
}

/// Makes what the upper database and the upper layer of an overlay store hold when a run begins: in `dir`, as `db`
/// and `upper`.
pub(crate) fn make_upper(dir: &Path, lower: &Generated, upper: &Upper) -> Result<()> {
    let (db, layer) = (dir.join("db"), dir.join("upper"));
    for dir in [&db, &layer] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let mut database = Database::open(&OpenDatabase::read_write(&db, StoreDir::default()))?;
    // Own objects refer to the library below.
    let known: Vec<StorePath> = (0..upper.known.max(u32::from(upper.own > 0))).map(path).collect();
    let below = lower.database()?;
    // Objects refer to those with lower numbers only: these are all.
    let infos = below.closure_infos(&known, &mut |paths| Ok(vec![false; paths.len()]))?;
    database.copy_in(&infos, &below)?;
    drop(infos);
    if upper.copies == Copies::All {
        for path in &known {
            let copy = layer.join(path.base_name());
            let object = lower.store().join(path.base_name());
            fs::copy(&object, &copy).with_context(|| format!("copying {}", object.display()))?;
            make_canonical(&copy)?;
        }
    }
    let infos = make_own(&layer, lower, upper.own)?;
    database.register(&infos, &mut |_| Err("there are no derivations".into()))?;
    Ok(())
}

/// Objects that are only above: they refer to each other as those below do, and to the library below; the last one
/// needs all others.
fn make_own(layer: &Path, lower: &Generated, count: u32) -> Result<Vec<PathInfo>> {
    let references = graph::references(count + 1, &[count + 1], u64::from(FORM));
    let number = |object: u32| if object == 0 { 0 } else { lower.count - 1 + object };
    (1..=count)
        .map(|object| {
            let numbers: Vec<u32> = references[object as usize].iter().map(|&to| number(to)).collect();
            make_object(layer, number(object), &numbers)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use superpose_metadata::Closure;
    use superpose_tests::Scratch;

    use super::*;

    #[test]
    fn a_store_holds_what_was_asked_for() {
        let scratch = Scratch::new().unwrap();
        let store = Generated::new(&scratch.join("store"), 300, &[100]);
        assert!(!store.is_made());
        store.make().unwrap();
        assert!(store.is_made());
        let database = store.database().unwrap();
        assert_eq!(database.count().unwrap(), 300);
        let closure = database
            .closure(&[store.root_of(100)], Closure::References)
            .unwrap();
        assert_eq!(closure.len(), 100);
        let info = database
            .path_infos(&[store.library()])
            .unwrap()
            .remove(0)
            .unwrap();
        let object = store.store().join(info.path.base_name());
        let mut archive = superpose_nar::HashingWriter::new(std::io::sink());
        superpose_nar::dump_path(object, &mut archive).unwrap();
        assert_eq!(archive.finish().1.hash, info.nar_hash);
    }

    #[test]
    fn an_upper_layer_holds_what_was_asked_for() {
        let scratch = Scratch::new().unwrap();
        let store = Generated::new(&scratch.join("store"), 50, &[]);
        store.make().unwrap();
        let upper = Upper {
            known: 20,
            copies: Copies::All,
            own: 10,
            ..Upper::EMPTY
        };
        let dir = scratch.join("pristine");
        make_upper(&dir, &store, &upper).unwrap();
        let options = OpenDatabase::read_only(dir.join("db"), StoreDir::default());
        let database = Database::open(&options).unwrap();
        assert_eq!(database.count().unwrap(), 30);
        assert_eq!(fs::read_dir(dir.join("upper")).unwrap().count(), 30);
        let own = store.own(10);
        let top = database.closure(&own[9..], Closure::References).unwrap();
        assert!(own.iter().all(|path| top.contains(path)), "{top:?}");
        assert!(top.contains(&store.library()));
        let library = fs::read(store.store().join(store.library().base_name())).unwrap();
        let copy = dir.join("upper").join(store.library().base_name());
        assert_eq!(fs::read(copy).unwrap(), library);
    }
}
