// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing requests.

use std::io::Write;

use super::{AddFlags, Request};
use crate::codec::{WireWriter, write_list, write_map, write_paths};
use crate::dialect::Dialect;
use crate::error::Result;
use crate::value::{DerivedPath, write_content_address, write_signatures};

impl Request {
    /// Writes the request. Nothing is read, and `out` is not flushed: many requests may be written before the first reply
    /// is read.
    ///
    /// # Errors
    /// If the connection did not agree on the operation, or on what it asks, and then nothing was written; if the receiver
    /// fails.
    pub fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        self.check(dialect)?;
        out.number(self.operation().number())?;
        match self {
            Self::IsValidPath(path)
            | Self::QueryReferrers(path)
            | Self::EnsurePath(path)
            | Self::AddTempRoot(path)
            | Self::QueryDeriver(path)
            | Self::QuerySubstitutablePathInfo(path)
            | Self::QueryDerivationOutputs(path)
            | Self::QueryPathInfo(path)
            | Self::QueryDerivationOutputNames(path)
            | Self::QueryValidDerivers(path)
            | Self::NarFromPath(path)
            | Self::QueryDerivationOutputMap(path) => out.store_path(path, &dialect.store_dir),
            Self::SyncWithGC | Self::FindRoots | Self::QueryAllValidPaths | Self::OptimiseStore => Ok(()),
            Self::AddToStore(header) => {
                out.string(header.name.as_str().as_bytes())?;
                out.string(header.method.to_string().as_bytes())?;
                write_paths(out, &header.references, dialect)?;
                out.flag(header.repair)
            }
            Self::AddTextToStore {
                name,
                text,
                references,
            } => {
                out.string(name.as_str().as_bytes())?;
                out.string(text)?;
                write_paths(out, references, dialect)
            }
            Self::BuildPaths { targets, mode } | Self::BuildPathsWithResults { targets, mode } => {
                write_targets(out, targets, dialect)?;
                mode.write(out)
            }
            Self::AddIndirectRoot(link) => out.string(link),
            Self::SetOptions(options) => options.write(out),
            Self::CollectGarbage(request) => request.write(out, dialect),
            Self::QueryPathFromHashPart(part) => out.string(&part.digits()),
            Self::QuerySubstitutablePathInfos(paths) if dialect.since(22) => {
                write_map(out, paths, |out, path, address| {
                    out.store_path(path, &dialect.store_dir)?;
                    write_content_address(out, address.as_ref())
                })
            }
            Self::QuerySubstitutablePathInfos(paths) => write_list(out, paths.keys(), |out, path| {
                out.store_path(path, &dialect.store_dir)
            }),
            Self::QueryValidPaths { paths, substitute } => {
                write_paths(out, paths, dialect)?;
                if dialect.since(27) {
                    out.flag(*substitute)?;
                }
                Ok(())
            }
            Self::QuerySubstitutablePaths(paths) => write_paths(out, paths, dialect),
            Self::VerifyStore {
                check_contents,
                repair,
            } => {
                out.flag(*check_contents)?;
                out.flag(*repair)
            }
            Self::BuildDerivation {
                path,
                derivation,
                mode,
            } => {
                out.store_path(path, &dialect.store_dir)?;
                derivation.write(out, dialect)?;
                mode.write(out)
            }
            Self::AddSignatures { path, signatures } => {
                out.store_path(path, &dialect.store_dir)?;
                write_signatures(out, signatures)
            }
            Self::AddToStoreNar { info, flags } => {
                info.write(out, dialect)?;
                write_flags(out, *flags)
            }
            Self::QueryMissing(targets) => write_targets(out, targets, dialect),
            Self::RegisterDrvOutput(realisation) => realisation.write(out, dialect),
            Self::QueryRealisation(id) => id.write(out, dialect),
            Self::AddMultipleToStore(flags) => write_flags(out, *flags),
            Self::AddBuildLog(derivation) => out.string(derivation.base_name().as_bytes()),
            Self::AddPermRoot { path, root } => {
                out.store_path(path, &dialect.store_dir)?;
                out.string(root)
            }
            Self::SubmitOutput { path, output } => {
                path.write(out, dialect)?;
                out.string(output.as_str().as_bytes())
            }
            Self::AddToStoreScanning { name, method } => {
                out.string(name.as_str().as_bytes())?;
                out.string(method)
            }
        }
    }

    /// Finds what cannot be written, before anything is.
    fn check(&self, dialect: &Dialect) -> Result<()> {
        self.operation().check(dialect)?;
        match self {
            Self::BuildPaths { targets, .. }
            | Self::BuildPathsWithResults { targets, .. }
            | Self::QueryMissing(targets) => targets.iter().try_for_each(|target| target.check(dialect)),
            Self::CollectGarbage(request) => request.check(dialect),
            Self::AddToStoreNar { info, .. } => info.info.check(),
            Self::RegisterDrvOutput(realisation) => realisation.check(dialect),
            Self::QueryRealisation(id) => id.check(dialect),
            _ => Ok(()),
        }
    }
}

fn write_targets<W: Write>(
    out: &mut WireWriter<W>,
    targets: &[DerivedPath],
    dialect: &Dialect,
) -> Result<()> {
    write_list(out, targets.iter(), |out, target| target.write(out, dialect))
}

fn write_flags<W: Write>(out: &mut WireWriter<W>, flags: AddFlags) -> Result<()> {
    out.flag(flags.repair)?;
    out.flag(flags.without_signatures)
}
