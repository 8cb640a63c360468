// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of every operation.

use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;
use superpose_store_path::{HashPart, StorePath};
use superpose_worker_protocol::*;

use super::operation;
use super::values::*;

fn add_flags() -> impl Strategy<Value = AddFlags> {
    any::<(bool, bool)>().prop_map(|(repair, without_signatures)| AddFlags {
        repair,
        without_signatures,
    })
}

/// A request of an operation, if the dialect has it.
fn request_of(operation: Operation, dialect: &Dialect) -> BoxedStrategy<Request> {
    let simple = |make: fn(StorePath) -> Request| path().prop_map(make).boxed();
    let version = dialect.version;
    match operation {
        Operation::IsValidPath => simple(Request::IsValidPath),
        Operation::QueryReferrers => simple(Request::QueryReferrers),
        Operation::EnsurePath => simple(Request::EnsurePath),
        Operation::AddTempRoot => simple(Request::AddTempRoot),
        Operation::QueryDeriver => simple(Request::QueryDeriver),
        Operation::QuerySubstitutablePathInfo => simple(Request::QuerySubstitutablePathInfo),
        Operation::QueryDerivationOutputs => simple(Request::QueryDerivationOutputs),
        Operation::QueryPathInfo => simple(Request::QueryPathInfo),
        Operation::QueryDerivationOutputNames => simple(Request::QueryDerivationOutputNames),
        Operation::QueryValidDerivers => simple(Request::QueryValidDerivers),
        Operation::NarFromPath => simple(Request::NarFromPath),
        Operation::QueryDerivationOutputMap => simple(Request::QueryDerivationOutputMap),
        Operation::AddBuildLog => simple(Request::AddBuildLog),
        Operation::SyncWithGC => Just(Request::SyncWithGC).boxed(),
        Operation::FindRoots => Just(Request::FindRoots).boxed(),
        Operation::QueryAllValidPaths => Just(Request::QueryAllValidPaths).boxed(),
        Operation::OptimiseStore => Just(Request::OptimiseStore).boxed(),
        Operation::AddToStore => (name(), method(), algorithm(), paths(), any::<bool>())
            .prop_map(|(name, method, algorithm, references, repair)| {
                Request::AddToStore(AddToStore {
                    name,
                    method: MethodAlgorithm { method, algorithm },
                    references,
                    repair,
                })
            })
            .boxed(),
        Operation::AddTextToStore => (name(), bytes(), paths())
            .prop_map(|(name, text, references)| Request::AddTextToStore {
                name,
                text,
                references,
            })
            .boxed(),
        Operation::BuildPaths => (targets(dialect), mode())
            .prop_map(|(targets, mode)| Request::BuildPaths { targets, mode })
            .boxed(),
        Operation::BuildPathsWithResults => (targets(dialect), mode())
            .prop_map(|(targets, mode)| Request::BuildPathsWithResults { targets, mode })
            .boxed(),
        Operation::AddIndirectRoot => bytes().prop_map(Request::AddIndirectRoot).boxed(),
        Operation::SetOptions => options().prop_map(Request::SetOptions).boxed(),
        Operation::CollectGarbage => garbage(dialect).prop_map(Request::CollectGarbage).boxed(),
        Operation::QueryPathFromHashPart => any::<[u8; 20]>()
            .prop_map(|part| Request::QueryPathFromHashPart(HashPart::new(part)))
            .boxed(),
        Operation::QuerySubstitutablePathInfos => btree_map(path(), option::of(address()), 0..3)
            .prop_map(move |mut paths| {
                if version < Version::new(1, 22) {
                    paths.values_mut().for_each(|address| *address = None);
                }
                Request::QuerySubstitutablePathInfos(paths)
            })
            .boxed(),
        Operation::QueryValidPaths => (paths(), any::<bool>())
            .prop_map(move |(paths, substitute)| Request::QueryValidPaths {
                paths,
                substitute: substitute && version >= Version::new(1, 27),
            })
            .boxed(),
        Operation::QuerySubstitutablePaths => paths().prop_map(Request::QuerySubstitutablePaths).boxed(),
        Operation::VerifyStore => any::<(bool, bool)>()
            .prop_map(|(check_contents, repair)| Request::VerifyStore {
                check_contents,
                repair,
            })
            .boxed(),
        Operation::BuildDerivation => (path(), derivation(), mode())
            .prop_map(|(path, derivation, mode)| Request::BuildDerivation {
                path,
                derivation,
                mode,
            })
            .boxed(),
        Operation::AddSignatures => (path(), signatures())
            .prop_map(|(path, signatures)| Request::AddSignatures { path, signatures })
            .boxed(),
        Operation::AddToStoreNar => (keyed_info(), add_flags())
            .prop_map(|(info, flags)| Request::AddToStoreNar { info, flags })
            .boxed(),
        Operation::QueryMissing => targets(dialect).prop_map(Request::QueryMissing).boxed(),
        Operation::RegisterDrvOutput => realisation(dialect).prop_map(Request::RegisterDrvOutput).boxed(),
        Operation::QueryRealisation => drv_output(dialect).prop_map(Request::QueryRealisation).boxed(),
        Operation::AddMultipleToStore => add_flags().prop_map(Request::AddMultipleToStore).boxed(),
        Operation::AddPermRoot => (path(), bytes())
            .prop_map(|(path, root)| Request::AddPermRoot { path, root })
            .boxed(),
        Operation::SubmitOutput => (single(), name())
            .prop_map(|(path, output)| Request::SubmitOutput { path, output })
            .boxed(),
        Operation::AddToStoreScanning => (name(), bytes())
            .prop_map(|(name, method)| Request::AddToStoreScanning { name, method })
            .boxed(),
        other => panic!("no strategy for {other}"),
    }
}

pub(crate) fn request() -> impl Strategy<Value = (Dialect, Request)> {
    dialect().prop_flat_map(|dialect| {
        operation(&dialect)
            .prop_flat_map(move |operation| (Just(dialect.clone()), request_of(operation, &dialect)))
    })
}
