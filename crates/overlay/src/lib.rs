// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local overlay store: a writable layer over a Nix store that is never written.
//!
//! A [`Layout`] says where the parts of a store are. A [`StoreView`] reads one, creating and changing nothing; it is
//! also what every store below is. A [`Store`] adds, imports, copies, registers, signs, deletes, collects, deduplicates, verifies and
//! repairs. It comes either from a local store, which works by itself, or from an overlay store whose mount was verified:
//! [`MountProof`] is the only key. [`mounting`] makes, refreshes and removes the mount.
//!
//! ```
//! use superpose_overlay::{AddOptions, Layout, OpenOptions, Outcome, Source, Store};
//! use superpose_overlay::metadata::MetadataSource;
//! use superpose_overlay::store_path::{Defaults, Name, StoreReference};
//!
//! let root = tempfile::tempdir()?;
//! let reference = StoreReference::local(root.path());
//! let (layout, _warnings) = Layout::resolve(&reference, &Defaults::default())?;
//! let mut store = Store::open(layout, OpenOptions::default())?;
//! let options = AddOptions::source(Name::new(b"greeting")?);
//! let added = store.add(Source::Bytes(b"hello\n"), &options)?;
//! assert_eq!(added.outcome, Outcome::Stored);
//! assert_eq!(store.metadata().are_valid(&[added.path])?, [true]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate deliberately does not print, read the environment, have a daemon change anything, build, or substitute.
#![forbid(unsafe_code)]

mod crash;
mod error;
mod export_stream;
mod faults;
mod flock;
mod gc_lock;
mod hash_pool;
mod journal;
mod layout;
mod listing;
mod marks;
pub mod mounting;
mod path_lock;
mod random;
mod roots;
mod state_dir;
mod store;
mod survey;
mod temp_roots;
mod upper_layer;
mod usage;
mod view;
mod watch;

pub use crash::{CrashPoint, CrashPoints};
pub use error::{Error, Result};
pub use flock::LockWait;
pub use layout::{DaemonLayout, Layout, LocalLayout, OverlayLayout};
pub use roots::Root;
pub use store::{
    AddOptions, Added, CollectAction, CollectOptions, Collected, Contents, Copied, CopyOptions,
    DeleteOptions, Deleted, Duplicated, Durability, Effect, Fault, Imported, Kept, Leftovers, Liveness,
    Modified, MountProof, NewObject, Note, ObjectSource, ObjectStream, Obstacle, OpenOptions,
    OptimiseOptions, Optimised, Outcome, Presence, Protection, Reason, Recursion, RegisterOptions,
    Registered, Repaired, SignatureCheck, Skipped, Source, Store, Untrusted, VerifyOptions, VerifyReport,
    is_interrupted,
};
pub use survey::Survey;
pub use upper_layer::Layer;
pub use usage::Usage;
pub use view::{Exported, Merged, StoreView};
pub use watch::{Doing, Progress, Watch, Watcher};

pub use {
    superpose_metadata as metadata, superpose_mount_check as mount_check, superpose_nar as nar,
    superpose_store_path as store_path,
};
