// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that keeps objects but temporary roots, which come and go.

use std::path::Path;

use superpose_metadata::MetadataSource;
use superpose_store_path::StorePath;

use super::{Root, Stale, permanent, runtime};
use crate::Result;
use crate::state_dir::StateDir;

/// Where processes show what they use.
const PROC: &str = "/proc";

/// Finds the permanent roots and what running processes use, as far as `metadata` says that it is valid; sorted.
///
/// A root that leads to what is not valid keeps nothing, as in Nix. `stale` says what becomes of links to nowhere. `physical` are the directories that hold the
/// objects beside the logical store directory.
///
/// # Errors
/// If roots cannot be read for a reason that is not theirs: to go on could delete what is in use.
pub(crate) fn find(
    state: &StateDir,
    metadata: &dyn MetadataSource,
    physical: &[&Path],
    stale: Stale,
) -> Result<Vec<Root>> {
    let permanent = permanent::scan(state, metadata.store_dir(), stale)?;
    for hidden in &permanent.unreadable {
        tracing::warn!(path = %hidden.path.display(), error = %hidden.error, "cannot read a possible root");
    }
    let runtime = runtime::scan(Path::new(PROC), metadata.store_dir(), physical)?;
    if runtime.unreadable > 0 {
        tracing::debug!(
            processes = runtime.unreadable,
            "processes of others do not show all that they use"
        );
    }
    let mut roots = permanent.roots;
    roots.extend(runtime.roots);
    roots.sort_unstable();
    let paths: Vec<StorePath> = roots.iter().map(|root| root.path.clone()).collect();
    let valid = metadata.are_valid(&paths)?;
    Ok(roots
        .into_iter()
        .zip(valid)
        .filter_map(|(root, valid)| valid.then_some(root))
        .collect())
}
