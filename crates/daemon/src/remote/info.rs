// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a path: as the store has it, and as it travels.

use superpose_overlay::metadata::PathInfo;
use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{UnkeyedValidPathInfo, ValidPathInfo};

/// As it travels.
pub(crate) fn to_wire(info: &PathInfo) -> ValidPathInfo {
    ValidPathInfo {
        path: info.path.clone(),
        info: UnkeyedValidPathInfo {
            deriver: info.deriver.clone(),
            nar_hash: info.nar_hash,
            references: info.references.iter().cloned().collect(),
            registration_time: info.registration_time,
            nar_size: info.nar_size,
            ultimate: info.ultimate,
            signatures: info.signatures.iter().cloned().collect(),
            content_address: info.content_address,
        },
    }
}

/// As the store has it.
pub(crate) fn from_wire(path: StorePath, info: UnkeyedValidPathInfo) -> PathInfo {
    PathInfo {
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
