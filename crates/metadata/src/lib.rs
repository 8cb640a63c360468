// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of valid store paths: a read trait that takes many paths at once, and its backends.
//!
//! [`Database`] reads and writes the SQLite database of a Nix store, in turns with Nix 2.26 to 2.36, and reads
//! one that must not be written in whatever way changes nothing. [`DaemonSource`] asks a Nix daemon, over its socket.
//! [`MemorySource`] holds everything in memory, for tests and examples. All answer through [`MetadataSource`].
//!
//! The crate deliberately does not look at the objects themselves, take temporary roots or path locks,
//! decide what may be deleted, check signatures, merge several sources, or have a daemon change anything.
//!
//! ```
//! use superpose_metadata::{Closure, MemorySource, MetadataSource, PathInfo};
//! use superpose_store_path::{Hash, StoreDir, StorePath};
//!
//! let library = StorePath::from_base_name(b"0g1savw1cf7pji42hasyx0smc4aw15nw-library")?;
//! let program = StorePath::from_base_name(b"26nci8mz5f9aldbsgmalpkj20xyqqd5c-program")?;
//! let mut source = MemorySource::new(StoreDir::default());
//! source.insert(PathInfo::new(library.clone(), Hash::sha256([1; 32]), 120));
//! source.insert(PathInfo {
//!     references: vec![library.clone()],
//!     ..PathInfo::new(program.clone(), Hash::sha256([2; 32]), 4096)
//! });
//!
//! assert_eq!(source.are_valid(&[program.clone()])?, [true]);
//! assert_eq!(source.closure(&[program.clone()], Closure::References)?, [library, program]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod daemon;
mod edition;
mod error;
mod graph;
mod liveness;
mod memory;
mod path_info;
mod realisation;
mod registration_text;
mod source;
mod sqlite;

pub use daemon::{DaemonRoot, DaemonSource, OpenDaemon};
pub use edition::Edition;
pub use error::{Error, Result};
pub use liveness::LivenessGraph;
pub use memory::MemorySource;
pub use path_info::{ArchiveInfo, PathInfo};
pub use realisation::{Realisation, RealisationKey, RealisationKind};
pub use registration_text::{ArchiveLines, Registration, RegistrationText};
pub use source::{Closure, MetadataSource, Outputs, Prune, Visit};
pub use sqlite::{
    Access, CopyStats, DEFAULT_BUSY_LIMIT, DEFAULT_CACHE_SIZE, DEFAULT_RESERVED_SPACE, Database, JournalMode,
    MetadataSync, OpenDatabase, OpenMode, RegisterStats, Transaction,
};
