// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers to what a client has not asked yet.
//!
//! A stock client walks a closure with one question at a time, and each question is about a reference of an earlier answer.
//! So while it thinks about an answer, the server asks the store about the references in it. What is kept says nothing stale:
//! it counts only if the store is in the same [`Edition`] when it is told as before it was read, which the databases say of
//! changes by anybody. To ask for that costs a fraction of an answer.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use superpose_overlay::metadata::Edition;
use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{Frame, Operation, Reply, WireWriter};

use crate::budget::{Budget, Share};
use crate::context::Context;
use crate::error::Result;
use crate::operations;

/// After how many questions about references, more than about other paths, a client counts as one that walks.
const WALKS: u32 = 2;

/// How certain of it one can be: so many other questions more than [`WALKS`] are forgiven.
const CERTAIN: u32 = 8;

/// Most paths that are read at once, since the next question may have come meanwhile. The others are asked for in vain at
/// worst.
const AT_ONCE: usize = 16;

/// Most bytes of answers for one client. A walk goes deep before it goes on beside, so it leaves many behind.
const MOST: u64 = 2 << 20;

/// What an answer costs beside its bytes and its references.
const ANSWER_COST: u64 = 128;

/// What a reference costs beside its bytes.
const REFERENCE_COST: u64 = 96;

/// Most paths that are remembered as read or asked for, each by a number.
const KNOWN: usize = 28_000;

/// An answer as it is sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) bytes: Vec<u8>,
    pub(crate) references: Vec<StorePath>,
}

impl Ready {
    fn cost(&self) -> u64 {
        self.bytes.len() as u64 + self.references.len() as u64 * REFERENCE_COST + ANSWER_COST
    }
}

/// What was answered ahead for one client.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// How much the client looks like one that walks.
    walking: u32,
    /// The references in the last answer.
    last: Vec<StorePath>,
    /// Whatever was asked for or read ahead. Two paths of one number only mean that one of them is not read ahead.
    known: HashSet<u32>,
    /// What the store was before the answers were read.
    edition: Option<Edition>,
    ready: HashMap<StorePath, Ready>,
    cost: u64,
    share: Share,
}

impl Ahead {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            walking: 0,
            last: Vec::new(),
            known: HashSet::new(),
            edition: None,
            ready: HashMap::new(),
            cost: 0,
            share: Share::new(budget),
        }
    }

    /// Returns the answer for a path if it is there and still right.
    pub(crate) fn take(&mut self, path: &StorePath, context: &Context) -> Option<Ready> {
        let ready = self.remove(path);
        let is_reference = ready.is_some() || self.last.contains(path);
        self.walking = if is_reference {
            (self.walking + 1).min(WALKS + CERTAIN)
        } else {
            self.walking.saturating_sub(1)
        };
        let ready = ready?;
        let now = context.ask(|source| Ok(source.edition()?));
        if now.is_ok_and(|now| now.is_some() && now == self.edition) {
            return Some(ready);
        }
        // Somebody else changes the store, or asks of the same one: then there is less to gain.
        self.forget();
        self.walking = 0;
        None
    }

    /// Takes note of an answer that was given. Returns whether there is something to read ahead.
    pub(crate) fn note(&mut self, path: &StorePath, references: Vec<StorePath>) -> bool {
        self.last = references;
        if self.walking < WALKS {
            return false;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(number(path));
        self.last.iter().any(|path| !self.known.contains(&number(path)))
    }

    /// Answers what is likely to be asked next, unless the store is in use.
    pub(crate) fn read(&mut self, context: &Context) {
        let new = self
            .last
            .iter()
            .filter(|path| !self.known.contains(&number(path)));
        let paths: Vec<StorePath> = new.take(AT_ONCE).cloned().collect();
        let read = context.ask_at_leisure(|source| {
            // Before the answers: what changes in between makes them useless, not wrong.
            let edition = source.edition()?;
            let infos = match &edition {
                Some(_) => source.path_infos(&paths)?,
                None => Vec::new(),
            };
            Ok((edition, infos))
        });
        // Whatever is wrong is told when it is asked for.
        let Some(Ok((edition, infos))) = read else {
            return;
        };
        if edition != self.edition {
            self.forget();
            self.edition = edition;
        }
        self.known.extend(paths.iter().map(number));
        for (path, info) in paths.into_iter().zip(infos) {
            let Ok(reply) = operations::path_info(info, context.store_dir()) else {
                continue;
            };
            if let Ok(ready) = render(&reply, context) {
                self.keep(path, ready);
            }
        }
    }

    fn remove(&mut self, path: &StorePath) -> Option<Ready> {
        let ready = self.ready.remove(path)?;
        self.cost -= ready.cost();
        self.share.give(ready.cost());
        Some(ready)
    }

    fn keep(&mut self, path: StorePath, ready: Ready) {
        self.remove(&path);
        let cost = ready.cost();
        if self.cost + cost > MOST || self.share.take(cost).is_err() {
            // What was left behind longest ago cannot be told from the rest; it is read again when it is asked for.
            self.drop_answers();
            return;
        }
        self.cost += cost;
        self.ready.insert(path, ready);
    }

    fn forget(&mut self) {
        self.drop_answers();
        self.known.clear();
    }

    fn drop_answers(&mut self) {
        self.ready = HashMap::new();
        self.cost = 0;
        self.share.give_back();
    }
}

/// The paths that an answer refers to.
pub(crate) fn references(reply: &Reply) -> Vec<StorePath> {
    match reply {
        Reply::PathInfo(Some(info)) => info.references.iter().cloned().collect(),
        _ => Vec::new(),
    }
}

fn render(reply: &Reply, context: &Context) -> Result<Ready> {
    debug_assert_eq!(reply.shape(), Operation::QueryPathInfo.shape());
    let mut out = WireWriter::new(Vec::new());
    Frame::Last.write(&mut out, context.dialect.version)?;
    reply.write(&mut out, &context.dialect)?;
    Ok(Ready {
        bytes: out.into_inner(),
        references: references(reply),
    })
}

fn number(path: &StorePath) -> u32 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    // Truncated: any of its bits will do.
    hasher.finish() as u32
}
