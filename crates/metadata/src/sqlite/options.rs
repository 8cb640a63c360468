// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a database is to be opened.

use std::path::PathBuf;
use std::time::Duration;

use superpose_store_path::StoreDir;

/// How long a busy database or lock is waited for unless told otherwise: one hour, as Nix does.
pub const DEFAULT_BUSY_LIMIT: Duration = Duration::from_secs(3600);

/// Size of the ballast file unless told otherwise: 8 MiB, as Nix's `gc-reserved-space`.
pub const DEFAULT_RESERVED_SPACE: u64 = 8 << 20;

/// What a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// To read and write; what does not exist yet is made.
    ReadWrite,
    /// To read, changing and creating nothing.
    ReadOnly,
}

/// How SQLite makes transactions atomic. All users of a store must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// With a write-ahead log; Nix's default.
    Wal,
    /// With a journal that is truncated, and a directory `db.sqlite.lock` as lock; Nix's `use-sqlite-wal=false`.
    Truncate,
}

/// When the database is synchronised with the disk; Nix's `fsync-metadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataSync {
    /// Whenever a power cut could damage it. With a write-ahead log that is not at every commit: the last ones may be
    /// lost, which [`Database::sync`](crate::Database::sync) prevents.
    Normal,
    /// Never. A power cut may damage it.
    Off,
}

/// Most memory for pages of a database unless told otherwise, in KiB: SQLite's own default.
pub const DEFAULT_CACHE_SIZE: u32 = 2000;

/// How a database is to be opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenDatabase {
    /// The directory `db` in the state directory of the store.
    pub dir: PathBuf,
    /// The logical store directory.
    pub store_dir: StoreDir,
    /// What for.
    pub mode: OpenMode,
    /// How transactions are made atomic. Means nothing when reading only, where it follows from the files.
    pub journal_mode: JournalMode,
    /// Whether writes are synchronised with the disk.
    pub sync: MetadataSync,
    /// Size of the ballast file in bytes, which a garbage collection frees first.
    pub reserved_space: u64,
    /// How long a busy database or lock is waited for.
    pub busy_limit: Duration,
    /// Most memory for pages of the database, in KiB; it is not taken at once. Means nothing when reading only.
    pub cache_size: u32,
}

impl OpenDatabase {
    /// Opens for reading and writing, with Nix's defaults.
    #[must_use]
    pub fn read_write(dir: impl Into<PathBuf>, store_dir: StoreDir) -> Self {
        Self {
            dir: dir.into(),
            store_dir,
            mode: OpenMode::ReadWrite,
            journal_mode: JournalMode::Wal,
            sync: MetadataSync::Normal,
            reserved_space: DEFAULT_RESERVED_SPACE,
            busy_limit: DEFAULT_BUSY_LIMIT,
            cache_size: DEFAULT_CACHE_SIZE,
        }
    }

    /// Opens for reading, changing nothing.
    #[must_use]
    pub fn read_only(dir: impl Into<PathBuf>, store_dir: StoreDir) -> Self {
        Self {
            mode: OpenMode::ReadOnly,
            ..Self::read_write(dir, store_dir)
        }
    }
}
