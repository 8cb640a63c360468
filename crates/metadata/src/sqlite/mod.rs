// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SQLite database of a Nix store.

mod big_lock;
mod busy;
mod by_two;
mod closure;
mod connection;
mod copy_in;
mod database;
mod descriptors;
mod fault;
mod files;
mod gather;
mod liveness;
mod log_header;
mod names;
mod options;
mod read;
mod read_only;
mod realisations;
mod register;
mod reserved;
mod room;
mod rows;
mod schema;
mod schema_file;
mod stamps;
mod transaction;
mod write;

pub use copy_in::CopyStats;
pub use database::{Access, Database};
pub use options::{
    DEFAULT_BUSY_LIMIT, DEFAULT_CACHE_SIZE, DEFAULT_RESERVED_SPACE, JournalMode, MetadataSync, OpenDatabase,
    OpenMode,
};
pub use register::RegisterStats;
pub use transaction::Transaction;
