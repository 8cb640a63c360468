// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps paths from being collected.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{Done, GcRoot, Level, Operation, Reply, Trust};

use crate::context::Context;
use crate::error::Result;
use crate::options::Access;
use crate::pool::Opened;

/// What Nix shows to others than trusted clients in place of what tells of processes.
const CENSORED: &[u8] = b"{censored}";

/// Keeps a path until the connection ends.
///
/// A server that only answers questions keeps nothing, and says so once: clients protect whatever they use, and most of
/// them only look at it.
pub(super) fn add_temporary(path: StorePath, context: &mut Context) -> Result<Reply> {
    match context.access() {
        Access::ReadWrite => context.protect(&[path])?,
        Access::ReadOnly if !std::mem::replace(&mut context.knows_no_protection, true) => {
            context.logger.message(
                Level::Talkative,
                "this server only answers questions: paths are not kept from being collected",
            );
        }
        Access::ReadOnly => {}
    }
    Ok(Reply::Done(Done))
}

pub(super) fn add_indirect(link: &[u8], context: &mut Context) -> Result<Reply> {
    let store = context.store(Operation::AddIndirectRoot)?;
    store.add_indirect_root(Path::new(OsStr::from_bytes(link)))?;
    Ok(Reply::Done(Done))
}

/// All roots. Others than trusted clients do not see what processes use which paths.
pub(super) fn find(context: &Context) -> Result<Reply> {
    let roots = context.ask_opened(|opened| {
        Ok(match opened {
            Opened::Store(store) => store.all_roots()?,
            Opened::View(view) => view.roots()?,
        })
    })?;
    let shown: BTreeSet<(Vec<u8>, StorePath)> = roots
        .into_iter()
        .map(|root| {
            let link = root.link.as_os_str().as_bytes();
            let link = match context.trust {
                Trust::Trusted => link,
                _ if tells_of_processes(link) => CENSORED,
                _ => link,
            };
            (link.to_vec(), root.path)
        })
        .collect();
    let roots = shown.into_iter().map(|(link, path)| GcRoot { link, path });
    Ok(Reply::Roots(roots.collect()))
}

fn tells_of_processes(link: &[u8]) -> bool {
    link.starts_with(b"{") || link.starts_with(b"/proc/")
}
