// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps a store in order, and what is recorded besides objects.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use superpose_overlay::OptimiseOptions;
use superpose_overlay::metadata;
use superpose_overlay::store_path::{HashEncoding, Signature, StorePath};
use superpose_worker_protocol::{Done, DrvOutput, MAX_SIGNATURES, Operation, Realisation, Reply, RootPath};

use crate::context::Context;
use crate::error::Result;

pub(super) fn optimise(context: &mut Context) -> Result<Reply> {
    let mut store = context.store(Operation::OptimiseStore)?;
    store.optimise(&OptimiseOptions::default())?;
    Ok(Reply::Done(Done))
}

/// # Security
/// As in Nix anybody may add signatures: they only count where their key is trusted. What anybody may add has a bound, or whoever
/// asks about the path would have to take them all.
pub(super) fn sign(
    path: &StorePath,
    signatures: BTreeSet<Signature>,
    context: &mut Context,
) -> Result<Reply> {
    let signatures: Vec<Signature> = signatures.into_iter().collect();
    let mut store = context.store(Operation::AddSignatures)?;
    store.add_signatures(path, &signatures, MAX_SIGNATURES)?;
    Ok(Reply::Done(Done))
}

/// # Deviation
/// Nix up to 2.35 takes the word of anybody for it, later releases ask for signatures; here only trusted users may.
pub(super) fn realise(realisation: Realisation, context: &mut Context) -> Result<Reply> {
    context.require_trust("recording what an output turned out to be")?;
    let (kind, derivation, output) = match &realisation.id {
        DrvOutput::HashModulo { hash, output } => (
            metadata::RealisationKind::HashModulo,
            hash.render(HashEncoding::Base16),
            output,
        ),
        DrvOutput::Derivation { path, output } => (
            metadata::RealisationKind::BuildTrace,
            path.base_name().to_owned(),
            output,
        ),
    };
    let realisation = metadata::Realisation {
        key: metadata::RealisationKey {
            kind,
            derivation,
            output: output.as_str().to_owned(),
        },
        output_path: realisation.value.path,
        signatures: realisation.value.signatures.into_iter().collect(),
    };
    let mut store = context.store(Operation::RegisterDrvOutput)?;
    store.register_realisations(&[realisation])?;
    Ok(Reply::Nothing(()))
}

/// Makes a root where a trusted client wants it.
pub(super) fn add_permanent_root(path: &StorePath, root: Vec<u8>, context: &mut Context) -> Result<Reply> {
    let store = context.store(Operation::AddPermRoot)?;
    store.add_root(Path::new(OsStr::from_bytes(&root)), path)?;
    Ok(Reply::RootPath(RootPath(root)))
}
