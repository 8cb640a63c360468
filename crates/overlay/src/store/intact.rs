// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether single objects are what was registered.

use std::error::Error as StdError;

use superpose_metadata::MetadataSource;
use superpose_nar::hash_object;
use superpose_store_path::StorePath;

use super::Store;
use crate::Result;

impl Store {
    /// Tells of each path whether its object, as it is seen in the store directory, has the hash in its row. One that is not
    /// valid or cannot be read has not.
    ///
    /// # Errors
    /// If a database cannot be read.
    pub fn are_intact(&self, paths: &[StorePath]) -> Result<Vec<bool>> {
        let infos = self.metadata().path_infos(paths)?;
        let is_intact = |info: Option<superpose_metadata::PathInfo>| {
            let Some(info) = info else { return false };
            match hash_object(self.real.fd(), info.path.base_name()) {
                Ok(found) => found.hash == info.nar_hash,
                Err(error) => {
                    tracing::debug!(path = %info.path, error = &error as &dyn StdError, "an object cannot be read");
                    false
                }
            }
        };
        Ok(infos.into_iter().map(is_intact).collect())
    }
}
