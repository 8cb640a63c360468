// SPDX-License-Identifier: MIT OR Apache-2.0
//! The questions, each as what the daemon is asked.
//!
//! | question | asked for each path, in one burst |
//! |---|---|
//! | validity | `QueryValidPaths`, many paths in each |
//! | information, closures | `QueryPathInfo` |
//! | referrers | `QueryReferrers` |
//! | valid derivers | `QueryValidDerivers` |
//! | outputs | validity first, then `QueryDerivationOutputMap` of derivations |
//! | path from hash part | `QueryPathFromHashPart` |
//! | all paths, their number | `QueryAllValidPaths`, once |
//! | realisations | `QueryRealisation`, on a connection of its own |

use std::collections::{BTreeMap, BTreeSet};

use superpose_store_path::{Hash, HashPart, Name, StoreDir, StorePath};
use superpose_worker_protocol::{
    DrvOutput, RealisationAnswer, RemoteError, Request, UnkeyedValidPathInfo, plain,
};

use super::connection::{Answer, Connection, burst};
use super::socket::Absent;
use super::{DaemonSource, is_worth_repeating};
use crate::{
    Closure, MetadataSource, Outputs, PathInfo, Prune, Realisation, RealisationKey, RealisationKind, Result,
    Visit,
};

/// How many paths one question for validity holds: few questions, and none that a daemon could find too long.
const PATHS_AT_ONCE: usize = 4096;

/// What derivations are called.
const DERIVATION: &str = ".drv";

impl DaemonSource {
    /// Names a path in errors.
    fn name<'a>(&'a self, paths: &'a [StorePath]) -> impl Fn(usize) -> String + 'a {
        move |number| format!("`{}`", self.store_dir().join(&paths[number]))
    }

    fn sets(&self, paths: &[StorePath], request: fn(StorePath) -> Request) -> Result<Vec<Vec<StorePath>>> {
        let requests: Vec<Request> = paths.iter().cloned().map(request).collect();
        let sets: Vec<BTreeSet<StorePath>> = self.ask_all(&requests, self.name(paths))?;
        Ok(sets.into_iter().map(|set| set.into_iter().collect()).collect())
    }

    fn all(&self) -> Result<BTreeSet<StorePath>> {
        self.ask_one(Request::QueryAllValidPaths, "all valid paths")
    }
}

impl MetadataSource for DaemonSource {
    fn store_dir(&self) -> &StoreDir {
        &self.options.store_dir
    }

    fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>> {
        let requests: Vec<Request> = paths
            .chunks(PATHS_AT_ONCE)
            .map(|paths| Request::QueryValidPaths {
                paths: paths.iter().cloned().collect(),
                substitute: false,
            })
            .collect();
        let sets: Vec<BTreeSet<StorePath>> =
            self.ask_all(&requests, |_| "which paths are valid".to_owned())?;
        let chunks = paths.chunks(PATHS_AT_ONCE).zip(&sets);
        Ok(chunks
            .flat_map(|(paths, set)| paths.iter().map(|path| set.contains(path)))
            .collect())
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        let requests: Vec<Request> = paths.iter().cloned().map(Request::QueryPathInfo).collect();
        let answers: Vec<Answer<Option<UnkeyedValidPathInfo>>> = self.ask(&requests)?;
        let name = self.name(paths);
        let understood = paths
            .iter()
            .zip(answers)
            .enumerate()
            .map(|(number, (path, answer))| match answer {
                Ok(info) => Ok(info.map(|info| PathInfo::from_wire(path.clone(), info))),
                Err(report) if says_not_valid(&report) => Ok(None),
                Err(report) => Err(self.options.refused(name(number), &report)),
            });
        understood.collect()
    }

    fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>> {
        match direction {
            Closure::Referrers => self.walk_referrers(roots),
            Closure::References => {
                let infos = self.walk_references(roots, &mut |paths| Ok(vec![false; paths.len()]))?;
                Ok(infos.into_iter().map(|info| info.path).collect())
            }
        }
    }

    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>> {
        self.walk_references(roots, prune)
    }

    fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.sets(paths, Request::QueryReferrers)
    }

    fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>> {
        self.sets(paths, Request::QueryValidDerivers)
    }

    fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>> {
        let valid = self.are_valid(derivations)?;
        let mut outputs: Vec<Option<Outputs>> = valid.iter().map(|valid| valid.then(Outputs::new)).collect();
        // Nothing else has outputs, and to be asked for those of what is not valid is an error to a daemon.
        let asked: Vec<usize> = (0..derivations.len())
            .filter(|&number| valid[number] && derivations[number].name().ends_with(DERIVATION))
            .collect();
        let paths: Vec<StorePath> = asked.iter().map(|&number| derivations[number].clone()).collect();
        let requests: Vec<Request> = paths
            .iter()
            .cloned()
            .map(Request::QueryDerivationOutputMap)
            .collect();
        let maps: Vec<BTreeMap<Name, Option<StorePath>>> = self.ask_all(&requests, self.name(&paths))?;
        for (number, map) in asked.into_iter().zip(maps) {
            let known = map.into_iter();
            let known = known.filter_map(|(name, path)| Some((name.as_str().to_owned(), path?)));
            outputs[number] = Some(known.collect());
        }
        Ok(outputs)
    }

    fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>> {
        let requests: Vec<Request> = parts
            .iter()
            .cloned()
            .map(Request::QueryPathFromHashPart)
            .collect();
        self.ask_all(&requests, |number| format!("the hash part `{}`", parts[number]))
    }

    /// Asks with the keys of Nix up to 2.34, and only for what the caller names: a daemon without the experimental feature
    /// answers with an error, and that of Nix 2.26 ends the connection. Both mean that it keeps no realisations.
    fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>> {
        let asked: Vec<(usize, Request)> = keys
            .iter()
            .enumerate()
            .filter_map(|(number, key)| Some((number, Request::QueryRealisation(drv_output(key)?))))
            .collect();
        let mut found = vec![None; keys.len()];
        if asked.is_empty() {
            return Ok(found);
        }
        let (numbers, requests): (Vec<usize>, Vec<Request>) = asked.into_iter().unzip();
        // Whatever becomes of this connection is no matter to the other one.
        let mut connection = Connection::open(&self.options, Absent::Refused)?;
        let mut answers: Vec<Answer<RealisationAnswer>> = Vec::new();
        match burst(std::slice::from_mut(&mut connection), &requests, &mut answers) {
            Ok(()) => {}
            Err(error) if is_worth_repeating(&error) => {
                tracing::debug!(%error, "the Nix daemon keeps no realisations");
            }
            Err(error) => return Err(self.options.broken(error)),
        }
        for (number, answer) in numbers.into_iter().zip(answers) {
            match answer {
                Ok(RealisationAnswer::Keyed(list)) => {
                    found[number] = list.into_iter().next().map(|realisation| Realisation {
                        key: keys[number].clone(),
                        output_path: realisation.value.path,
                        signatures: realisation.value.signatures.into_iter().collect(),
                    });
                }
                Ok(RealisationAnswer::Unkeyed(_)) => {}
                Err(report) => {
                    let report = plain(&report.message);
                    tracing::debug!(%report, "the Nix daemon keeps no realisations");
                }
            }
        }
        Ok(found)
    }

    /// Answers with none: a daemon cannot be asked.
    fn realisations_of(&self, _: &[StorePath]) -> Result<Vec<Realisation>> {
        Ok(Vec::new())
    }

    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.all()?.into_iter().try_for_each(visit)
    }

    fn count(&self) -> Result<u64> {
        Ok(self.all()?.len() as u64)
    }
}

/// Daemons of 2.32.0 to 2.32.5 and 2.33.0 to 2.33.2 answer so where others say that there is nothing to know. Stock clients
/// look for these words, too.
fn says_not_valid(report: &RemoteError) -> bool {
    plain(&report.message).contains("is not valid")
}

/// A key in the form of the protocol, if it has one there.
fn drv_output(key: &RealisationKey) -> Option<DrvOutput> {
    match key.kind {
        RealisationKind::BuildTrace => None,
        RealisationKind::HashModulo => Some(DrvOutput::HashModulo {
            hash: Hash::parse(key.derivation.as_bytes()).ok()?,
            output: Name::new(key.output.as_bytes()).ok()?,
        }),
    }
}
