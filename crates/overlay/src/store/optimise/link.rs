// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replacing files by links to others of the same content.
//!
//! A file is never missing and never has other content: a link to the leader is made under a scratch name of the layer, and
//! renamed over the file. The scratch name parses as a store path, so that any collector removes what a crash leaves under
//! it; it needs no temporary root, since the collector's lock is held.

use std::collections::HashMap;
use std::ffi::OsStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use superpose_store_path::StorePath;

use super::farm::{self, Farm, Lead, Leader};
use super::file::{self, Content};
use super::plan::{Todo, Work};
use super::report::Skipped;
use crate::crash::{CrashPoint, CrashPoints};
use crate::random;
use crate::store::layer::{Identity, Layer, stat_in};
use crate::{Error, Result};

/// The mode of a directory in an object, and while something in it is replaced by somebody who needs permission for that.
const MODE: Mode = Mode::from_raw_mode(0o555);
const OPEN_MODE: Mode = Mode::from_raw_mode(0o755);
/// The time of everything in a store.
const TIMES: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    },
    last_modification: Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    },
};

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Linked {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Bytes of files of the farm that nothing was a link to any more.
    pub(super) unused_bytes: u64,
    pub(super) skipped: Skipped,
    /// Objects in which something was not done that may be possible another time.
    pub(super) unfinished: Vec<StorePath>,
}

/// Makes links in one layer.
pub(super) struct Linker<'a> {
    layer: Layer<'a>,
    farm: &'a Farm,
    crash_points: &'a CrashPoints,
    scratch: StorePath,
    leads: HashMap<Content, Lead>,
    pub(super) linked: Linked,
}

/// A directory of an object in which files are replaced.
struct Parent<'a> {
    fd: BorrowedFd<'a>,
    /// The layer itself is no directory of an object: it keeps its mode and its time.
    is_layer: bool,
    is_open: bool,
    is_touched: bool,
}

/// Whether a file is as it should be, or may be some other time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Settled,
    Later,
}

impl<'a> Linker<'a> {
    pub(super) fn new(
        layer: Layer<'a>,
        farm: &'a Farm,
        leads: HashMap<Content, Lead>,
        crash_points: &'a CrashPoints,
    ) -> Self {
        Linker {
            layer,
            farm,
            crash_points,
            scratch: random::scratch_path(),
            leads,
            linked: Linked::default(),
        }
    }

    /// Does what is to be done in one object.
    ///
    /// # Errors
    /// If the file system fails. What only concerns one file (no space, no permission, no more links) is counted, and the
    /// file stays as it is.
    pub(super) fn object(&mut self, work: &Work) -> Result<()> {
        if !self.is_unchanged(work)? {
            self.linked.skipped.changed += work.files.len() as u64;
            self.linked.unfinished.push(work.object.clone());
            return Ok(());
        }
        let mut outcome = Outcome::Settled;
        for files in work.files.chunk_by(|one, other| one.split().0 == other.split().0) {
            if self.directory(files)? == Outcome::Later {
                outcome = Outcome::Later;
            }
        }
        if outcome == Outcome::Later {
            self.linked.unfinished.push(work.object.clone());
        }
        Ok(())
    }

    /// Whether the object is the one that was searched. (A link to an object that is a file changes its time.)
    fn is_unchanged(&self, work: &Work) -> Result<bool> {
        let name = OsStr::new(work.object.base_name());
        let stat = self.layer.stat(name)?;
        let is_file = work.files.iter().any(|file| file.path == name);
        Ok(stat.is_some_and(|stat| {
            let found = Identity::of(&stat);
            found == work.identity || (is_file && found.inode == work.identity.inode)
        }))
    }

    /// Does what is to be done in one directory.
    fn directory(&mut self, files: &[Todo]) -> Result<Outcome> {
        let Some(first) = files.first() else {
            return Ok(Outcome::Settled);
        };
        let (path, _) = first.split();
        let opened: OwnedFd;
        let mut parent = Parent {
            fd: self.layer.fd,
            is_layer: path.is_empty(),
            is_open: false,
            is_touched: false,
        };
        if !parent.is_layer {
            match file::open_below(self.layer.fd, path, OFlags::DIRECTORY) {
                Ok(fd) => opened = fd,
                Err(error) => {
                    tracing::debug!(directory = ?path, %error, "no links are made in it");
                    self.linked.skipped.changed += files.len() as u64;
                    return Ok(Outcome::Later);
                }
            }
            parent.fd = opened.as_fd();
        }
        let mut outcome = Outcome::Settled;
        let mut failure = None;
        for file in files {
            match self.file(&mut parent, file) {
                Ok(Outcome::Settled) => {}
                Ok(Outcome::Later) => outcome = Outcome::Later,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let mended = self.mend(&parent, path);
        match failure {
            Some(error) => Err(error),
            None => mended.map(|()| outcome),
        }
    }

    /// Makes a directory look again like one of a store object.
    fn mend(&self, parent: &Parent<'_>, path: &OsStr) -> Result<()> {
        if parent.is_layer || !(parent.is_touched || parent.is_open) {
            return Ok(());
        }
        let failed = |operation| move |source| Error::io(operation, self.layer.path.join(path), source);
        if parent.is_open {
            fs::fchmod(parent.fd, MODE).map_err(failed("set the mode of"))?;
        }
        fs::futimens(parent.fd, &TIMES).map_err(failed("set the times of"))?;
        self.crash_points.reached(CrashPoint::DirectoryMended);
        Ok(())
    }

    /// Makes one file a link, or enters it into the farm if there is nothing yet that it could be a link to.
    fn file(&mut self, parent: &mut Parent<'_>, file: &Todo) -> Result<Outcome> {
        let (_, name) = file.split();
        let now = match stat_in(parent.fd, name) {
            Ok(Some(now)) if file::is_unchanged(&file.stat, &now) => now,
            Ok(_) | Err(_) => {
                self.linked.skipped.changed += 1;
                return Ok(Outcome::Later);
            }
        };
        match self.leads.get(&file.content).copied() {
            Some(Lead::Fit(leader)) if leader.inode == now.st_ino => Ok(Outcome::Settled),
            Some(Lead::Fit(leader)) => self.replace(parent, name, &now, file, leader),
            Some(Lead::Unfit) => {
                let entry = self.farm.path_of(&farm::name_of(&file.content));
                tracing::warn!(link = %entry.display(), "is not what its name says: replaced in the directory of hard links");
                self.lead_by_rename(parent.fd, name, &now, file)
            }
            Some(Lead::None) | None => {
                let entry = farm::name_of(&file.content);
                let linked = fs::linkat(parent.fd, name, self.farm.fd(), &entry, AtFlags::empty());
                self.entered(linked, &now, file)
            }
        }
    }

    /// Puts a file into the place of what the farm has under the name of its content.
    fn lead_by_rename(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        now: &Stat,
        file: &Todo,
    ) -> Result<Outcome> {
        let scratch = self.scratch.base_name();
        let linked = fs::linkat(parent, name, self.layer.fd, scratch, AtFlags::empty());
        if linked.is_err() {
            return self.entered(linked, now, file);
        }
        self.crash_points.reached(CrashPoint::LinkMade);
        let entry = farm::name_of(&file.content);
        let renamed = fs::renameat(self.layer.fd, scratch, self.farm.fd(), &entry);
        if renamed.is_err() {
            self.discard_scratch()?;
        }
        self.entered(renamed, now, file)
    }

    /// Takes note of a new leader, or of why there is none.
    fn entered(
        &mut self,
        entered: std::result::Result<(), Errno>,
        now: &Stat,
        file: &Todo,
    ) -> Result<Outcome> {
        match entered {
            Ok(()) => {
                self.leads.insert(file.content, Lead::Fit(farm::leader(now)));
                self.crash_points.reached(CrashPoint::FileEntered);
                Ok(Outcome::Settled)
            }
            Err(error) => self.not_linked(error, file, "enter into the directory of hard links"),
        }
    }

    /// Renames a link to the leader over a file.
    fn replace(
        &mut self,
        parent: &mut Parent<'_>,
        name: &OsStr,
        now: &Stat,
        file: &Todo,
        leader: Leader,
    ) -> Result<Outcome> {
        let entry = farm::name_of(&file.content);
        let scratch = self.scratch.base_name();
        match fs::linkat(self.farm.fd(), &entry, self.layer.fd, scratch, AtFlags::empty()) {
            // The locks were free between the plan and this: a stock collector may have left a whiteout under the name.
            Ok(()) if !self.is_leader(leader, now)? => {
                self.discard_scratch()?;
                self.linked.skipped.changed += 1;
                return Ok(Outcome::Later);
            }
            Ok(()) => {}
            // The leader has all the names that it can have: the next ones become links to this file.
            Err(Errno::MLINK) => return self.lead_by_rename(parent.fd, name, now, file),
            Err(error) => return self.not_linked(error, file, "link"),
        }
        self.crash_points.reached(CrashPoint::LinkMade);
        let mut renamed = fs::renameat(self.layer.fd, scratch, parent.fd, name);
        if renamed == Err(Errno::ACCESS) && !parent.is_layer && !parent.is_open {
            renamed = fs::fchmod(parent.fd, OPEN_MODE).and_then(|()| {
                parent.is_open = true;
                fs::renameat(self.layer.fd, scratch, parent.fd, name)
            });
        }
        if let Err(error) = renamed {
            self.discard_scratch()?;
            return self.not_linked(error, file, "replace by a link");
        }
        parent.is_touched = true;
        self.crash_points.reached(CrashPoint::FileReplaced);
        self.linked.files += 1;
        // With another name left it gives back nothing yet.
        if file::names(now) == 1 {
            self.linked.bytes += file::space(now);
        }
        Ok(Outcome::Settled)
    }

    /// Whether the scratch name is the file that was found fit to lead, as it was then.
    fn is_leader(&self, leader: Leader, now: &Stat) -> Result<bool> {
        let linked = self.layer.stat(OsStr::new(self.scratch.base_name()))?;
        Ok(linked.is_some_and(|linked| {
            FileType::from_raw_mode(linked.st_mode) == FileType::RegularFile
                && linked.st_ino == leader.inode
                && linked.st_size == now.st_size
                && file::is_canonical(&linked)
        }))
    }

    /// Counts a file that stays as it is, for reasons of its own; anything else ends the work.
    fn not_linked(&mut self, error: Errno, file: &Todo, operation: &'static str) -> Result<Outcome> {
        tracing::debug!(file = ?file.path, %error, "not made a link");
        match error {
            Errno::MLINK => {
                self.linked.skipped.too_many_links += 1;
                Ok(Outcome::Settled)
            }
            Errno::NOSPC | Errno::DQUOT | Errno::PERM | Errno::ACCESS | Errno::ISDIR => {
                self.linked.skipped.refused += 1;
                Ok(Outcome::Later)
            }
            // Stock Nix, which takes no lock for this, entered a file or pruned the farm meanwhile.
            Errno::EXIST | Errno::NOENT => {
                self.linked.skipped.changed += 1;
                Ok(Outcome::Later)
            }
            source => Err(Error::io(operation, self.layer.path.join(&file.path), source)),
        }
    }

    fn discard_scratch(&self) -> Result<()> {
        let scratch = self.scratch.base_name();
        fs::unlinkat(self.layer.fd, scratch, AtFlags::empty())
            .map_err(|source| Error::io("remove a link from", self.layer.path.join(scratch), source))
    }

    /// Removes files of the farm that nothing is a link to any more.
    pub(super) fn prune(&mut self, unused: &[String]) {
        for name in unused {
            let is_unused = stat_in(self.farm.fd(), name.as_ref())
                .ok()
                .flatten()
                .filter(|stat| file::names(stat) == 1);
            let Some(stat) = is_unused else { continue };
            match fs::unlinkat(self.farm.fd(), name, AtFlags::empty()) {
                Ok(()) => self.linked.unused_bytes += file::space(&stat),
                Err(error) => {
                    tracing::debug!(link = %self.farm.path_of(name).display(), %error, "an unused link is not removed");
                }
            }
            self.crash_points.reached(CrashPoint::UnusedLinkRemoved);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, read, remove_file, rename, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    const OBJECT: &str = "x6xcakh6pmsprh9372j47cndyciwzqqy-object";

    /// A file as stores have them.
    fn put(path: &Path, text: &str) {
        write(path, text).unwrap();
        set_permissions(path, Permissions::from_mode(0o444)).unwrap();
        fs::futimens(File::open(path).unwrap(), &TIMES).unwrap();
    }

    /// Links an object to a leader, after `meanwhile` was done to that. Returns what was done.
    fn linked(top: &Path, meanwhile: impl FnOnce(&Path)) -> Linked {
        let open = File::open(top).unwrap();
        let layer = Layer {
            fd: open.as_fd(),
            path: top,
        };
        let farm = Farm::open_or_create(layer).unwrap();
        put(&top.join(OBJECT), "content");
        let found = file::hash(layer.fd, OBJECT.as_ref()).unwrap();
        let leader = farm.path_of(&farm::name_of(&found.content));
        put(&leader, "content");
        let lead = farm.lead(&found.content);
        assert!(matches!(lead, Lead::Fit(_)), "{lead:?}");
        meanwhile(&leader);
        let work = Work {
            object: StorePath::from_base_name(OBJECT.as_bytes()).unwrap(),
            identity: Identity::of(&found.stat),
            files: vec![Todo {
                path: OBJECT.into(),
                stat: found.stat,
                content: found.content,
            }],
            replaces: true,
        };
        let crash_points = CrashPoints::default();
        let leads = HashMap::from([(found.content, lead)]);
        let mut linker = Linker::new(layer, &farm, leads, &crash_points);
        linker.object(&work).unwrap();
        assert_eq!(layer.entries().unwrap().len(), 1, "a scratch name is left");
        linker.linked
    }

    #[test]
    fn a_leader_that_was_replaced_meanwhile_leads_nobody() {
        let top = tempfile::tempdir().unwrap();
        assert_eq!(linked(top.path(), |_| ()).files, 1);
        let others: [fn(&Path); 3] = [
            // The number of a file that is gone may be given to the next one.
            |leader| {
                remove_file(leader).unwrap();
                put(leader, "another length");
            },
            |leader| {
                rename(leader, leader.with_extension("old")).unwrap();
                put(leader, "another");
            },
            // As a whiteout is no regular file.
            |leader| {
                remove_file(leader).unwrap();
                drop(std::os::unix::net::UnixListener::bind(leader).unwrap());
            },
        ];
        for replace in others {
            let top = tempfile::tempdir().unwrap();
            let linked = linked(top.path(), replace);
            assert_eq!((linked.files, linked.skipped.changed), (0, 1));
            assert_eq!(linked.unfinished.len(), 1);
            assert_eq!(read(top.path().join(OBJECT)).unwrap(), b"content");
        }
    }
}
