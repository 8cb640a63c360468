// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Nix archive format (NAR): writing, reading, hashing and scanning archives, and the trees they are made of.
//!
//! An archive is the canonical serialisation of a file, a symbolic link or a directory tree: contents, names and one
//! executable bit, nothing else. Its SHA-256 identifies a store object.
//!
//! | to | use |
//! |---|---|
//! | write the archive of an object | [`dump`], [`dump_path`] |
//! | hash it | [`hash_object`], or [`HashingWriter`] and [`HashingReader`] on the way |
//! | look into an archive | [`Reader`] |
//! | make an object from it | [`restore()`], [`restore_hashed`] |
//! | copy an object and hash it in the same pass | [`copy_tree`] |
//! | see whether two objects are the same | [`compare_trees`] |
//! | find references in it | [`ReferenceScanner`], as a writer or in [`Taps`] |
//! | mend or remove a tree, remove many | [`canonicalise()`], [`remove_tree`], [`Removals`] |
//!
//! Names are bytes. Everything on disk is done relative to an open directory and never through a symbolic link.
//! Archives are streamed: memory is bounded whatever an archive claims, and hostile archives are errors.
//!
//! The crate deliberately does not compress, talk to a network or a daemon, know databases or signatures, decide where
//! an object belongs, lock anything, or run asynchronously. It does not read or write the case-hack suffixes of macOS.
//!
//! ```
//! use superpose_nar::{HashingWriter, Event, Reader};
//!
//! let scratch = tempfile::tempdir()?;
//! std::fs::write(scratch.path().join("abc"), "abc")?;
//!
//! let mut out = HashingWriter::new(Vec::new());
//! superpose_nar::dump_path(scratch.path().join("abc"), &mut out)?;
//! let (archive, nar) = out.finish();
//! assert_eq!(nar.size, 120);
//!
//! let mut reader = Reader::new(&archive[..]);
//! assert_eq!(reader.next_event()?, Event::File { executable: false, size: 3 });
//! assert_eq!(reader.next_chunk()?, b"abc");
//! assert_eq!(reader.next_event()?, Event::End);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod canonicalise;
mod compare;
mod copy;
mod create;
mod dump;
mod error;
mod file_archive;
pub mod format;
mod freed;
mod hashing;
mod kind;
mod listing;
mod open;
mod path;
mod pipeline;
mod reader;
mod remove;
mod restore;
mod scan;
mod stream;
mod walk;

pub use canonicalise::canonicalise;
pub use compare::{Compared, Comparison, Difference, Found, Side, Unreadable, compare_trees};
pub use copy::copy_tree;
pub use create::{RestoreOptions, SyncPolicy};
pub use dump::{Hashed, dump, dump_path, hash_object, hash_object_with};
pub use error::{Error, Malformed, Result};
pub use file_archive::FileArchive;
pub use hashing::{CountingWriter, HashingReader, HashingWriter, NarHash};
pub use kind::{ObjectKind, TreeStats};
pub use pipeline::Taps;
pub use reader::{Event, Reader};
pub use remove::{Removals, RemoveStats, remove_tree};
pub use restore::{restore, restore_hashed};
pub use scan::ReferenceScanner;
