// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading requests.

use std::collections::BTreeMap;
use std::io::Read;

use superpose_store_path::{HashPart, Name, StorePath};

use super::{AddFlags, AddToStore, Request};
use crate::codec::{WireReader, read_list, read_map, read_paths};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::value::{
    BasicDerivation, BuildMode, ClientOptions, CollectGarbage, DerivedPath, DrvOutput, MethodAlgorithm,
    Realisation, SingleDerivedPath, ValidPathInfo, read_content_address, read_signatures,
};

impl Request {
    /// Reads the next request, as a message of its own towards the limits. `None`: the client has gone, as clients go.
    ///
    /// # Errors
    /// If the source fails or ends within the request, a field is not valid, the operation is not known, or the connection
    /// did not agree on it. The length of the rest cannot be known then: tell the client, and close.
    pub fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Option<Self>> {
        input.begin_message();
        let Some(number) = input.number_or_end("the number of an operation")? else {
            return Ok(None);
        };
        let operation = Operation::from_number(number).ok_or(Error::UnknownOperation { number })?;
        operation.check(dialect).map_err(|_| Error::NotAgreed {
            operation,
            agreed: dialect.version,
        })?;
        read_fields(operation, input, dialect).map(Some)
    }
}

fn read_fields<R: Read>(
    operation: Operation,
    input: &mut WireReader<R>,
    dialect: &Dialect,
) -> Result<Request> {
    Ok(match operation {
        Operation::IsValidPath => Request::IsValidPath(path(input, dialect)?),
        Operation::QueryReferrers => Request::QueryReferrers(path(input, dialect)?),
        Operation::AddToStore => Request::AddToStore(AddToStore {
            name: name(input)?,
            method: MethodAlgorithm::parse(input.word("the content address method")?)?,
            references: read_paths(input, "the references", dialect)?,
            repair: input.flag("the wish to repair")?,
        }),
        Operation::AddTextToStore => Request::AddTextToStore {
            name: name(input)?,
            text: input.content("the text of an object")?,
            references: read_paths(input, "the references", dialect)?,
        },
        Operation::BuildPaths => Request::BuildPaths {
            targets: targets(input, dialect)?,
            mode: BuildMode::read(input)?,
        },
        Operation::EnsurePath => Request::EnsurePath(path(input, dialect)?),
        Operation::AddTempRoot => Request::AddTempRoot(path(input, dialect)?),
        Operation::AddIndirectRoot => Request::AddIndirectRoot(input.text("the path of a root")?),
        Operation::SyncWithGC => Request::SyncWithGC,
        Operation::FindRoots => Request::FindRoots,
        Operation::QueryDeriver => Request::QueryDeriver(path(input, dialect)?),
        Operation::SetOptions => Request::SetOptions(ClientOptions::read(input)?),
        Operation::CollectGarbage => Request::CollectGarbage(CollectGarbage::read(input, dialect)?),
        Operation::QuerySubstitutablePathInfo => Request::QuerySubstitutablePathInfo(path(input, dialect)?),
        Operation::QueryDerivationOutputs => Request::QueryDerivationOutputs(path(input, dialect)?),
        Operation::QueryAllValidPaths => Request::QueryAllValidPaths,
        Operation::QueryPathInfo => Request::QueryPathInfo(path(input, dialect)?),
        Operation::QueryDerivationOutputNames => Request::QueryDerivationOutputNames(path(input, dialect)?),
        Operation::QueryPathFromHashPart => {
            Request::QueryPathFromHashPart(input.parsed("a hash part", HashPart::parse)?)
        }
        Operation::QuerySubstitutablePathInfos => {
            Request::QuerySubstitutablePathInfos(if dialect.since(22) {
                read_map(input, "the paths", |input| {
                    Ok((path(input, dialect)?, read_content_address(input)?))
                })?
            } else {
                let paths = read_paths(input, "the paths", dialect)?;
                paths
                    .into_iter()
                    .map(|path| (path, None))
                    .collect::<BTreeMap<_, _>>()
            })
        }
        Operation::QueryValidPaths => Request::QueryValidPaths {
            paths: read_paths(input, "the paths", dialect)?,
            substitute: dialect.since(27) && input.flag("the wish to substitute")?,
        },
        Operation::QuerySubstitutablePaths => {
            Request::QuerySubstitutablePaths(read_paths(input, "the paths", dialect)?)
        }
        Operation::QueryValidDerivers => Request::QueryValidDerivers(path(input, dialect)?),
        Operation::OptimiseStore => Request::OptimiseStore,
        Operation::VerifyStore => Request::VerifyStore {
            check_contents: input.flag("the wish to check contents")?,
            repair: input.flag("the wish to repair")?,
        },
        Operation::BuildDerivation => Request::BuildDerivation {
            path: path(input, dialect)?,
            derivation: BasicDerivation::read(input, dialect)?,
            mode: BuildMode::read(input)?,
        },
        Operation::AddSignatures => Request::AddSignatures {
            path: path(input, dialect)?,
            signatures: read_signatures(input)?,
        },
        Operation::NarFromPath => Request::NarFromPath(path(input, dialect)?),
        Operation::AddToStoreNar => Request::AddToStoreNar {
            info: ValidPathInfo::read(input, dialect)?,
            flags: flags(input)?,
        },
        Operation::QueryMissing => Request::QueryMissing(targets(input, dialect)?),
        Operation::QueryDerivationOutputMap => Request::QueryDerivationOutputMap(path(input, dialect)?),
        Operation::RegisterDrvOutput => Request::RegisterDrvOutput(Realisation::read(input, dialect)?),
        Operation::QueryRealisation => Request::QueryRealisation(DrvOutput::read(input, dialect)?),
        Operation::AddMultipleToStore => Request::AddMultipleToStore(flags(input)?),
        Operation::AddBuildLog => {
            Request::AddBuildLog(input.parsed("the derivation of a log", StorePath::from_base_name)?)
        }
        Operation::BuildPathsWithResults => Request::BuildPathsWithResults {
            targets: targets(input, dialect)?,
            mode: BuildMode::read(input)?,
        },
        Operation::AddPermRoot => Request::AddPermRoot {
            path: path(input, dialect)?,
            root: input.text("the path of a root")?,
        },
        Operation::SubmitOutput => Request::SubmitOutput {
            path: SingleDerivedPath::read(input, dialect)?,
            output: input.parsed("the name of an output", Name::new)?,
        },
        Operation::AddToStoreScanning => Request::AddToStoreScanning {
            name: name(input)?,
            method: input.word("the content address method")?.to_vec(),
        },
    })
}

fn path<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<StorePath> {
    input.store_path("the path", &dialect.store_dir)
}

fn name<R: Read>(input: &mut WireReader<R>) -> Result<Name> {
    input.parsed("the name of an object", Name::new)
}

fn targets<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Vec<DerivedPath>> {
    read_list(input, "the derived paths", |input| {
        DerivedPath::read(input, dialect)
    })
}

fn flags<R: Read>(input: &mut WireReader<R>) -> Result<AddFlags> {
    Ok(AddFlags {
        repair: input.flag("the wish to repair")?,
        without_signatures: input.flag("the wish not to check signatures")?,
    })
}
