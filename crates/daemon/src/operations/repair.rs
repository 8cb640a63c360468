// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients want made good.

use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Contents, Store, VerifyOptions, VerifyReport};
use superpose_worker_protocol::{Level, Operation, Reply, Request};

use crate::context::Context;
use crate::error::{Error, Result};

/// Tells the client of every fault, and whether there is one.
///
/// What is to be repaired is mended here as far as nothing is needed for it. Good objects come by whoever builds and fetches,
/// if anybody does; without, those that would be needed are named, as by a Nix that has nothing to take them from.
pub(super) fn verify(check_contents: bool, repair: bool, context: &mut Context) -> Result<Reply> {
    if repair {
        context.require_trust("repairing")?;
    }
    let mut options = VerifyOptions::default();
    if check_contents {
        options.contents = Contents::Check;
    }
    let mut report = context.store(Operation::VerifyStore)?.verify(&options)?;
    if repair && !report.faults.is_empty() {
        mend(&mut report, &options, context)?;
        if !report.faults.is_empty() && context.delegates() {
            context.delegate(&Request::VerifyStore {
                check_contents,
                repair,
            })?;
            // The client was told what it did; what counts is what is there now.
            report = context.store(Operation::VerifyStore)?.verify(&options)?;
        }
    }
    for fault in &report.faults {
        let name = fault.name().display();
        let text = match fault.path() {
            Some(path) if repair => format!(
                "cannot repair path '{}': `superpose verify --repair --from STORE` takes a good one from another store",
                context.store_dir().join(path)
            ),
            _ => format!("'{name}' is not as it should be: `superpose verify` says more"),
        };
        context.logger.message(Level::Error, &text);
    }
    Ok(Reply::Flag(!report.faults.is_empty()))
}

/// Mends what needs nothing from elsewhere.
fn mend(report: &mut VerifyReport, options: &VerifyOptions, context: &mut Context) -> Result<()> {
    let mut store = context.store(Operation::VerifyStore)?;
    store.repair(report, None)?;
    *report = store.verify(options)?;
    Ok(())
}

/// Refuses objects that were valid before they were sent to be made good, and are not what is registered. Those that are
/// need nothing, and a client that builds with the wish to repair sends every derivation so.
pub(super) fn require_intact(paths: &[StorePath], store: &Store) -> Result<()> {
    let intact = store.are_intact(paths)?;
    match paths.iter().zip(intact).find(|(_, intact)| !intact) {
        None => Ok(()),
        Some((path, _)) => Err(Error::RepairByUpload {
            path: store.dir().join(path),
        }),
    }
}
