// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests to build or fetch: what is there already is answered, the rest goes to a Nix that can.

use std::collections::BTreeMap;

use superpose_overlay::store_path::{DerivationOutput, Name, StorePath};
use superpose_worker_protocol::{
    BasicDerivation, BuildMode, BuildResult, BuildStatus, BuiltOutput, DerivedPath, Done, KeyedBuildResult,
    OutputsSpec, Reply, Request, SingleDerivedPath,
};

use super::derivations;
use super::query::not_valid;
use crate::Access;
use crate::context::Context;
use crate::error::{Error, Result};

/// What is there of what was asked for: the outputs by their names, of an object as it is none.
type There = BTreeMap<Name, StorePath>;

/// Answers `BuildPaths` and `BuildPathsWithResults`.
pub(super) fn targets(request: Request, context: &mut Context) -> Result<Reply> {
    let (targets, mode, with_results) = match &request {
        Request::BuildPaths { targets, mode } => (targets, *mode, false),
        Request::BuildPathsWithResults { targets, mode } => (targets, *mode, true),
        other => {
            return Err(Error::NotServed {
                operation: other.operation(),
            });
        }
    };
    if mode == BuildMode::Repair {
        context.require_trust("repairing")?;
    }
    let mut found = Vec::with_capacity(targets.len());
    for target in targets {
        found.push(match mode {
            BuildMode::Normal => there(target, context),
            // They are for what is there.
            BuildMode::Repair | BuildMode::Check => Err(cannot(target, context)),
        });
    }
    let is_missing =
        |found: &Result<There>| matches!(found, Err(Error::CannotMake { .. } | Error::NotValid { .. }));
    if found.iter().any(is_missing) && context.delegates() {
        return context.delegate(&request);
    }
    if !with_results {
        for found in found {
            found?;
        }
        return Ok(Reply::Done(Done));
    }
    let mut results = Vec::with_capacity(targets.len());
    for (target, found) in targets.iter().zip(found) {
        let result = match found {
            Ok(outputs) => already_valid(outputs),
            Err(error @ (Error::CannotMake { .. } | Error::NotValid { .. })) => {
                let mut result = BuildResult::new(BuildStatus::MiscFailure);
                result.error = error.report().message;
                result
            }
            Err(error) => return Err(error),
        };
        results.push(KeyedBuildResult {
            target: target.clone(),
            result,
        });
    }
    Ok(Reply::BuildResults(results))
}

/// Answers `BuildDerivation`: of a derivation that comes with the request.
///
/// # Security
/// As in Nix others than trusted users may only have that built whose content says what its path is: nothing that they
/// make up comes to lie under a path that means something to others. The Nix that builds for them knows that they are not
/// trusted, and names the derivation anew.
pub(super) fn derivation(request: Request, context: &mut Context) -> Result<Reply> {
    let Request::BuildDerivation {
        path,
        derivation,
        mode,
    } = &request
    else {
        return Err(Error::NotServed {
            operation: request.operation(),
        });
    };
    if *mode == BuildMode::Normal
        && let Some(outputs) = known_outputs(derivation)
    {
        let paths: Vec<StorePath> = outputs.values().cloned().collect();
        protect(&paths, context)?;
        if are_valid(paths.iter(), context)? {
            return Ok(Reply::BuildResult(already_valid(outputs)));
        }
    }
    if !derivation.outputs.values().all(follows_from_content) || derivation.outputs.is_empty() {
        context.require_trust("building an input-addressed derivation that is not in the store")?;
    }
    if context.delegates() {
        return context.delegate(&request);
    }
    Err(Error::CannotMake {
        path: context.store_dir().join(path),
    })
}

/// Answers `EnsurePath`. What is only valid below becomes known above, with all that it needs.
pub(super) fn ensure(path: StorePath, context: &mut Context) -> Result<Reply> {
    let paths = std::slice::from_ref(&path);
    if context.access() == Access::ReadWrite {
        context.protect(paths)?;
    }
    if are_valid(paths.iter(), context)? {
        if context.access() == Access::ReadWrite {
            let mut store = context.store(superpose_worker_protocol::Operation::EnsurePath)?;
            store.ensure(paths)?;
        }
        return Ok(Reply::Done(Done));
    }
    if context.delegates() {
        return context.delegate(&Request::EnsurePath(path));
    }
    Err(Error::CannotMake {
        path: context.store_dir().join(&path),
    })
}

/// What is there of a target, protected before it was looked for.
fn there(target: &DerivedPath, context: &mut Context) -> Result<There> {
    let (drv, outputs) = match target {
        DerivedPath::Opaque(path) => {
            let paths = std::slice::from_ref(path);
            protect(paths, context)?;
            return match are_valid(paths.iter(), context)? {
                true => Ok(There::new()),
                false => Err(cannot(target, context)),
            };
        }
        DerivedPath::Built {
            drv: SingleDerivedPath::Opaque(drv),
            outputs,
        } => (drv, outputs),
        DerivedPath::Built { .. } => return Err(cannot(target, context)),
    };
    let known = derivations::outputs_of(drv, context)?;
    let mut wanted = There::new();
    match outputs {
        OutputsSpec::All => {
            for (name, path) in known {
                wanted.insert(name, path.ok_or_else(|| cannot(target, context))?);
            }
        }
        OutputsSpec::Names(names) => {
            for name in names {
                let path = known.get(name).cloned().flatten();
                wanted.insert(name.clone(), path.ok_or_else(|| cannot(target, context))?);
            }
        }
    }
    if wanted.is_empty() {
        return Err(not_valid(drv, context.store_dir()));
    }
    let paths: Vec<StorePath> = wanted.values().cloned().collect();
    protect(&paths, context)?;
    if are_valid(paths.iter(), context)? {
        return Ok(wanted);
    }
    Err(cannot(target, context))
}

/// Before it is asked whether they are valid: what was valid before may be gone when the answer arrives.
fn protect(paths: &[StorePath], context: &mut Context) -> Result<()> {
    match context.access() {
        Access::ReadWrite => context.protect(paths),
        Access::ReadOnly => Ok(()),
    }
}

fn are_valid<'p>(paths: impl Iterator<Item = &'p StorePath>, context: &Context) -> Result<bool> {
    let paths: Vec<StorePath> = paths.cloned().collect();
    let valid = context.ask(|source| Ok(source.are_valid(&paths)?))?;
    Ok(valid.into_iter().all(|valid| valid))
}

fn cannot(target: &DerivedPath, context: &Context) -> Error {
    Error::CannotMake {
        path: target.render(&context.dialect),
    }
}

/// Whether the path of an output follows from its content.
fn follows_from_content(output: &DerivationOutput) -> bool {
    matches!(
        output,
        DerivationOutput::Fixed { .. } | DerivationOutput::Floating { .. }
    )
}

/// The outputs of a derivation, if all are known beforehand.
fn known_outputs(derivation: &BasicDerivation) -> Option<There> {
    let mut known = There::new();
    for (name, output) in &derivation.outputs {
        match output.path() {
            Some(path) => known.insert(name.clone(), path.clone()),
            None => return None,
        };
    }
    Some(known)
}

fn already_valid(outputs: There) -> BuildResult {
    let mut result = BuildResult::new(BuildStatus::AlreadyValid);
    result.outputs = outputs
        .into_iter()
        .map(|(name, path)| {
            let output = BuiltOutput {
                derivation_hash: None,
                path,
                signatures: Default::default(),
            };
            (name, output)
        })
        .collect();
    result
}
