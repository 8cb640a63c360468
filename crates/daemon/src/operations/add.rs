// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects whose path follows from their content.

use superpose_overlay::store_path::{ContentMethod, HashAlgorithm, Name, References, StorePath};
use superpose_overlay::{AddOptions, Outcome, Source, Store};
use superpose_worker_protocol::{AddToStore, Operation, Reply, ValidPathInfo};

use super::query::{not_valid, unkeyed};
use super::{Upload, repair};
use crate::context::Context;
use crate::error::{Error, Result};

/// Adds what comes behind the request: an archive, or the contents of a file.
pub(super) fn from_stream(
    header: AddToStore,
    upload: &mut Upload<'_>,
    context: &mut Context,
) -> Result<Reply> {
    if header.method.method == ContentMethod::Git {
        return Err(Error::GitHashing);
    }
    let options = AddOptions::source(header.name)
        .with_method(header.method.method, header.method.algorithm)
        .with_references(References {
            others: header.references,
            itself: false,
        });
    let source = match options.method {
        ContentMethod::Flat | ContentMethod::Text => Source::Contents(upload),
        _ => Source::Nar(upload),
    };
    let mut store = context.store(Operation::AddToStore)?;
    let added = store.add(source, &options)?;
    if header.repair && added.outcome != Outcome::Stored {
        repair::require_intact(std::slice::from_ref(&added.path), &store)?;
    }
    Ok(Reply::AddedPath(info_of(added.path, &store)?))
}

/// Adds a text that came with the request.
pub(super) fn text(
    name: Name,
    text: &[u8],
    references: std::collections::BTreeSet<StorePath>,
    context: &mut Context,
) -> Result<Reply> {
    let options = AddOptions::source(name)
        .with_method(ContentMethod::Text, HashAlgorithm::Sha256)
        .with_references(References {
            others: references,
            itself: false,
        });
    let mut store = context.store(Operation::AddTextToStore)?;
    Ok(Reply::Path(store.add(Source::Bytes(text), &options)?.path))
}

/// What is registered: of a path that was valid already, since when and by whom it was signed.
fn info_of(path: StorePath, store: &Store) -> Result<ValidPathInfo> {
    use superpose_overlay::metadata::MetadataSource;
    let found = store.metadata().path_infos(std::slice::from_ref(&path))?;
    match found.into_iter().flatten().next() {
        Some(info) => Ok(ValidPathInfo {
            path,
            info: unkeyed(info, store.dir())?,
        }),
        None => Err(not_valid(&path, store.dir())),
    }
}
