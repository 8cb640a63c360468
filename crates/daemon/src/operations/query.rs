// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions about paths.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use superpose_overlay::metadata::{self, MetadataSource, PathInfo, RealisationKey, RealisationKind};
use superpose_overlay::store_path::{HashAlgorithm, HashEncoding, HashPart, StoreDir, StorePath};
use superpose_worker_protocol::{
    ClientOptions, DrvOutput, Level, Operation, Realisation, RealisationAnswer, Reply, Trust,
    UnkeyedRealisation, UnkeyedValidPathInfo,
};

use super::Answer;
use crate::budget::Share;
use crate::context::Context;
use crate::error::{Error, Result};

/// Settings that a client may override without trust: what they cost is the client's own.
const OPEN_SETTINGS: [&[u8]; 4] = [
    b"timeout",
    b"max-silent-time",
    b"build-poll-interval",
    b"connect-timeout",
];

/// What a path costs in a reply, in bytes, beside its name: its length, its padding, its place in a set.
const PATH_COST: u64 = 48;

/// The answers to a batch of questions, and what they have of the memory for large replies until they are sent.
#[derive(Debug)]
pub(crate) struct Answers {
    /// One for each path.
    replies: Vec<Result<Reply>>,
    /// Which of them answers each question: paths may be asked about again and again.
    order: Vec<usize>,
    share: Share,
}

impl Answers {
    /// The answers in the order of the questions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Result<Reply>> {
        self.order.iter().map(|&place| &self.replies[place])
    }

    /// The answer to a single question.
    pub(super) fn into_one(mut self) -> Result<Answer> {
        let reply = self.replies.pop().expect("one answer for one path");
        Ok(Answer::Large(reply?, self.share))
    }
}

/// Answers the same question about many paths: one question to the store, in which each path is once.
///
/// # Errors
/// If there is no memory for all of the answers, or a row is bad. One of many paths can spoil it for all: each of them is to be
/// asked about alone then.
pub(crate) fn answer_batch(operation: Operation, paths: &[StorePath], context: &Context) -> Result<Answers> {
    let (paths, order) = each_once(paths);
    let mut share = context.share();
    let replies = context.ask(|source| {
        if operation == Operation::IsValidPath {
            let valid = source.are_valid(&paths)?.into_iter();
            return Ok(valid.map(|valid| Ok(Reply::Flag(valid))).collect());
        }
        let infos = source.path_infos(&paths)?;
        share.take(infos.iter().flatten().map(PathInfo::held_bytes).sum())?;
        let infos = infos.into_iter();
        Ok(infos.map(|info| path_info(info, source.store_dir())).collect())
    })?;
    Ok(Answers {
        replies,
        order,
        share,
    })
}

/// Each path once, and the place of each question's path among them.
fn each_once(paths: &[StorePath]) -> (Vec<StorePath>, Vec<usize>) {
    let mut places = HashMap::with_capacity(paths.len());
    let mut found = Vec::with_capacity(paths.len());
    let order = paths.iter().map(|path| {
        *places.entry(path).or_insert_with(|| {
            found.push(path.clone());
            found.len() - 1
        })
    });
    let order = order.collect();
    (found, order)
}

/// The reply to the question what is known of a path.
pub(crate) fn path_info(info: Option<PathInfo>, dir: &StoreDir) -> Result<Reply> {
    let info = info.map(|info| unkeyed(info, dir)).transpose()?;
    Ok(Reply::PathInfo(info))
}

/// What is known of a path in the form of the protocol.
pub(crate) fn unkeyed(info: PathInfo, dir: &StoreDir) -> Result<UnkeyedValidPathInfo> {
    if info.nar_hash.algorithm() != HashAlgorithm::Sha256 {
        return Err(Error::NarHash {
            path: dir.join(&info.path),
            found: info.nar_hash.render(HashEncoding::Nix32),
        });
    }
    Ok(UnkeyedValidPathInfo {
        deriver: info.deriver,
        references: info.references.into_iter().collect(),
        registration_time: info.registration_time,
        ultimate: info.ultimate,
        signatures: info.signatures.into_iter().collect(),
        content_address: info.content_address,
        ..UnkeyedValidPathInfo::new(info.nar_hash, info.nar_size)
    })
}

/// Refuses what is about a path that is not valid.
pub(super) fn require_valid(path: &StorePath, source: &dyn MetadataSource) -> Result<()> {
    if source.are_valid(std::slice::from_ref(path))? == [true] {
        return Ok(());
    }
    Err(not_valid(path, source.store_dir()))
}

pub(super) fn not_valid(path: &StorePath, dir: &StoreDir) -> Error {
    Error::NotValid { path: dir.join(path) }
}

pub(super) fn all_valid_paths(context: &Context) -> Result<Answer> {
    let mut share = context.share();
    let mut found = BTreeSet::new();
    context.ask(|source| {
        let mut refused = None;
        let walked = source.for_each_valid_path(&mut |path| {
            let length = path.base_name().len() + context.store_dir().as_str().len();
            match share.take(length as u64 + PATH_COST) {
                Ok(()) => {
                    found.insert(path);
                    Ok(())
                }
                Err(error) => {
                    let stopped = metadata::Error::caller(error.to_string());
                    refused = Some(error);
                    Err(stopped)
                }
            }
        });
        match refused {
            Some(error) => Err(error),
            None => Ok(walked?),
        }
    })?;
    Ok(Answer::Large(Reply::Paths(found), share))
}

pub(super) fn referrers(path: StorePath, context: &Context) -> Result<Reply> {
    let found = context.ask(|source| Ok(source.referrers(&[path])?))?;
    Ok(Reply::Paths(found.into_iter().flatten().collect()))
}

pub(super) fn valid_derivers(path: StorePath, context: &Context) -> Result<Reply> {
    let found = context.ask(|source| Ok(source.valid_derivers(&[path])?))?;
    Ok(Reply::Paths(found.into_iter().flatten().collect()))
}

pub(super) fn deriver(path: StorePath, context: &Context) -> Result<Reply> {
    let info = context.ask(|source| Ok(source.path_infos(std::slice::from_ref(&path))?))?;
    match info.into_iter().flatten().next() {
        Some(info) => Ok(Reply::OptionalPath(info.deriver)),
        None => Err(not_valid(&path, context.store_dir())),
    }
}

pub(super) fn path_from_hash_part(part: HashPart, context: &Context) -> Result<Reply> {
    let found = context.ask(|source| Ok(source.path_from_hash_part(&[part])?))?;
    Ok(Reply::OptionalPath(found.into_iter().flatten().next()))
}

/// # Deviation
/// Nothing is substituted before, whatever the client wishes: that is for a Nix that is delegated to.
pub(super) fn valid_paths(paths: BTreeSet<StorePath>, context: &Context) -> Result<Reply> {
    let paths: Vec<StorePath> = paths.into_iter().collect();
    let valid = context.ask(|source| Ok(source.are_valid(&paths)?))?;
    let found = paths.into_iter().zip(valid).filter(|(_, valid)| *valid);
    Ok(Reply::Paths(found.map(|(path, _)| path).collect()))
}

pub(super) fn realisation(id: &DrvOutput, context: &Context) -> Result<Reply> {
    let key = match id {
        DrvOutput::HashModulo { hash, output } => RealisationKey {
            kind: RealisationKind::HashModulo,
            derivation: hash.render(HashEncoding::Base16),
            output: output.as_str().to_owned(),
        },
        DrvOutput::Derivation { path, output } => RealisationKey {
            kind: RealisationKind::BuildTrace,
            derivation: path.base_name().to_owned(),
            output: output.as_str().to_owned(),
        },
    };
    let found = context.ask(|source| Ok(source.realisations(&[key])?))?;
    let value = found
        .into_iter()
        .flatten()
        .next()
        .map(|found| UnkeyedRealisation {
            path: found.output_path,
            signatures: found.signatures.into_iter().collect(),
        });
    let answer = match id {
        DrvOutput::HashModulo { .. } => RealisationAnswer::Keyed(
            value
                .map(|value| Realisation {
                    id: id.clone(),
                    value,
                    dependencies: BTreeMap::new(),
                })
                .into_iter()
                .collect(),
        ),
        DrvOutput::Derivation { .. } => RealisationAnswer::Unkeyed(value),
    };
    Ok(Reply::Realisation(answer))
}

/// Takes over what the client wants, as far as it may: as in Nix, only trusted clients override settings, but for a few.
pub(super) fn set_options(mut options: ClientOptions, context: &mut Context) {
    context.logger.set_verbosity(options.verbosity);
    if context.trust != Trust::Trusted {
        options.overrides.retain(|name, value| {
            let is_open = OPEN_SETTINGS.contains(&name.as_slice())
                || (name == b"builders" && value.is_empty())
                // Nothing is fetched here; which of them may be used is for a Nix to say that is delegated to.
                || name == b"substituters";
            if !is_open {
                let name = String::from_utf8_lossy(name);
                context.logger.message(
                    Level::Warn,
                    &format!("ignoring the setting '{name}' of a client that is not trusted"),
                );
            }
            is_open
        });
    }
    context.options = options;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_asked_about_once_however_often_it_comes() {
        let [one, two] = ["one", "two"].map(|name| {
            StorePath::from_base_name(format!("0p6d6far7jx5ky739yfjf0d23nv1bbbm-{name}").as_bytes()).unwrap()
        });
        let mut questions = vec![one.clone(); 500];
        questions[7] = two.clone();
        let (paths, order) = each_once(&questions);
        assert_eq!(paths, [one, two]);
        assert_eq!(order.len(), questions.len());
        assert!(
            order
                .iter()
                .zip(&questions)
                .all(|(&place, path)| paths[place] == *path)
        );
    }
}
