// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local stores with as many objects as wanted, the same in every run: real files, real archive hashes, and rows
//! like those of packages from a binary cache.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use superpose_metadata::{Database, MetadataSource, OpenDatabase, PathInfo};
use superpose_nar::{FileArchive, HashingReader};
use superpose_store_path::{
    Hash, HashAlgorithm, HashEncoding, HashPart, Name, Signature, StoreDir, StorePath,
};

use crate::graph;
use crate::seeded::Seeded;

/// To be raised when stores come out differently, so that none of before are used.
const FORM: u32 = 2;

/// When every object became valid, in Unix seconds.
const REGISTERED: i64 = 1_700_000_000;

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

    /// Opens its database for reading.
    pub(crate) fn database(&self) -> Result<Database> {
        let options = OpenDatabase::read_only(self.root.join("nix/var/nix/db"), StoreDir::default());
        Ok(Database::open(&options)?)
    }

    /// The object that most others refer to.
    pub(crate) fn library(&self) -> StorePath {
        path(0)
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
        crate::layers::remove(&self.root)?;
        let (store, db) = (self.store(), self.root.join("nix/var/nix/db"));
        for dir in [&store, &db] {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let references = graph::references(self.count, &self.closures, u64::from(FORM));
        let mut infos = Vec::new();
        for (object, references) in (0..).zip(&references) {
            infos.push(make_object(&store, object, references)?);
        }
        let mut database = Database::open(&OpenDatabase::read_write(&db, StoreDir::default()))?;
        database.register(&infos, &mut |_| Err("there are no derivations".into()))?;
        drop(database);
        fs::write(self.mark(), self.description())?;
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

/// The path of an object: not made from its content, as with everything that is built.
fn path(object: u32) -> StorePath {
    let mut part = [0; 20];
    seed_of(object).fill(&mut part);
    let name = if object == 0 {
        "library-1.0".to_owned()
    } else {
        format!("package-{object}-1.{}", object % 17)
    };
    let name = Name::new(name.as_bytes()).expect("letters, digits, dots and dashes");
    StorePath::from_parts(HashPart::new(part), &name)
}

fn seed_of(object: u32) -> Seeded {
    Seeded::new(u64::from(FORM) << 32 | u64::from(object))
}

fn make_object(store: &Path, object: u32, references: &[u32]) -> Result<PathInfo> {
    let dir = StoreDir::default();
    let path = path(object);
    let mut references: Vec<StorePath> = references.iter().map(|&number| self::path(number)).collect();
    references.sort_unstable();
    let mut seeded = seed_of(object);
    let mut text = String::new();
    for reference in &references {
        writeln!(text, "uses {}", dir.display(reference))?;
    }
    for _ in 0..seeded.below(30) {
        writeln!(text, "{:016x}", seeded.next())?;
    }
    let file = store.join(path.base_name());
    write_canonical(&file, text.as_bytes())?;

    let mut archive = HashingReader::new(FileArchive::new(text.as_bytes(), text.len() as u64));
    io::copy(&mut archive.by_ref(), &mut io::sink())?;
    let (_, nar) = archive.finish();
    let mut info = PathInfo::new(path.clone(), nar.hash, nar.size);
    info.references = references;
    info.registration_time = REGISTERED;
    info.deriver = Some(StorePath::from_base_name(
        format!("{}-{}.drv", path.hash_part_str(), path.name()).as_bytes(),
    )?);
    info.signatures = vec![signature(&mut seeded)?];
    Ok(info)
}

/// Writes a file as a store has them: read-only, at the time 1.
fn write_canonical(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o444))?;
    let one = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: one,
        last_modification: one,
    };
    utimensat(CWD, file, &times, AtFlags::empty())
        .with_context(|| format!("setting the times of {}", file.display()))
}

/// Looks like the signature of a binary cache, and is as long.
fn signature(seeded: &mut Seeded) -> Result<Signature> {
    let mut bytes = [0; 64];
    seeded.fill(&mut bytes);
    let base64 = Hash::new(HashAlgorithm::Sha512, &bytes)?.render_bare(HashEncoding::Base64);
    Ok(Signature::parse(
        format!("cache.example.org-1:{base64}").as_bytes(),
    )?)
}

/// Makes a database that holds the rows of a closure and nothing else, or of nothing.
pub(crate) fn make_database(db: &Path, from: &Generated, roots: &[StorePath]) -> Result<()> {
    fs::create_dir_all(db).with_context(|| format!("creating {}", db.display()))?;
    let mut database = Database::open(&OpenDatabase::read_write(db, StoreDir::default()))?;
    let lower = from.database()?;
    let infos = lower.closure_infos(roots, &mut |paths| Ok(vec![false; paths.len()]))?;
    database.copy_in(&infos, &lower)?;
    Ok(())
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
        let mut archive = superpose_nar::HashingWriter::new(io::sink());
        superpose_nar::dump_path(object, &mut archive).unwrap();
        assert_eq!(archive.finish().1.hash, info.nar_hash);
    }
}
