// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing objects from a daemon's store.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::vec;

use superpose_overlay::metadata::{MetadataSource, PathInfo};
use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Copied, CopyOptions, ObjectStream, Outcome, Recursion, Store};
use superpose_worker_protocol::{Dialect, Ending, Request, read_until_end};

use super::connection::{Input, say};
use super::error::{Error, Result};
use super::{Remote, plain};

impl Remote {
    /// Copies valid paths of the daemon's store into `store`, and protects them there until it is closed. What is valid there
    /// already does not travel.
    ///
    /// All archives are asked for at once, and unpacked in batches as they come.
    ///
    /// # Errors
    /// A path that is not valid in the daemon's store; as [`Store::add_stream`]; whatever happens to the connection, which is
    /// of no use then.
    pub fn pull(&mut self, store: &mut Store, paths: &[StorePath], options: &CopyOptions) -> Result<Copied> {
        self.require_same_store(store.dir())?;
        let infos = self.lacking_here(store, paths, options.recursion)?;
        if infos.is_empty() {
            return Ok(Copied::default());
        }
        let peer = self.connection.peer().to_owned();
        if let Some(info) = infos.iter().find(|info| info.nar_size == 0) {
            let path = store.dir().join(&info.path);
            return Err(Error::NoSize { path, peer });
        }
        let requests: Vec<Request> = infos
            .iter()
            .map(|info| Request::NarFromPath(info.path.clone()))
            .collect();
        let sizes: Vec<u64> = infos.iter().map(|info| info.nar_size).collect();
        let paths: Vec<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
        let mut failed = None;
        let imported = self.connection.while_sending(&requests, |input, dialect| {
            let mut objects = Objects {
                input,
                dialect,
                coming: infos.into_iter(),
                left: 0,
                failed: None,
            };
            let imported = store.add_stream(&mut objects, options.signatures);
            failed = objects.failed;
            let imported = imported?;
            // A list that ends early leaves archives on their way.
            debug_assert_eq!(objects.left, 0);
            Ok::<_, Error>(imported)
        });
        let imported = match (imported, failed) {
            (Ok(imported), _) => imported,
            (Err(error), None) => return Err(error),
            (Err(error), Some(why)) => {
                let valid = store.metadata().are_valid(&paths).ok();
                let source = match why {
                    io::ErrorKind::TimedOut => self.connection.silent(),
                    _ => error,
                };
                return Err(Error::BrokenOff {
                    peer,
                    there: valid.map(|valid| valid.into_iter().filter(|valid| *valid).count()),
                    all: paths.len(),
                    source: Box::new(source),
                });
            }
        };
        let mut copied = Copied::default();
        for (imported, size) in imported.into_iter().zip(sizes) {
            if imported.outcome == Outcome::Stored {
                copied.bytes = copied.bytes.saturating_add(size);
                copied.paths.push(imported.path);
            }
        }
        Ok(copied)
    }

    /// What is known there of paths that are not valid here, dependencies before dependents. Paths are protected on both
    /// sides before it is asked whether they are valid.
    fn lacking_here(
        &mut self,
        store: &Store,
        paths: &[StorePath],
        recursion: Recursion,
    ) -> Result<Vec<PathInfo>> {
        let mut seen: HashSet<StorePath> = HashSet::new();
        let mut found: Vec<PathInfo> = Vec::new();
        let mut level: Vec<StorePath> = paths.to_vec();
        while !level.is_empty() {
            level.retain(|path| seen.insert(path.clone()));
            store.add_temp_roots(&level)?;
            let valid = store.metadata().are_valid(&level)?;
            let lacking = level.iter().zip(valid).filter(|(_, valid)| !valid);
            let lacking: Vec<StorePath> = lacking.map(|(path, _)| path.clone()).collect();
            self.protect(&lacking)?;
            let infos = self.path_infos(&lacking)?;
            level = Vec::new();
            for (path, info) in lacking.iter().zip(infos) {
                let info = info.ok_or_else(|| Error::NotValid {
                    path: store.dir().join(path),
                    peer: self.connection.peer().to_owned(),
                })?;
                if recursion == Recursion::Closures {
                    level.extend(
                        info.references
                            .iter()
                            .filter(|path| !seen.contains(*path))
                            .cloned(),
                    );
                }
                found.push(info);
            }
        }
        Ok(in_order(found))
    }
}

/// Puts what is referred to before what refers to it. Without recursion the stack cannot be made to overflow, and a daemon
/// that claims a cycle is found out when the rows are written.
fn in_order(infos: Vec<PathInfo>) -> Vec<PathInfo> {
    let numbers: HashMap<StorePath, usize> = infos.iter().map(|info| info.path.clone()).zip(0..).collect();
    let mut seen = vec![false; infos.len()];
    let mut order = Vec::with_capacity(infos.len());
    for start in 0..infos.len() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let mut stack = vec![(start, 0)];
        while let Some((number, next)) = stack.pop() {
            match infos[number].references.get(next) {
                None => order.push(number),
                Some(reference) => {
                    stack.push((number, next + 1));
                    if let Some(&other) = numbers.get(reference)
                        && !std::mem::replace(&mut seen[other], true)
                    {
                        stack.push((other, 0));
                    }
                }
            }
        }
    }
    let mut infos: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|number| infos[number].take())
        .collect()
}

/// The archives as the daemon sends them, each behind a mark that it succeeded.
struct Objects<'a> {
    input: &'a mut Input,
    dialect: &'a Dialect,
    coming: vec::IntoIter<PathInfo>,
    /// How much of the current archive is left.
    left: u64,
    /// How the stream itself failed, if it did.
    failed: Option<io::ErrorKind>,
}

impl Read for Objects<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = match self.input.get_mut().read(&mut buffer[..room]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        let read = read.inspect_err(|error| self.failed = Some(error.kind()))?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl ObjectStream for Objects<'_> {
    fn next_object(&mut self) -> io::Result<Option<PathInfo>> {
        io::copy(self, &mut io::sink())?;
        let Some(info) = self.coming.next() else {
            return Ok(None);
        };
        let ending = read_until_end(self.input, self.dialect.version, say).map_err(|error| {
            self.failed = Some(error.io_kind().unwrap_or(io::ErrorKind::InvalidData));
            io::Error::other(error)
        })?;
        if let Ending::Failure(report) = ending {
            return Err(io::Error::other(plain(&report.message)));
        }
        self.left = info.nar_size;
        Ok(Some(info))
    }
}

#[cfg(test)]
mod tests {
    use superpose_overlay::store_path::Hash;

    use super::*;

    fn info(letter: &str, references: &[&str]) -> PathInfo {
        let path = |letter: &str| {
            StorePath::from_base_name(format!("{}-{letter}", letter.repeat(32)).as_bytes()).unwrap()
        };
        let mut info = PathInfo::new(path(letter), Hash::sha256([0; 32]), 1);
        info.references = references.iter().map(|letter| path(letter)).collect();
        info
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let names = |infos: Vec<PathInfo>| {
            let names = in_order(infos)
                .into_iter()
                .map(|info| info.path.name().to_owned());
            names.collect::<String>()
        };
        let chain = vec![info("a", &["b", "c"]), info("b", &["c", "b"]), info("c", &["d"])];
        assert_eq!(names(chain), "cba");
        // What cannot be has an order all the same, and ends.
        assert_eq!(names(vec![info("a", &["b"]), info("b", &["a"])]).len(), 2);
    }
}
