// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crash journal: what was begun and must be finished or undone, and the remount that is still owed.
//!
//! The file `superpose/journal` in the state directory has no bytes while nothing is begun. Whatever changes the layer
//! behind the mount, or files and rows together, writes its [`Intent`] and syncs it before the first effect, and empties
//! the file after the remount. Whoever opens the store
//! and finds an intent that no living process holds does the rest ([`crate::Store::open`]).

mod format;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use crate::faults::{self, Fault};
use crate::flock::{self, LockMode, LockWait};
use crate::{Error, Result};

/// The name of the journal below the `superpose` subdirectory of the state directory.
pub(crate) const FILE_NAME: &str = "journal";
/// Everybody may ask whether something is owed; nobody else may say so.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
/// The intent of a million of the longest names is smaller; a file beyond this is not ours.
const MAX_FILE: u64 = 1 << 30;

/// What is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Objects leave the layer, and their rows went before. Replayed, the rest of them leave too, unless they have rows
    /// again.
    Removal(Vec<Moved>),
    /// Objects that the lower store has too leave the layer, and their rows stay. Replayed, the rest of them stay: the
    /// path is valid either way.
    Deduplication(Vec<Moved>),
    /// Files of these objects become links to others of the same content. Replayed, the directories get the metadata
    /// back that linking in them has changed.
    Linking(Vec<Vec<u8>>),
}

impl Intent {
    /// Whether something is changed behind the mount's back.
    pub(crate) fn owes_remount(&self) -> bool {
        match self {
            Intent::Removal(moves) | Intent::Deduplication(moves) => {
                moves.iter().any(|moved| moved.via == Via::UpperLayer)
            }
            Intent::Linking(_) => true,
        }
    }

    /// The objects that leave.
    pub(crate) fn moves(&self) -> &[Moved] {
        match self {
            Intent::Removal(moves) | Intent::Deduplication(moves) => moves,
            Intent::Linking(_) => &[],
        }
    }
}

/// An object on its way out of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Its base name in the layer.
    pub(crate) name: Vec<u8>,
    /// Its name in the trash.
    pub(crate) trash: Vec<u8>,
    /// Through which directory it is moved.
    pub(crate) via: Via,
}

/// Through which directory an object leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// Renamed in the upper layer directory, behind the mount: the lower entry of that name shows after a remount.
    UpperLayer,
    /// Renamed in the merged view: nothing of that name is below, and the mount notices by itself.
    MergedView,
}

/// What the journal says at opening.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is begun.
    Idle,
    /// A living process is at work.
    Busy,
    /// Something was begun by a process that is gone.
    Interrupted(Intent),
}

/// The journal of one store, held exclusively.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal in `directory` for a removal, creating it when it is missing.
    ///
    /// Removals are serialised by the collector's lock, which the caller holds; who has the journal then is only
    /// looking at it.
    ///
    /// # Errors
    /// [`Error::LockHeld`] if the lock is not free in time; a journal that is damaged or cannot be opened.
    pub(crate) fn open(directory: &Path, wait: LockWait) -> Result<(Self, State)> {
        let path = directory.join(FILE_NAME);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::open(&path, flags, FILE_MODE)
            .map_err(|source| Error::io("open the journal", &path, source))?;
        let mut journal = Journal {
            file: file.into(),
            path,
        };
        flock::acquire(
            journal.file.as_fd(),
            LockMode::Exclusive,
            wait,
            &journal.path,
            &mut |_| {},
        )?;
        if journal.size()? == 0 {
            sync_directory(directory)?;
        }
        let state = journal.read()?;
        Ok((journal, state))
    }

    /// What the journal in `directory` says, without creating or changing anything.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub(crate) fn peek(directory: &Path) -> Result<State> {
        let path = directory.join(FILE_NAME);
        let file = match fs::open(
            &path,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(State::Idle),
            Err(source) => return Err(Error::io("open the journal", path, source)),
        };
        let mut journal = Journal {
            file: file.into(),
            path,
        };
        if journal.size()? == 0 {
            return Ok(State::Idle);
        }
        match flock::try_acquire(journal.file.as_fd(), LockMode::Shared) {
            Ok(true) => journal.read(),
            Ok(false) => Ok(State::Busy),
            Err(source) => Err(Error::io("lock the journal", journal.path, source)),
        }
    }

    /// Writes what is about to begin; it is on the disk when this returns.
    ///
    /// # Durability
    /// Without the sync a power cut could show the effects and not the intent, and nobody would owe the remount.
    pub(crate) fn begin(&mut self, intent: &Intent) -> Result<()> {
        let bytes = format::encode(intent);
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| match faults::is_on(Fault::JournalNotSynced) {
                false => self.file.sync_all(),
                true => Ok(()),
            });
        written.map_err(|source| {
            // A full disk: nothing is begun, and nobody should think so.
            if let Err(error) = self.file.set_len(0) {
                tracing::debug!(%error, "a record that is not whole stays in the journal");
            }
            Error::io("write the journal", &self.path, source)
        })
    }

    /// Forgets what was begun: it is finished or undone.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.sync_all())
            .map_err(|source| Error::io("empty the journal", &self.path, source))
    }

    fn size(&self) -> Result<u64> {
        let stat = fs::fstat(self.file.as_fd())
            .map_err(|source| Error::io("examine the journal", &self.path, source))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn read(&mut self) -> Result<State> {
        let size = self.size()?;
        if size > MAX_FILE {
            return Err(self.damaged(format!("expected at most {MAX_FILE} bytes, found {size}")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&mut self.file).take(MAX_FILE).read_to_end(&mut bytes))
            .map_err(|source| Error::io("read the journal", &self.path, source))?;
        let contents = format::decode(&bytes).map_err(|error| self.damaged(error.to_string()))?;
        if contents.torn > 0 {
            tracing::warn!(
                journal = %self.path.display(),
                bytes = contents.torn,
                "dropping a journal record that never reached the disk whole: nothing was begun"
            );
        }
        Ok(contents.intent.map_or(State::Idle, State::Interrupted))
    }

    fn damaged(&self, found: String) -> Error {
        Error::JournalDamaged {
            path: self.path.clone(),
            found,
        }
    }
}

/// Puts the name of a new journal on the disk, and that of its directory.
fn sync_directory(directory: &Path) -> Result<()> {
    for directory in [Some(directory), directory.parent()].into_iter().flatten() {
        fs::open(
            directory,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(fs::fsync)
        .map_err(|source| Error::io("sync", directory, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent() -> Intent {
        Intent::Removal(vec![Moved {
            name: b"a".to_vec(),
            trash: b"1-a".to_vec(),
            via: Via::UpperLayer,
        }])
    }

    #[test]
    fn an_intent_survives_its_process() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        assert_eq!(
            Journal::peek(dir.path()).expect("no journal is an idle one"),
            State::Idle
        );
        let (mut journal, state) = Journal::open(dir.path(), LockWait::Never).expect("the journal is made");
        assert_eq!(state, State::Idle);
        journal.begin(&intent()).expect("the intent is written");
        assert_eq!(Journal::peek(dir.path()).expect("it can be read"), State::Busy);
        drop(journal);
        assert_eq!(
            Journal::peek(dir.path()).expect("it can be read"),
            State::Interrupted(intent())
        );
        let (mut journal, state) = Journal::open(dir.path(), LockWait::Never).expect("the journal is there");
        assert_eq!(state, State::Interrupted(intent()));
        journal.close().expect("it is emptied");
        drop(journal);
        assert_eq!(Journal::peek(dir.path()).expect("it can be read"), State::Idle);
    }

    #[test]
    fn a_damaged_journal_is_reported_and_kept() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, b"not a journal, but not empty either").expect("the file is written");
        let error = Journal::open(dir.path(), LockWait::Never).expect_err("it is no journal");
        assert!(
            error.to_string().contains("does not begin like a journal"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).expect("it is still there").len(), 35);
    }
}
