// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores to test with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use superpose_metadata::{Access, Database, MemorySource, OpenDatabase, PathInfo};
use superpose_store_path::{
    ContentAddress, Hash, HashAlgorithm, HashPart, Name, Signature, StoreDir, StorePath, hash_bytes,
};
use tempfile::TempDir;

/// A derivation with one output, as stock Nix makes it.
pub(crate) const DRV: &str = "akj8mbqjx8nzkql9142nb7103vwn0wa2-plain.drv";
pub(crate) const DRV_OUTPUT: &str = "41wslayvc1qc6k125c861vd2dlkmaq0v-plain";
pub(crate) const DRV_TEXT: &str = r#"Derive([("out","/nix/store/41wslayvc1qc6k125c861vd2dlkmaq0v-plain","","")],[],[],"x86_64-linux","/bin/sh",["-c","echo abc > $out"],[("builder","/bin/sh"),("name","plain"),("out","/nix/store/41wslayvc1qc6k125c861vd2dlkmaq0v-plain"),("system","x86_64-linux")])"#;

/// A path whose content address is that of a file `abc`, as stock Nix makes it.
pub(crate) const ADDRESSED: &str = "xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc";
pub(crate) const ADDRESS: &str = "fixed:r:sha256:0c2jffsl15masdjkw0akr32jl4daplrwaq81lapg84nqai3ip9qi";

pub(crate) fn store_path(base_name: &str) -> StorePath {
    StorePath::from_base_name(base_name.as_bytes()).unwrap()
}

/// The path of a name, always the same. The hash parts are in the order of the first letters.
pub(crate) fn path(name: &str) -> StorePath {
    let mut bytes = [0; 20];
    for (index, byte) in name.bytes().enumerate() {
        bytes[19 - index % 20] ^= byte;
    }
    StorePath::from_parts(HashPart::new(bytes), &Name::new(name.as_bytes()).unwrap())
}

pub(crate) fn info(name: &str, references: &[&str]) -> PathInfo {
    PathInfo {
        references: references.iter().map(|name| path(name)).collect(),
        registration_time: 1_700_000_000,
        ..PathInfo::new(
            path(name),
            Hash::sha256([name.len() as u8; 32]),
            100 + name.len() as u64,
        )
    }
}

pub(crate) fn signature(key: &str) -> Signature {
    Signature::parse(format!("{key}:aGVsbG8=").as_bytes()).unwrap()
}

/// A store with something of everything:
/// `app` → `lib`, `self`; `lib` → `base`; `self` → `self`, `base`; a derivation, an output, a lone path.
pub(crate) fn sample() -> Vec<PathInfo> {
    vec![
        PathInfo {
            deriver: Some(store_path(DRV)),
            ultimate: true,
            signatures: vec![signature("cache.example-1"), signature("other-1")],
            ..info("app", &["lib", "self"])
        },
        info("lib", &["base"]),
        info("self", &["self", "base"]),
        PathInfo {
            nar_size: 0,
            ..info("base", &[])
        },
        PathInfo {
            content_address: Some(ContentAddress::parse(ADDRESS.as_bytes()).unwrap()),
            ..PathInfo::new(store_path(ADDRESSED), Hash::sha256([7; 32]), 120)
        },
        PathInfo {
            registration_time: 5,
            ..PathInfo::new(store_path(DRV), Hash::sha256([8; 32]), 300)
        },
    ]
    .into_iter()
    .map(|mut info| {
        info.references.sort();
        info.registration_time = info.registration_time.max(1);
        info
    })
    .collect()
}

/// Reads the files of the derivations above.
pub(crate) fn read_sample(path: &StorePath) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    if path.base_name() == DRV {
        Ok(DRV_TEXT.into())
    } else {
        Err(format!("{path} is not there").into())
    }
}

pub(crate) fn sample_in_memory() -> MemorySource {
    let mut source = MemorySource::new(StoreDir::default());
    for info in sample() {
        source.insert(info);
    }
    source.insert_outputs(store_path(DRV), vec![("out".to_owned(), store_path(DRV_OUTPUT))]);
    source
}

/// A database directory that goes away at the end.
pub(crate) struct State {
    temp: TempDir,
}

impl State {
    pub(crate) fn empty() -> Self {
        let temp = TempDir::new().unwrap();
        // Others than the owner must be able to look, for the tests without privileges.
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(temp.path().join("db")).unwrap();
        Self { temp }
    }

    /// A closed database with the sample in it.
    pub(crate) fn with_sample() -> Self {
        let state = Self::empty();
        state.read_write().register(&sample(), &mut read_sample).unwrap();
        state
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.temp.path().join("db")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn write_options(&self) -> OpenDatabase {
        OpenDatabase::read_write(self.dir(), StoreDir::default())
    }

    pub(crate) fn read_options(&self) -> OpenDatabase {
        OpenDatabase::read_only(self.dir(), StoreDir::default())
    }

    pub(crate) fn read_write(&self) -> Database {
        Database::open(&self.write_options()).unwrap()
    }

    pub(crate) fn read_only(&self) -> Database {
        Database::open(&self.read_options()).unwrap()
    }

    /// How a log that others share is read here, which depends on where temporary files are.
    pub(crate) fn shared_access(&self) -> Access {
        // An overlay, as containers have it.
        match rustix::fs::statfs(self.dir()).unwrap().f_type {
            0x794c_7630 => Access::PrivateIndex,
            _ => Access::SharedMemory,
        }
    }

    /// A plain connection, as another program would make it.
    pub(crate) fn raw(&self) -> Connection {
        let connection = Connection::open(self.file("db.sqlite")).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = 1").unwrap();
        connection
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.dir(), |path| {
            hash_bytes(HashAlgorithm::Sha256, &fs::read(path).unwrap()).to_string()
        })
    }

    /// What the files are like, while they may be open: to open and close one ourselves would drop the
    /// locks that SQLite holds on it in this process.
    pub(crate) fn snapshot_from_outside(&self) -> Snapshot {
        Snapshot::of(&self.dir(), |_| String::new())
    }
}

/// Everything about the files of a directory that reading must not change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    length: u64,
    modified: (i64, i64),
    content: String,
}

impl Snapshot {
    fn of(dir: &Path, content: impl Fn(&Path) -> String) -> Self {
        let entry = |path: PathBuf| {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let entry = Entry {
                inode: metadata.ino(),
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                length: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                content: if metadata.is_file() {
                    content(&path)
                } else {
                    String::new()
                },
            };
            (path, entry)
        };
        let inside = fs::read_dir(dir).unwrap().map(|inside| inside.unwrap().path());
        Self(inside.chain([dir.to_owned()]).map(entry).collect())
    }

    /// Without a file that live users of a database may change.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0
            .retain(|path, _| path.file_name().is_none_or(|file| file != name));
        self
    }
}

/// Prints an error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
