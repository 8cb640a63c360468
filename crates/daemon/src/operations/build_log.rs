// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs of builds that a client brings.

use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{Done, Operation, Reply};

use super::Upload;
use crate::context::Context;
use crate::error::Result;

/// Keeps a log where clients look for it. One that is there already stays, as in Nix: whoever comes later does not decide
/// what others read of a build.
pub(super) fn add(derivation: &StorePath, upload: &mut Upload<'_>, context: &mut Context) -> Result<Reply> {
    let store = context.store(Operation::AddBuildLog)?;
    store.add_build_log(derivation, upload)?;
    Ok(Reply::Done(Done))
}
