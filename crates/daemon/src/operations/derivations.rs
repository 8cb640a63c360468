// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of the outputs of derivations.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use rustix::fs::{Mode, OFlags};
use superpose_overlay::store_path::{Derivation, MAX_DERIVATION_LEN, Name, StorePath};
use superpose_worker_protocol::{OutputNames, Reply};

use super::query::{not_valid, require_valid};
use crate::context::Context;
use crate::error::{Error, Result};

/// What a derivation costs while it is parsed, in lengths of its text: the text itself, and what is made of it.
const PARSED: u64 = 4;

/// The outputs of a valid derivation: those whose paths are known with them.
pub(super) type OutputMap = BTreeMap<Name, Option<StorePath>>;

pub(super) fn output_map(path: StorePath, context: &Context) -> Result<Reply> {
    Ok(Reply::OutputMap(outputs_of(&path, context)?))
}

pub(super) fn outputs(path: StorePath, context: &Context) -> Result<Reply> {
    let known = outputs_of(&path, context)?.into_values().flatten();
    Ok(Reply::Paths(known.collect()))
}

pub(super) fn output_names(path: StorePath, context: &Context) -> Result<Reply> {
    let names = outputs_of(&path, context)?.into_keys();
    Ok(Reply::OutputNames(OutputNames(names.collect())))
}

/// What is known of the outputs; none of what is no derivation.
///
/// Of most derivations the database knows all of them. Of one whose outputs are addressed by their content it does not, and
/// the derivation itself is asked for their names.
pub(super) fn outputs_of(path: &StorePath, context: &Context) -> Result<OutputMap> {
    let known = context.ask(|source| {
        let known = source.derivation_outputs(std::slice::from_ref(path))?;
        known
            .into_iter()
            .flatten()
            .next()
            .ok_or_else(|| not_valid(path, source.store_dir()))
    })?;
    if !path.is_derivation() {
        return Ok(OutputMap::new());
    }
    let mut map = OutputMap::new();
    for (name, output) in known {
        map.insert(
            Name::new(name.as_bytes()).map_err(superpose_overlay::Error::from)?,
            Some(output),
        );
    }
    if map.is_empty() {
        for name in read(path, context)?.outputs.into_keys() {
            map.insert(
                Name::new(name.as_bytes()).map_err(superpose_overlay::Error::from)?,
                None,
            );
        }
    }
    Ok(map)
}

/// Reads a valid derivation from the layer, without following a link.
pub(super) fn read(path: &StorePath, context: &Context) -> Result<Derivation> {
    context.ask(|source| require_valid(path, source))?;
    let real = &context.layout().settings().real_dir;
    let file = real.join(path.base_name());
    let fail = |error: std::io::Error| Error::io("read the derivation", &file, error);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(real, flags | OFlags::DIRECTORY, Mode::empty())
        .map_err(|error| Error::io("open the store directory", real, error))?;
    let opened = rustix::fs::openat(
        &directory,
        path.base_name(),
        flags | OFlags::NOFOLLOW | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|error| fail(error.into()))?;
    let opened = File::from(opened);
    let length = opened.metadata().map_err(fail)?.len();
    if length > MAX_DERIVATION_LEN as u64 {
        return Err(fail(std::io::ErrorKind::FileTooLarge.into()));
    }
    let mut share = context.share();
    share.take(length * PARSED)?;
    let mut text = Vec::new();
    opened.take(length).read_to_end(&mut text).map_err(fail)?;
    Ok(Derivation::parse_object(&text, context.store_dir(), path).map_err(superpose_overlay::Error::from)?)
}
