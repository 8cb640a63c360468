// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a path, as it travels to and from daemons.

use superpose_store_path::StorePath;
use superpose_worker_protocol::{UnkeyedValidPathInfo, ValidPathInfo};

use crate::PathInfo;

impl PathInfo {
    /// Makes it of what travelled.
    #[must_use]
    pub fn from_wire(path: StorePath, info: UnkeyedValidPathInfo) -> Self {
        Self {
            path,
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references.into_iter().collect(),
            deriver: info.deriver,
            registration_time: info.registration_time,
            ultimate: info.ultimate,
            signatures: info.signatures.into_iter().collect(),
            content_address: info.content_address,
        }
    }

    /// Gives it as it travels.
    #[must_use]
    pub fn to_wire(&self) -> ValidPathInfo {
        ValidPathInfo {
            path: self.path.clone(),
            info: UnkeyedValidPathInfo {
                deriver: self.deriver.clone(),
                nar_hash: self.nar_hash,
                references: self.references.iter().cloned().collect(),
                registration_time: self.registration_time,
                nar_size: self.nar_size,
                ultimate: self.ultimate,
                signatures: self.signatures.iter().cloned().collect(),
                content_address: self.content_address,
            },
        }
    }
}
