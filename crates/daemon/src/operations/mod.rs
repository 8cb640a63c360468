// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each operation needs, and who does it.

mod add;
mod archive;
mod build;
mod build_log;
mod collect;
mod derivations;
mod maintain;
mod missing;
mod query;
mod repair;
mod roots;
mod upload;

use std::io::BufReader;

use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{Done, FramedReader, Operation, Reply, Request};

pub(crate) use archive::Archive;
pub(crate) use query::{Answers, answer_batch, path_info};

use crate::budget::Share;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::options::Access;
use crate::stream::Incoming;

/// A stream behind a request.
pub(crate) type Upload<'i> = FramedReader<'i, BufReader<Incoming>>;

/// How a request ended well.
#[derive(Debug)]
pub(crate) enum Answer {
    /// With this reply.
    Reply(Reply),
    /// With a reply that holds much memory until it is sent.
    Large(
        Reply,
        #[expect(dead_code, reason = "given back when the reply is sent")] Share,
    ),
    /// With an archive.
    Archive(Archive),
}

/// What an operation does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing, or nothing where nothing is to be changed: what would protect or make something answers what can be
    /// answered without.
    Asks,
    /// It may change the store.
    Changes,
}

/// Whom an operation is for, whatever its fields say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Everybody who may connect. Some of what they can ask for needs trust all the same.
    Everybody,
    /// Trusted users.
    Trusted,
}

/// What an operation needs. The one table of it: an operation that is not in it does not compile or change anything.
const fn needs(operation: Operation) -> (Effect, Audience) {
    use Audience::{Everybody, Trusted};
    use Effect::{Asks, Changes};
    match operation {
        Operation::IsValidPath
        | Operation::QueryReferrers
        | Operation::BuildPaths
        | Operation::EnsurePath
        | Operation::AddTempRoot
        | Operation::SyncWithGC
        | Operation::FindRoots
        | Operation::QueryDeriver
        | Operation::SetOptions
        | Operation::QuerySubstitutablePathInfo
        | Operation::QueryDerivationOutputs
        | Operation::QueryAllValidPaths
        | Operation::QueryPathInfo
        | Operation::QueryDerivationOutputNames
        | Operation::QueryPathFromHashPart
        | Operation::QuerySubstitutablePathInfos
        | Operation::QueryValidPaths
        | Operation::QuerySubstitutablePaths
        | Operation::QueryValidDerivers
        | Operation::NarFromPath
        | Operation::QueryMissing
        | Operation::QueryDerivationOutputMap
        | Operation::QueryRealisation
        | Operation::BuildPathsWithResults => (Asks, Everybody),
        Operation::AddBuildLog | Operation::AddPermRoot => (Changes, Trusted),
        // Whatever comes to be known later changes something until it is looked at.
        _ => (Changes, Everybody),
    }
}

/// Refuses what this server or this client may not do.
fn admit(operation: Operation, context: &Context) -> Result<()> {
    let (effect, audience) = needs(operation);
    if effect == Effect::Changes && context.access() == Access::ReadOnly {
        return Err(Error::ReadOnly { operation });
    }
    if audience == Audience::Trusted {
        context.require_trust(operation.name())?;
    }
    Ok(())
}

/// Handles a request that has no stream behind it.
pub(crate) fn handle(request: Request, context: &mut Context) -> Result<Answer> {
    let operation = request.operation();
    admit(operation, context)?;
    let reply = match request {
        Request::IsValidPath(path) => return one(operation, path, context),
        Request::QueryPathInfo(path) => return one(operation, path, context),
        Request::QueryAllValidPaths => return query::all_valid_paths(context),
        Request::NarFromPath(path) => return archive::of(&path, context).map(Answer::Archive),
        Request::SetOptions(options) => {
            query::set_options(options, context);
            Reply::Nothing(())
        }
        Request::SyncWithGC => Reply::Done(Done),
        Request::EnsurePath(path) => build::ensure(path, context)?,
        request @ (Request::BuildPaths { .. } | Request::BuildPathsWithResults { .. }) => {
            build::targets(request, context)?
        }
        request @ Request::BuildDerivation { .. } => build::derivation(request, context)?,
        request @ (Request::QueryMissing(_) | Request::QueryValidPaths { substitute: true, .. })
            if context.delegates() =>
        {
            context.delegate(&request)?
        }
        Request::AddTextToStore {
            name,
            text,
            references,
        } => add::text(name, &text, references, context)?,
        Request::CollectGarbage(request) => collect::garbage(request, context)?,
        Request::OptimiseStore => maintain::optimise(context)?,
        Request::VerifyStore {
            check_contents,
            repair,
        } => repair::verify(check_contents, repair, context)?,
        Request::AddSignatures { path, signatures } => maintain::sign(&path, signatures, context)?,
        Request::RegisterDrvOutput(realisation) => maintain::realise(realisation, context)?,
        Request::AddPermRoot { path, root } => maintain::add_permanent_root(&path, root, context)?,
        Request::QueryReferrers(path) => query::referrers(path, context)?,
        Request::QueryDeriver(path) => query::deriver(path, context)?,
        Request::QueryValidDerivers(path) => query::valid_derivers(path, context)?,
        Request::QueryPathFromHashPart(part) => query::path_from_hash_part(part, context)?,
        Request::QueryValidPaths { paths, .. } => query::valid_paths(paths, context)?,
        Request::QueryRealisation(id) => query::realisation(&id, context)?,
        Request::QuerySubstitutablePathInfo(_) => Reply::Substitutable(None),
        Request::QuerySubstitutablePathInfos(_) => Reply::Substitutables(Default::default()),
        Request::QuerySubstitutablePaths(_) => Reply::Paths(Default::default()),
        Request::QueryDerivationOutputs(path) => derivations::outputs(path, context)?,
        Request::QueryDerivationOutputNames(path) => derivations::output_names(path, context)?,
        Request::QueryDerivationOutputMap(path) => derivations::output_map(path, context)?,
        Request::QueryMissing(targets) => missing::query(&targets, context)?,
        Request::AddTempRoot(path) => roots::add_temporary(path, context)?,
        Request::AddIndirectRoot(link) => roots::add_indirect(&link, context)?,
        Request::FindRoots => roots::find(context)?,
        _ => return Err(Error::NotServed { operation }),
    };
    Ok(Answer::Reply(reply))
}

/// Handles a request with a stream behind it, of which it may read as much as it likes.
pub(crate) fn receive(request: Request, upload: &mut Upload<'_>, context: &mut Context) -> Result<Answer> {
    let operation = request.operation();
    admit(operation, context)?;
    let reply = match request {
        Request::AddToStore(header) => add::from_stream(header, upload, context)?,
        Request::AddToStoreNar { info, flags } => upload::one(info, flags, upload, context)?,
        Request::AddMultipleToStore(flags) => upload::many(flags, upload, context)?,
        Request::AddBuildLog(derivation) => build_log::add(&derivation, upload, context)?,
        _ => return Err(Error::NotServed { operation }),
    };
    Ok(Answer::Reply(reply))
}

/// A question about one path, as a batch of one.
fn one(operation: Operation, path: StorePath, context: &Context) -> Result<Answer> {
    answer_batch(operation, &[path], context)?.into_one()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every number that is an operation: does a server that only asks refuse it, and is it for trusted users alone?
    #[test]
    fn every_operation_has_its_needs() {
        let asking = [
            1, 6, 9, 10, 11, 13, 14, 18, 19, 21, 22, 23, 26, 28, 29, 30, 31, 32, 33, 38, 40, 41, 43, 46,
        ];
        let changing = [7, 8, 12, 20, 34, 35, 36, 37, 39, 42, 44, 45, 47, 1000, 1001];
        let trusted = [45, 47];
        let mut numbers: Vec<u64> = Operation::ALL
            .iter()
            .map(|operation| operation.number())
            .collect();
        for &operation in Operation::ALL {
            let number = operation.number();
            let (effect, audience) = needs(operation);
            assert_eq!(effect == Effect::Asks, asking.contains(&number), "{operation}");
            assert_eq!(
                effect == Effect::Changes,
                changing.contains(&number),
                "{operation}"
            );
            assert_eq!(
                audience == Audience::Trusted,
                trusted.contains(&number),
                "{operation}"
            );
        }
        let mut known = [&asking[..], &changing].concat();
        known.sort_unstable();
        numbers.sort_unstable();
        assert_eq!(known, numbers);
    }
}
