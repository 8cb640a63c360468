// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose signatures count.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use superpose_overlay::store_path::TrustedKeys;

use crate::error::{Error, Result};

/// The keys that are trusted.
#[derive(Debug, clap::Args)]
pub(crate) struct TrustArguments {
    /// Public keys whose signatures count, separated by blanks [default: that of cache.nixos.org, as with Nix]
    #[arg(long, value_name = "KEYS")]
    trusted_public_keys: Option<OsString>,
}

impl TrustArguments {
    /// The keys.
    pub(crate) fn keys(&self) -> Result<TrustedKeys> {
        match &self.trusted_public_keys {
            Some(keys) => TrustedKeys::parse(keys.as_bytes()).map_err(Error::usage),
            None => Ok(TrustedKeys::default()),
        }
    }
}
