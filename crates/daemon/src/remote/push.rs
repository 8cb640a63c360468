// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing objects to a daemon's store.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use superpose_overlay::metadata::{self, MetadataSource, PathInfo};
use superpose_overlay::nar::{NarHash, Taps, hash_object, hash_object_with};
use superpose_overlay::store_path::{HashEncoding, StoreDir, StorePath};
use superpose_overlay::{Copied, CopyOptions, Doing, Progress, Recursion, SignatureCheck, StoreView, Watch};
use superpose_worker_protocol::{AddFlags, AddMultipleWriter, Operation, Request};

use super::Remote;
use super::error::{Error, Result};

/// How long a daemon that broke off may take to say how much it has. Whoever waits has waited already.
const SECOND_LOOK: Duration = Duration::from_secs(10);

impl Remote {
    /// Copies valid paths into the daemon's store. What is valid there already does not travel.
    ///
    /// All objects go in one stream where the daemon takes it (protocol 1.32 and later). Each is hashed on its way: one that is
    /// not what was registered ends the copy, and the daemon adds nothing that comes after it.
    ///
    /// # Errors
    /// A path that is not valid here, or was changed; what the daemon refuses, such as an object without a signature that it
    /// trusts; whatever happens to the connection. Objects that arrived before stay.
    pub fn push(
        &mut self,
        from: &StoreView,
        paths: &[StorePath],
        options: &CopyOptions,
        watch: &Watch,
    ) -> Result<Copied> {
        self.require_same_store(from.store_dir())?;
        let directory = from.open_objects()?;
        let mut infos = self.lacking_there(from, paths, options.recursion)?;
        for info in infos.iter_mut().filter(|info| info.nar_size == 0) {
            // Rows of very old stores do not say it, and it is announced before the archive.
            info.nar_size = hash_object(&directory, info.path.base_name())
                .map_err(superpose_overlay::Error::from)?
                .size;
        }
        if infos.is_empty() {
            return Ok(Copied::default());
        }
        let flags = AddFlags {
            repair: false,
            without_signatures: options.signatures == SignatureCheck::Skipped,
        };
        let mut progress = Progress::new(Doing::Copying, infos.len() as u64);
        progress.all_bytes = Some(
            infos
                .iter()
                .fold(0, |all, info| info.nar_size.saturating_add(all)),
        );
        let mut sent = |info: &PathInfo| {
            progress.done += 1;
            progress.bytes = progress.bytes.saturating_add(info.nar_size);
            watch.progress(&progress);
        };
        let store_dir = from.store_dir();
        if self.connection.dialect().version >= Operation::AddMultipleToStore.since() {
            let request = Request::AddMultipleToStore(flags);
            let peer = self.connection.other_end();
            let broken = |source| peer.broken(source);
            let sent = self.connection.upload(&request, |stream, dialect| {
                let mut list = AddMultipleWriter::new(stream, infos.len() as u64, dialect).map_err(broken)?;
                for info in &infos {
                    watch.go_on()?;
                    list.begin_object(&info.to_wire()).map_err(broken)?;
                    send(directory.as_fd(), info, store_dir, &mut list)?;
                    sent(info);
                }
                list.finish().map_err(broken)?;
                Ok::<(), Error>(())
            });
            sent.map_err(|error| self.broken_off(&infos, error))?;
        } else {
            for info in &infos {
                watch.go_on()?;
                let request = Request::AddToStoreNar {
                    info: info.to_wire(),
                    flags,
                };
                let uploaded = self.connection.upload(&request, |mut stream, _| {
                    send(directory.as_fd(), info, store_dir, &mut stream)
                });
                uploaded.map_err(|error| self.broken_off(&infos, error))?;
                sent(info);
            }
        }
        let mut copied = Copied::default();
        for info in infos {
            copied.bytes = copied.bytes.saturating_add(info.nar_size);
            copied.paths.push(info.path);
        }
        Ok(copied)
    }

    /// Says of a connection that broke in the middle how much is there, by asking on another one. A daemon that says why it
    /// goes on with nothing has said all.
    fn broken_off(&self, infos: &[PathInfo], error: Error) -> Error {
        if !matches!(error, Error::Broken { .. } | Error::Silent { .. }) {
            return error;
        }
        let paths: Vec<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
        let mut options = self.options.clone();
        options.silence_limit = options.silence_limit.min(SECOND_LOOK);
        let asked = Remote::connect(options).and_then(|mut other| other.are_valid(&paths));
        Error::BrokenOff {
            peer: self.connection.peer().to_owned(),
            there: asked
                .ok()
                .map(|valid| valid.into_iter().filter(|valid| *valid).count()),
            all: paths.len(),
            source: Box::new(error),
        }
    }

    /// What is known here of paths that are not valid there, dependencies before dependents. Paths are protected there before
    /// it is asked whether they are valid.
    fn lacking_there(
        &mut self,
        from: &StoreView,
        paths: &[StorePath],
        recursion: Recursion,
    ) -> Result<Vec<PathInfo>> {
        let given: std::collections::HashSet<&StorePath> = paths.iter().collect();
        let mut failed = None;
        let infos = from.closure_infos(paths, &mut |asked| {
            let answer = self.protect(asked).and_then(|()| self.are_valid(asked));
            let valid = answer.map_err(|error| {
                failed = Some(error);
                metadata::Error::caller("the daemon does not answer")
            })?;
            let is_left = |path: &StorePath, valid| {
                valid || (recursion == Recursion::PathsOnly && !given.contains(path))
            };
            Ok(asked
                .iter()
                .zip(valid)
                .map(|(path, valid)| is_left(path, valid))
                .collect())
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(infos?),
        }
    }

    /// Refuses a store whose paths mean something else.
    pub(super) fn require_same_store(&self, expected: &StoreDir) -> Result<()> {
        let found = &self.connection.dialect().store_dir;
        if found == expected {
            return Ok(());
        }
        Err(Error::ForeignStore {
            peer: self.connection.peer().to_owned(),
            expected: expected.clone(),
            found: found.clone(),
        })
    }
}

/// Sends the archive of an object, and compares it with what was registered.
fn send(
    directory: BorrowedFd<'_>,
    info: &PathInfo,
    store_dir: &StoreDir,
    mut out: &mut (dyn Write + Send),
) -> Result<()> {
    let taps = Taps::none().archive(&mut out);
    let hashed = hash_object_with(directory, info.path.base_name(), taps);
    let NarHash { hash, .. } = hashed.map_err(superpose_overlay::Error::from)?.nar;
    if hash == info.nar_hash {
        return Ok(());
    }
    Err(Error::Store(superpose_overlay::Error::Changed {
        path: store_dir.join(&info.path),
        expected: info.nar_hash.render(HashEncoding::Nix32),
        found: hash.render(HashEncoding::Nix32),
    }))
}
