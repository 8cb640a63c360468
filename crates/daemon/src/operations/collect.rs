// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removal.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use superpose_overlay::store_path::{StoreDir, StorePath};
use superpose_overlay::{CollectAction, CollectOptions, DeleteOptions, Liveness};
use superpose_worker_protocol::{CollectGarbage, Collected, GcAction, GcTarget, Operation, Reply};

use crate::context::Context;
use crate::error::Result;

/// Collects garbage, deletes certain paths, or says what lives or is dead.
///
/// # Deviation
/// Nix ignores roots for nobody who comes through its daemon; here trusted users may.
pub(super) fn garbage(request: CollectGarbage, context: &mut Context) -> Result<Reply> {
    if request.ignore_liveness {
        context.require_trust("ignoring what keeps paths alive")?;
    }
    let dir = context.store_dir().clone();
    let mut store = context.store(Operation::CollectGarbage)?;
    let action = match (request.action, request.target) {
        (GcAction::DeleteSpecific, GcTarget::Paths { paths, .. }) => {
            let liveness = if request.ignore_liveness {
                Liveness::Ignore
            } else {
                Liveness::Respect
            };
            let paths: Vec<StorePath> = paths.into_iter().collect();
            let deleted = store.delete(&paths, &DeleteOptions::default().with_liveness(liveness))?;
            // Nix counts what was nowhere, too.
            return Ok(collected(&dir, &paths, deleted.bytes));
        }
        (GcAction::DeleteSpecific, GcTarget::Store) => return Ok(collected(&dir, &[], 0)),
        (GcAction::DeleteDead, _) => CollectAction::Delete,
        (GcAction::ReturnDead, _) => CollectAction::Rehearse,
        (GcAction::ReturnLive, _) => CollectAction::ListAlive,
    };
    let mut options = CollectOptions::default();
    options.action = action;
    options.max_freed = (request.max_freed != u64::MAX).then_some(request.max_freed);
    let found = store.collect(&options)?;
    Ok(match action {
        CollectAction::ListAlive => collected(&dir, &found.alive, 0),
        CollectAction::Rehearse => collected(&dir, &found.deleted, 0),
        CollectAction::Delete => {
            let mut paths = full(&dir, &found.deleted);
            for name in &found.junk {
                let mut path = dir.as_str().as_bytes().to_vec();
                path.push(b'/');
                path.extend(name.as_bytes());
                paths.insert(path);
            }
            Reply::Collected(Collected {
                paths,
                bytes_freed: found.bytes,
            })
        }
    })
}

fn collected(dir: &StoreDir, paths: &[StorePath], bytes_freed: u64) -> Reply {
    Reply::Collected(Collected {
        paths: full(dir, paths),
        bytes_freed,
    })
}

fn full(dir: &StoreDir, paths: &[StorePath]) -> BTreeSet<Vec<u8>> {
    paths.iter().map(|path| dir.join(path).into_bytes()).collect()
}
