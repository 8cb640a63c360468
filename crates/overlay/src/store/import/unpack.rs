// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unpacking the objects of a batch to their scratch names, on all cores.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::BorrowedFd;
use superpose_nar::{Hashed, RestoreOptions, Taps};
use superpose_store_path::StoreDir;

use super::check::Check;
use super::{Arriving, Meter, ObjectSource};
use crate::crash::{CrashPoint, CrashPoints};
use crate::store::parallel::processors;
use crate::{Error, Result};

/// Where the objects of a batch are unpacked, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) real: BorrowedFd<'a>,
    /// The name of the directory in messages.
    pub(super) real_path: &'a Path,
    pub(super) store_dir: &'a StoreDir,
    pub(super) restore: RestoreOptions,
    pub(super) crash_points: &'a CrashPoints,
}

/// Unpacks what is not unpacked yet, compares it with what is known of it, and fills in what is not.
///
/// # Errors
/// Of one object; the others may have been unpacked or not.
pub(super) fn unpack(site: &Site<'_>, objects: &mut [&mut Arriving<'_>], meter: &Meter<'_>) -> Result<()> {
    let threads = processors().get().min(objects.len());
    let waiting = Mutex::new(objects.iter_mut());
    let failed = AtomicBool::new(false);
    let first_error: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let next = waiting
                .lock()
                .expect("no thread panics while it holds the lock")
                .next();
            let Some(arriving) = next else { break };
            let result = meter.watch.go_on().and_then(|()| unpack_one(site, arriving));
            match result {
                Ok(()) => meter.count(arriving.info.nar_size),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    first_error
                        .lock()
                        .expect("no thread panics while it holds the lock")
                        .get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let first_error = first_error.into_inner();
    match first_error.expect("no thread panics while it holds the lock") {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn unpack_one(site: &Site<'_>, arriving: &mut Arriving<'_>) -> Result<()> {
    match arriving.source.take() {
        Some(source) => unpack_from(site, arriving, source),
        None => Ok(()),
    }
}

/// Unpacks an object that has a scratch name from `source`, and compares it with what is known of it, or fills that in.
///
/// # Errors
/// If it is not what is known of it, or cannot be written.
pub(super) fn unpack_from(
    site: &Site<'_>,
    arriving: &mut Arriving<'_>,
    source: ObjectSource<'_>,
) -> Result<()> {
    let Some(scratch) = &arriving.scratch else {
        return Ok(());
    };
    let limit = (arriving.nar_is_known && arriving.info.nar_size > 0).then_some(arriving.info.nar_size);
    let mut check = arriving.nar_is_known.then(|| Check::of(&arriving.info));
    let taps = check.as_mut().map_or_else(Taps::none, Check::taps);
    let hashed = match source {
        ObjectSource::Nar(archive) => restore(site, archive, limit, scratch.name(), taps),
        ObjectSource::Tree { directory, name } => superpose_nar::copy_tree(
            (directory, name),
            (site.real, scratch.name()),
            &site.restore,
            taps,
        ),
    };
    let hashed = hashed.map_err(|source| Error::CannotAdd {
        name: arriving.info.path.name().to_owned(),
        path: site.real_path.to_path_buf(),
        source: Box::new(source),
    })?;
    site.crash_points.reached(CrashPoint::ObjectUnpacked);
    match check {
        Some(check) => check.finish(&arriving.info, site.store_dir, &hashed),
        None => {
            (arriving.info.nar_hash, arriving.info.nar_size) = (hashed.nar.hash, hashed.nar.size);
            Ok(())
        }
    }
}

fn restore(
    site: &Site<'_>,
    archive: impl Read,
    limit: Option<u64>,
    name: &OsStr,
    taps: Taps<'_>,
) -> superpose_nar::Result<Hashed> {
    let mut archive = Limited {
        archive,
        left: limit.unwrap_or(u64::MAX),
    };
    superpose_nar::restore_hashed(&mut archive, site.real, name, &site.restore, taps)
}

/// Fails where an archive goes on beyond the size that was announced, so that it cannot fill the disk.
struct Limited<R> {
    archive: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the archive is larger than it should be",
            ));
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.archive.read(&mut buffer[..room])?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_ends_where_it_should() {
        let read = |limit: u64| {
            let mut bytes = Vec::new();
            let mut limited = Limited {
                archive: &b"hello"[..],
                left: limit,
            };
            limited.read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(6).ok().as_deref(), Some(&b"hello"[..]));
        assert_eq!(
            read(4).err().map(|error| error.kind()),
            Some(io::ErrorKind::InvalidData)
        );
    }
}
