// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client asks.

mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use superpose_store_path::{ContentAddress, HashPart, Name, Signature, StorePath};

use crate::operation::Operation;
use crate::value::{
    BasicDerivation, BuildMode, ClientOptions, CollectGarbage, DerivedPath, DrvOutput, MethodAlgorithm,
    Realisation, SingleDerivedPath, ValidPathInfo,
};

/// The header of `AddToStore`.
///
/// The stream is an archive for the methods `Nar` and `Git`, and the bytes of the file for `Flat` and `Text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddToStore {
    /// The name of the object.
    pub name: Name,
    /// How its content leads to its path.
    pub method: MethodAlgorithm,
    /// What it refers to.
    pub references: BTreeSet<StorePath>,
    /// Whether to replace the object if it is there.
    pub repair: bool,
}

/// What a client wants of an object, or of objects, that it adds with everything known of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddFlags {
    /// Whether to replace objects that are there.
    pub repair: bool,
    /// Whether to do without a good signature. Only of trusted clients a server may listen to that.
    pub without_signatures: bool,
}

/// A request, as it stands before its stream.
///
/// Of a request for which [`Operation::has_stream`] holds this is the header: the stream follows, by
/// [`FramedWriter`](crate::FramedWriter) and [`FramedReader`](crate::FramedReader). In that of `AddMultipleToStore` is a list:
/// [`AddMultipleWriter`](crate::AddMultipleWriter), [`AddMultipleReader`](crate::AddMultipleReader).
///
/// The variants are those of [`Operation`], which says what each is for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the variants and fields are those of Operation, in the words of Nix"
)]
pub enum Request {
    IsValidPath(StorePath),
    QueryReferrers(StorePath),
    AddToStore(AddToStore),
    AddTextToStore {
        name: Name,
        text: Vec<u8>,
        references: BTreeSet<StorePath>,
    },
    BuildPaths {
        targets: Vec<DerivedPath>,
        mode: BuildMode,
    },
    EnsurePath(StorePath),
    AddTempRoot(StorePath),
    AddIndirectRoot(Vec<u8>),
    SyncWithGC,
    FindRoots,
    QueryDeriver(StorePath),
    SetOptions(ClientOptions),
    CollectGarbage(CollectGarbage),
    QuerySubstitutablePathInfo(StorePath),
    QueryDerivationOutputs(StorePath),
    QueryAllValidPaths,
    QueryPathInfo(StorePath),
    QueryDerivationOutputNames(StorePath),
    QueryPathFromHashPart(HashPart),
    QuerySubstitutablePathInfos(BTreeMap<StorePath, Option<ContentAddress>>),
    QueryValidPaths {
        paths: BTreeSet<StorePath>,
        /// Whether to substitute what is not valid first. From 1.27 on.
        substitute: bool,
    },
    QuerySubstitutablePaths(BTreeSet<StorePath>),
    QueryValidDerivers(StorePath),
    OptimiseStore,
    VerifyStore {
        check_contents: bool,
        repair: bool,
    },
    BuildDerivation {
        path: StorePath,
        derivation: BasicDerivation,
        mode: BuildMode,
    },
    AddSignatures {
        path: StorePath,
        signatures: BTreeSet<Signature>,
    },
    NarFromPath(StorePath),
    AddToStoreNar {
        info: ValidPathInfo,
        flags: AddFlags,
    },
    QueryMissing(Vec<DerivedPath>),
    QueryDerivationOutputMap(StorePath),
    RegisterDrvOutput(Realisation),
    QueryRealisation(DrvOutput),
    AddMultipleToStore(AddFlags),
    /// The derivation; on the wire its base name, unlike everywhere else.
    AddBuildLog(StorePath),
    BuildPathsWithResults {
        targets: Vec<DerivedPath>,
        mode: BuildMode,
    },
    AddPermRoot {
        path: StorePath,
        /// Where the root is to be.
        root: Vec<u8>,
    },
    SubmitOutput {
        path: SingleDerivedPath,
        output: Name,
    },
    AddToStoreScanning {
        name: Name,
        /// How the content leads to the path, as text: its form may still change.
        method: Vec<u8>,
    },
}

impl Request {
    /// Returns the operation.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::IsValidPath(_) => Operation::IsValidPath,
            Self::QueryReferrers(_) => Operation::QueryReferrers,
            Self::AddToStore(_) => Operation::AddToStore,
            Self::AddTextToStore { .. } => Operation::AddTextToStore,
            Self::BuildPaths { .. } => Operation::BuildPaths,
            Self::EnsurePath(_) => Operation::EnsurePath,
            Self::AddTempRoot(_) => Operation::AddTempRoot,
            Self::AddIndirectRoot(_) => Operation::AddIndirectRoot,
            Self::SyncWithGC => Operation::SyncWithGC,
            Self::FindRoots => Operation::FindRoots,
            Self::QueryDeriver(_) => Operation::QueryDeriver,
            Self::SetOptions(_) => Operation::SetOptions,
            Self::CollectGarbage(_) => Operation::CollectGarbage,
            Self::QuerySubstitutablePathInfo(_) => Operation::QuerySubstitutablePathInfo,
            Self::QueryDerivationOutputs(_) => Operation::QueryDerivationOutputs,
            Self::QueryAllValidPaths => Operation::QueryAllValidPaths,
            Self::QueryPathInfo(_) => Operation::QueryPathInfo,
            Self::QueryDerivationOutputNames(_) => Operation::QueryDerivationOutputNames,
            Self::QueryPathFromHashPart(_) => Operation::QueryPathFromHashPart,
            Self::QuerySubstitutablePathInfos(_) => Operation::QuerySubstitutablePathInfos,
            Self::QueryValidPaths { .. } => Operation::QueryValidPaths,
            Self::QuerySubstitutablePaths(_) => Operation::QuerySubstitutablePaths,
            Self::QueryValidDerivers(_) => Operation::QueryValidDerivers,
            Self::OptimiseStore => Operation::OptimiseStore,
            Self::VerifyStore { .. } => Operation::VerifyStore,
            Self::BuildDerivation { .. } => Operation::BuildDerivation,
            Self::AddSignatures { .. } => Operation::AddSignatures,
            Self::NarFromPath(_) => Operation::NarFromPath,
            Self::AddToStoreNar { .. } => Operation::AddToStoreNar,
            Self::QueryMissing(_) => Operation::QueryMissing,
            Self::QueryDerivationOutputMap(_) => Operation::QueryDerivationOutputMap,
            Self::RegisterDrvOutput(_) => Operation::RegisterDrvOutput,
            Self::QueryRealisation(_) => Operation::QueryRealisation,
            Self::AddMultipleToStore(_) => Operation::AddMultipleToStore,
            Self::AddBuildLog(_) => Operation::AddBuildLog,
            Self::BuildPathsWithResults { .. } => Operation::BuildPathsWithResults,
            Self::AddPermRoot { .. } => Operation::AddPermRoot,
            Self::SubmitOutput { .. } => Operation::SubmitOutput,
            Self::AddToStoreScanning { .. } => Operation::AddToStoreScanning,
        }
    }
}
