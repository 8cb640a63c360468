// SPDX-License-Identifier: MIT OR Apache-2.0
//! What would have to be built. Nothing can be fetched here, so what is missing and has no derivation is unknown.

use std::collections::{BTreeSet, HashSet};

use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{
    ActivityType, DerivedPath, Level, Missing, OutputsSpec, Reply, SingleDerivedPath,
};

use super::derivations::{self, OutputMap};
use crate::context::Context;
use crate::error::{Error, Result};

/// What is wanted of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Wanted {
    All,
    Outputs(BTreeSet<String>),
}

/// Answers by a walk without recursion: chains of derivations are long.
pub(super) fn query(targets: &[DerivedPath], context: &Context) -> Result<Reply> {
    let text = "querying info about missing paths";
    let _activity = (context.logger).start(Level::Debug, ActivityType::Unknown, text, Vec::new());
    let mut missing = Missing::default();
    let mut opaque: Vec<StorePath> = Vec::new();
    let mut pending: Vec<(StorePath, Wanted)> = Vec::new();
    for target in targets {
        match target {
            DerivedPath::Opaque(path) => opaque.push(path.clone()),
            DerivedPath::Built {
                drv: SingleDerivedPath::Opaque(drv),
                outputs,
            } => pending.push((drv.clone(), wanted(outputs))),
            // An output of an output is known only when the first is built, and that is what would be done.
            DerivedPath::Built { drv, .. } => pending.push(innermost(drv)),
        }
    }
    let mut seen = HashSet::new();
    while let Some((drv, wanted)) = pending.pop() {
        if !seen.insert((drv.clone(), wanted.clone())) {
            continue;
        }
        let outputs = match derivations::outputs_of(&drv, context) {
            Ok(outputs) => outputs,
            Err(Error::NotValid { .. }) => {
                missing.unknown.insert(drv);
                continue;
            }
            Err(error) => return Err(error),
        };
        if are_there(&outputs, &wanted, context)? || missing.will_build.contains(&drv) {
            continue;
        }
        let derivation = derivations::read(&drv, context)?;
        opaque.extend(derivation.input_srcs);
        pending.extend(
            derivation
                .input_drvs
                .into_iter()
                .map(|(input, outputs)| (input, Wanted::Outputs(outputs))),
        );
        missing.will_build.insert(drv);
    }
    let valid = context.ask(|source| Ok(source.are_valid(&opaque)?))?;
    let lost = opaque.into_iter().zip(valid).filter(|(_, valid)| !valid);
    missing.unknown.extend(lost.map(|(path, _)| path));
    Ok(Reply::Missing(missing))
}

fn wanted(outputs: &OutputsSpec) -> Wanted {
    match outputs {
        OutputsSpec::All => Wanted::All,
        OutputsSpec::Names(names) => {
            Wanted::Outputs(names.iter().map(|name| name.as_str().to_owned()).collect())
        }
    }
}

/// The derivation at the bottom, and its output that is wanted.
fn innermost(path: &SingleDerivedPath) -> (StorePath, Wanted) {
    let mut path = path;
    let mut wanted = Wanted::All;
    loop {
        match path {
            SingleDerivedPath::Opaque(drv) => return (drv.clone(), wanted),
            SingleDerivedPath::Built { drv, output } => {
                wanted = Wanted::Outputs(BTreeSet::from([output.as_str().to_owned()]));
                path = drv;
            }
        }
    }
}

/// Whether all that is wanted is valid. What a derivation does not have cannot be.
fn are_there(outputs: &OutputMap, wanted: &Wanted, context: &Context) -> Result<bool> {
    let mut paths = Vec::new();
    let mut found = 0;
    for (name, path) in outputs {
        let is_wanted = match wanted {
            Wanted::All => true,
            Wanted::Outputs(names) => names.contains(name.as_str()),
        };
        if is_wanted {
            found += 1;
            paths.extend(path.clone());
        }
    }
    let expected = match wanted {
        Wanted::All => outputs.len(),
        Wanted::Outputs(names) => names.len(),
    };
    if found < expected || paths.len() < found {
        return Ok(false);
    }
    let valid = context.ask(|source| Ok(source.are_valid(&paths)?))?;
    Ok(valid.into_iter().all(|valid| valid))
}
