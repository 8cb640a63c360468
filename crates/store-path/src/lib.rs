// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nix store paths, hashes, content addresses, derivations and store URLs, as values.
#![forbid(unsafe_code)]

mod content_address;
mod error;
mod hash;
mod lexical;
mod name;
pub mod nix32;
mod signature;
mod store_dir;
mod store_path;

pub use content_address::{ContentAddress, ContentMethod};
pub use error::{Error, Result};
pub use hash::{Hash, HashAlgorithm, HashEncoding, Hasher, hash_bytes};
pub use name::{MAX_NAME_LEN, Name};
pub use signature::Signature;
pub use store_dir::{DisplayPath, StoreDir};
pub use store_path::{DERIVATION_SUFFIX, HASH_PART_LEN, HashPart, MAX_BASE_NAME_LEN, StorePath};
