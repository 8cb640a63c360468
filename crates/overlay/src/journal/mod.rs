// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crash journal: what was begun and must be finished or undone, and the remount that is still owed.
//!
//! The file `superpose/journal` in the state directory has no bytes while nothing is begun. A removal writes its
//! [`Intent`] and syncs it before the first effect, and empties the file after the remount. Whoever opens the store
//! and finds an intent that no living process holds undoes or finishes it ([`crate::Store::open`]).

mod format;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// The name of the journal below the `superpose` subdirectory of the state directory.
pub(crate) const FILE_NAME: &str = "journal";
/// A journal is one record; a file beyond this is not ours.
const MAX_FILE: u64 = 128 << 20;

/// A removal that is about to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intent {
    /// The objects that leave the layer.
    pub(crate) moves: Vec<Moved>,
    /// Base names of the paths whose rows leave the upper database.
    pub(crate) rows: Vec<Vec<u8>>,
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
    Interrupted(Vec<Intent>),
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
    /// Waits for no one: the caller holds the collector's lock, which serialises removals; a journal that is locked
    /// all the same belongs to a process that is replaying it.
    pub(crate) fn open(directory: &Path) -> Result<(Self, State)> {
        let path = directory.join(FILE_NAME);
        let file = fs::open(
            &path,
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|source| Error::io("open the journal", &path, source))?;
        let mut journal = Journal {
            file: file.into(),
            path,
        };
        match lock(&journal.file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok((journal, State::Busy)),
            Err(source) => return Err(Error::io("lock the journal", journal.path, source)),
        }
        let state = journal.read()?;
        Ok((journal, state))
    }

    /// What the journal in `directory` says, without creating, locking for long or changing anything.
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
        match lock(&journal.file) {
            Ok(()) => journal.read(),
            Err(Errno::WOULDBLOCK) => Ok(State::Busy),
            Err(source) => Err(Error::io("lock the journal", journal.path, source)),
        }
    }

    /// Writes what is about to begin; it is on the disk when this returns.
    ///
    /// # Durability
    /// Without the sync a power cut could show the effects and not the intent, and nobody would owe the remount.
    pub(crate) fn begin(&mut self, intent: &Intent) -> Result<()> {
        let bytes = format::encode(intent);
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_all())
            .map_err(|source| Error::io("write the journal", &self.path, source))
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
        Ok(if contents.intents.is_empty() && contents.torn == 0 {
            State::Idle
        } else {
            State::Interrupted(contents.intents)
        })
    }

    fn damaged(&self, found: String) -> Error {
        Error::JournalDamaged {
            path: self.path.clone(),
            found,
        }
    }
}

/// Locks the journal for this open file, or says that another process has it.
fn lock(file: &File) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| fs::flock(file, FlockOperation::NonBlockingLockExclusive))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent() -> Intent {
        Intent {
            moves: vec![Moved {
                name: b"a".to_vec(),
                trash: b"1-a".to_vec(),
                via: Via::UpperLayer,
            }],
            rows: vec![b"a".to_vec()],
        }
    }

    #[test]
    fn an_intent_survives_its_process() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        assert_eq!(
            Journal::peek(dir.path()).expect("no journal is an idle one"),
            State::Idle
        );
        let (mut journal, state) = Journal::open(dir.path()).expect("the journal is made");
        assert_eq!(state, State::Idle);
        journal.begin(&intent()).expect("the intent is written");
        assert_eq!(Journal::peek(dir.path()).expect("it can be read"), State::Busy);
        drop(journal);
        assert_eq!(
            Journal::peek(dir.path()).expect("it can be read"),
            State::Interrupted(vec![intent()])
        );
        let (mut journal, state) = Journal::open(dir.path()).expect("the journal is there");
        assert_eq!(state, State::Interrupted(vec![intent()]));
        journal.close().expect("it is emptied");
        drop(journal);
        assert_eq!(Journal::peek(dir.path()).expect("it can be read"), State::Idle);
    }

    #[test]
    fn a_damaged_journal_is_reported_and_kept() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, b"not a journal, but not empty either").expect("the file is written");
        let error = Journal::open(dir.path()).expect_err("it is no journal");
        assert!(
            error.to_string().contains("does not begin like a journal"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).expect("it is still there").len(), 35);
    }
}
