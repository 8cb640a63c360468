// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which files of the layer become links, found out without changing anything.
//!
//! What was searched before is not searched again, what is in the farm is not hashed again, and a file whose size no
//! other file has is not hashed at all.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, Stat};
use superpose_metadata::MetadataSource;
use superpose_store_path::StorePath;

use super::super::Store;
use super::super::parallel::on_threads;
use super::farm::{self, Farm, Inventory, Lead, Leader};
use super::file::{self, Content, Hashed, Unhashed};
use super::memory::{Memory, NO_FARM, Place, Searched};
use super::report::Skipped;
use super::survey::{Survey, survey};
use crate::listing::EntryKind;
use crate::store::layer::{Entry, Identity, Layer};
use crate::watch::{Doing, Progress};
use crate::{Error, Result};

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The objects in which there is something to do, with their files.
    pub(super) work: Vec<Work>,
    /// What the farm has of the contents of those files.
    pub(super) leads: HashMap<Content, Lead>,
    /// What will be remembered when it is done.
    pub(super) memory: Memory,
    /// Whether that is anything new.
    pub(super) learned: bool,
    /// How many files will become links.
    pub(super) linked: u64,
    /// How many bytes that will give back.
    pub(super) bytes: u64,
    pub(super) searched: u64,
    pub(super) hashed: u64,
    pub(super) skipped: Skipped,
}

/// An object in which there is something to do.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) object: StorePath,
    pub(super) identity: Identity,
    pub(super) files: Vec<Todo>,
    /// Whether a file of it is replaced, and not only entered into the farm.
    pub(super) replaces: bool,
}

/// A file that enters the farm or becomes a link to a file of it.
#[derive(Debug)]
pub(super) struct Todo {
    /// Its path in the layer.
    pub(super) path: OsString,
    pub(super) stat: Stat,
    pub(super) content: Content,
}

/// An object that was searched just now.
struct Found {
    object: StorePath,
    survey: Survey,
}

impl Store {
    /// Plans the links of the layer.
    pub(super) fn plan_links(&self, entries: &[Entry], threads: NonZero<usize>) -> Result<Plan> {
        let layer = self.layer();
        let farm = Farm::open(layer)?;
        let place = place(layer, farm.as_ref())?;
        let mut plan = Plan {
            memory: Memory::load(&self.state, place)?,
            ..Plan::default()
        };
        let fresh = self.fresh(entries, &plan.memory, threads);
        if fresh.is_empty() {
            return Ok(plan);
        }
        let inventory = farm
            .as_ref()
            .map(Farm::inventory)
            .transpose()?
            .unwrap_or_default();
        let mut found = self.search(&fresh, &inventory, threads, &mut plan)?;
        let mut sizes = Sizes::default();
        for file in found.iter().flat_map(|found| &found.survey.files) {
            *sizes.counts.entry(file.size).or_default() += 1;
        }
        let others = self.recalled(entries, &fresh, &plan.memory, &mut sizes);
        if !sizes.counts.is_empty() {
            sizes.in_farm = farm
                .as_ref()
                .map(|farm| farm.sizes(&inventory, threads))
                .unwrap_or_default();
            // Searched before, and of a size that something has now: no longer alone.
            found.extend(self.search(&others, &inventory, threads, &mut plan)?);
        }
        let hashed = self.hash_files(&found, &sizes, threads, &mut plan)?;
        plan.leads = self.leads(farm.as_ref(), &hashed, threads)?;
        plan.assign(found, &sizes, hashed);
        Ok(plan)
    }

    /// What was not searched before, or is another object since.
    fn fresh(&self, entries: &[Entry], memory: &Memory, threads: NonZero<usize>) -> Vec<StorePath> {
        let layer = self.layer().fd;
        let is_fresh = |entry: &Entry| {
            let stat = fs::statat(layer, entry.path.base_name(), fs::AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| {
                let searched = memory.0.get(&entry.path.hash_part());
                searched.is_none_or(|searched| searched.identity != Identity::of(&stat))
            })
        };
        let linkable: Vec<Entry> = entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Directory | EntryKind::File))
            .cloned()
            .collect();
        let fresh = on_threads(threads, &linkable, is_fresh, |_| true);
        let entries = linkable.into_iter().zip(fresh);
        entries
            .filter(|(_, fresh)| *fresh == Some(true))
            .map(|(entry, _)| entry.path)
            .collect()
    }

    /// The objects that were searched before, and have a file of a size that was nobody else's until now.
    fn recalled(
        &self,
        entries: &[Entry],
        fresh: &[StorePath],
        memory: &Memory,
        sizes: &mut Sizes,
    ) -> Vec<StorePath> {
        let fresh: HashSet<&StorePath> = fresh.iter().collect();
        let mut recalled = Vec::new();
        for entry in entries.iter().filter(|entry| !fresh.contains(&entry.path)) {
            let Some(searched) = memory.0.get(&entry.path.hash_part()) else {
                continue;
            };
            let mut is_recalled = false;
            for size in &searched.open {
                if let Some(count) = sizes.counts.get_mut(size) {
                    *count += 1;
                    is_recalled = true;
                }
            }
            if is_recalled {
                recalled.push(entry.path.clone());
            }
        }
        recalled
    }

    /// Walks through those of the objects that are valid.
    fn search(
        &self,
        objects: &[StorePath],
        inventory: &Inventory,
        threads: NonZero<usize>,
        plan: &mut Plan,
    ) -> Result<Vec<Found>> {
        let valid = self.database.are_valid(objects)?;
        let objects: Vec<&StorePath> = objects
            .iter()
            .zip(valid)
            .filter_map(|(object, valid)| valid.then_some(object))
            .collect();
        let layer = self.layer().fd;
        let watch = &self.options.watch;
        let progress = Progress::new(Doing::Searching, objects.len() as u64);
        let surveys = on_threads(
            threads,
            &objects,
            |object| survey(layer, object.base_name(), &inventory.inodes),
            |done| {
                watch.progress(&Progress { done, ..progress });
                !watch.wants_to_stop()
            },
        );
        watch.go_on()?;
        let mut found = Vec::with_capacity(objects.len());
        for (object, survey) in objects.into_iter().zip(surveys) {
            match survey {
                Some(Ok(survey)) => {
                    plan.searched += 1;
                    found.push(Found {
                        object: object.clone(),
                        survey,
                    });
                }
                Some(Err(error)) => {
                    tracing::debug!(%object, %error, "not searched for links");
                    plan.skipped.changed += 1;
                }
                None => {}
            }
        }
        Ok(found)
    }

    /// Hashes the files whose size is not theirs alone: each inode once.
    fn hash_files(
        &self,
        found: &[Found],
        sizes: &Sizes,
        threads: NonZero<usize>,
        plan: &mut Plan,
    ) -> Result<HashMap<u64, Hashed>> {
        let mut inodes = HashSet::new();
        let mut files: Vec<&super::survey::Seen> = found
            .iter()
            .flat_map(|found| &found.survey.files)
            .filter(|file| sizes.are_shared(file.size) && inodes.insert(file.inode))
            .collect();
        // The largest first, so that no thread is left alone with a giant at the end.
        files.sort_by_key(|file| std::cmp::Reverse(file.size));
        let layer = self.layer().fd;
        let watch = &self.options.watch;
        let mut progress = Progress::new(Doing::Hashing, files.len() as u64);
        progress.all_bytes = Some(files.iter().map(|file| file.size).sum());
        let bytes = std::sync::atomic::AtomicU64::new(0);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let hashes = on_threads(
            threads,
            &files,
            |file| {
                let hashed = file::hash(layer, &file.path);
                bytes.fetch_add(file.size, relaxed);
                hashed
            },
            |done| {
                watch.progress(&Progress {
                    done,
                    bytes: bytes.load(relaxed),
                    ..progress
                });
                !watch.wants_to_stop()
            },
        );
        watch.go_on()?;
        let mut hashed = HashMap::with_capacity(files.len());
        for (file, hash) in files.into_iter().zip(hashes) {
            match hash {
                Some(Ok(hash)) => {
                    plan.hashed += 1;
                    hashed.insert(file.inode, hash);
                }
                Some(Err(Unhashed::CopiedUp)) => plan.skipped.copied_up += 1,
                Some(Err(Unhashed::Changed)) => plan.skipped.changed += 1,
                Some(Err(Unhashed::Unreadable(error))) => {
                    tracing::debug!(file = ?file.path, %error, "not made a link");
                    plan.skipped.changed += 1;
                }
                None => {}
            }
        }
        Ok(hashed)
    }

    /// Looks at what the farm has of all contents.
    fn leads(
        &self,
        farm: Option<&Farm>,
        hashed: &HashMap<u64, Hashed>,
        threads: NonZero<usize>,
    ) -> Result<HashMap<Content, Lead>> {
        let contents: HashSet<Content> = hashed.values().map(|hashed| hashed.content).collect();
        let contents: Vec<Content> = contents.into_iter().collect();
        let watch = &self.options.watch;
        let leads = on_threads(
            threads,
            &contents,
            |content| farm.map_or(Lead::None, |farm| farm.lead(content)),
            |_| !watch.wants_to_stop(),
        );
        watch.go_on()?;
        let leads = contents.into_iter().zip(leads);
        Ok(leads
            .filter_map(|(content, lead)| Some((content, lead?)))
            .collect())
    }
}

/// The directories that something is remembered of.
pub(super) fn place(layer: Layer<'_>, farm: Option<&Farm>) -> Result<Place> {
    let stat = fs::fstat(layer.fd).map_err(|source| Error::io("examine", layer.path, source))?;
    Ok(Place {
        layer: stat.st_ino,
        farm: farm.map_or(Ok(NO_FARM), Farm::inode)?,
    })
}

/// How many files have a size.
#[derive(Debug, Default)]
struct Sizes {
    /// Of those that were just searched, and of those searched before that one of them reminds of.
    counts: HashMap<u64, u32>,
    in_farm: HashSet<u64>,
}

impl Sizes {
    /// Whether more than one file has this size, so that a look at the contents is worth it.
    fn are_shared(&self, size: u64) -> bool {
        self.counts.get(&size).is_some_and(|count| *count > 1) || self.in_farm.contains(&size)
    }
}

/// A file that will lose names.
#[derive(Debug, Clone, Copy)]
struct Going {
    names: u64,
    space: u64,
}

impl Plan {
    /// Says of each file what becomes of it: the first one of its content enters the farm, unless the farm has one; the
    /// others become links to that.
    fn assign(&mut self, found: Vec<Found>, sizes: &Sizes, hashed: HashMap<u64, Hashed>) {
        let mut leaders: HashMap<Content, Leader> = self
            .leads
            .iter()
            .filter_map(|(content, lead)| match lead {
                Lead::Fit(leader) => Some((*content, *leader)),
                Lead::None | Lead::Unfit => None,
            })
            .collect();
        let mut going: HashMap<u64, Going> = HashMap::new();
        for Found { object, survey } in found {
            self.skipped.add(survey.skipped);
            let mut work = Work {
                object,
                identity: survey.identity,
                files: Vec::new(),
                replaces: false,
            };
            let mut open = Vec::new();
            for file in survey.files {
                if !sizes.are_shared(file.size) {
                    open.push(file.size);
                    continue;
                }
                let Some(hashed) = hashed.get(&file.inode) else {
                    continue;
                };
                match leaders.get(&hashed.content) {
                    Some(leader) if leader.inode == file.inode => continue,
                    Some(leader) if leader.owner != (hashed.stat.st_uid, hashed.stat.st_gid) => {
                        self.skipped.foreign += 1;
                        continue;
                    }
                    Some(_) => {
                        work.replaces = true;
                        self.linked += 1;
                        let going = going.entry(file.inode).or_insert(Going {
                            names: file::names(&hashed.stat),
                            space: file::space(&hashed.stat),
                        });
                        going.names = going.names.saturating_sub(1);
                        if going.names == 0 {
                            self.bytes += going.space;
                        }
                    }
                    None => {
                        leaders.insert(hashed.content, farm::leader(&hashed.stat));
                    }
                }
                work.files.push(Todo {
                    path: file.path,
                    stat: hashed.stat,
                    content: hashed.content,
                });
            }
            open.sort_unstable();
            open.dedup();
            let identity = work.identity;
            self.learned = true;
            self.memory
                .0
                .insert(work.object.hash_part(), Searched { identity, open });
            if !work.files.is_empty() {
                self.work.push(work);
            }
        }
    }

    /// The objects in which files are replaced.
    pub(super) fn replaced_in(&self) -> Vec<Vec<u8>> {
        let replaced = self.work.iter().filter(|work| work.replaces);
        replaced
            .map(|work| work.object.base_name().as_bytes().to_vec())
            .collect()
    }
}

impl Todo {
    /// The path of the directory in the layer that holds the file, empty for the layer itself; and its name there.
    pub(super) fn split(&self) -> (&OsStr, &OsStr) {
        let path = self.path.as_bytes();
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (
                OsStr::from_bytes(&path[..cut]),
                OsStr::from_bytes(&path[cut + 1..]),
            ),
            None => (OsStr::new(""), &self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_into_directory_and_name() {
        let stat = fs::stat("/").expect("there is a root");
        let todo = |path: &str| Todo {
            path: path.into(),
            stat,
            content: [0; 32],
        };
        assert_eq!(todo("a/b/c").split(), (OsStr::new("a/b"), OsStr::new("c")));
        assert_eq!(todo("a").split(), (OsStr::new(""), OsStr::new("a")));
    }
}
