// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nix store paths, hashes, content addresses, derivations and store URLs, as values.
#![forbid(unsafe_code)]

mod content_address;
mod content_path;
mod derivation;
mod error;
mod hash;
mod lexical;
mod name;
pub mod nix32;
mod reference;
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
pub use name::{MAX_NAME_LEN, Name};
pub use reference::{MAX_NESTING, MAX_URL_LEN, StoreKind, StoreReference, UrlWarning};
pub use settings::{
    AutoSettings, CommonSettings, DaemonSettings, Defaults, LocalSettings, OverlaySettings, StoreSettings,
};
pub use signature::Signature;
pub use store_dir::{DisplayPath, StoreDir};
pub use store_path::{DERIVATION_SUFFIX, HASH_PART_LEN, HashPart, MAX_BASE_NAME_LEN, StorePath};
