// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store paths, hashes, content addresses, derivations and store URLs of Nix, as values.
//!
//! Everything here is a function of its arguments. What this crate deliberately does not do: it opens no file
//! and no socket, reads no environment, holds no global state and no fixed store directory, makes no keys,
//! builds nothing, and reads no archive. Every parser takes bytes, bounds what it makes of them,
//! and answers any input with a value or an [`Error`].
//!
//! # Example
//!
//! ```
//! use superpose_store_path::{
//!     ContentAddress, ContentMethod, Defaults, HashAlgorithm, Name, References, StoreDir, StoreReference,
//!     StoreSettings, hash_bytes,
//! };
//!
//! # fn main() -> superpose_store_path::Result<()> {
//! // The path of a file that is hashed as it is.
//! let dir = StoreDir::default();
//! let ca = ContentAddress { method: ContentMethod::Flat, hash: hash_bytes(HashAlgorithm::Sha256, b"abc") };
//! let path = dir.content_path(&Name::new(b"abc")?, &ca, &References::default())?;
//! assert_eq!(dir.join(&path), "/nix/store/0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc");
//! assert_eq!(dir.parse_path(b"/nix/store//0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc/")?, path);
//!
//! // A writable layer over the store below /mnt/a.
//! let text = b"local-overlay://?root=/mnt/m&lower-store=/mnt/a%3Fread-only%3Dtrue&upper-layer=/mnt/b";
//! let (reference, warnings) = StoreReference::parse(text, b"/")?;
//! assert!(warnings.is_empty());
//! let (StoreSettings::Overlay(settings), _) = reference.settings(&Defaults::default())? else {
//!     unreachable!("the URL says which kind of store it is");
//! };
//! assert_eq!(settings.lower_store.to_string(), "local://?read-only=true&root=/mnt/a");
//! assert_eq!(settings.local.real_dir.to_str(), Some("/mnt/m/nix/store"));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `serde`: paths, hashes, content addresses and signatures as their texts. `blake3`: hashes of that
//! algorithm. `signing`: keys that sign and check what is known of a path.
#![forbid(unsafe_code)]

mod base64;
mod content_address;
mod content_path;
mod derivation;
mod error;
mod fingerprint;
mod hash;
#[cfg(feature = "signing")]
mod keys;
mod lexical;
mod name;
pub mod nix32;
mod reference;
#[cfg(feature = "serde")]
mod serde_text;
mod settings;
mod signature;
mod store_dir;
mod store_path;

pub use content_address::{ContentAddress, ContentMethod};
pub use content_path::{DEFAULT_OUTPUT, References, output_name};
pub use derivation::{
    Derivation, DerivationKind, DerivationOutput, MAX_DERIVATION_LEN, ModuloMemo, ReadDerivation,
};
pub use error::{Error, Result};
pub use hash::{Hash, HashAlgorithm, HashEncoding, Hasher, ModuloGeneration, ModuloHasher, hash_bytes};
#[cfg(feature = "signing")]
pub use keys::{PublicKey, SecretKey, TrustedKeys};
pub use name::{MAX_NAME_LEN, Name};
pub use reference::{MAX_NESTING, MAX_URL_LEN, StoreKind, StoreReference, UrlWarning};
pub use settings::{
    AutoSettings, CommonSettings, DaemonSettings, Defaults, LocalSettings, OverlaySettings, StoreSettings,
};
pub use signature::Signature;
pub use store_dir::{DisplayPath, StoreDir};
pub use store_path::{DERIVATION_SUFFIX, HASH_PART_LEN, HashPart, MAX_BASE_NAME_LEN, StorePath};
