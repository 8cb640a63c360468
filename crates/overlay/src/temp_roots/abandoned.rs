// SPDX-License-Identifier: MIT OR Apache-2.0
//! Temporary roots whose process is gone, as the record of what it was adding.
//!
//! Whoever adds an object protects the scratch name and the path before anything of either is on the disk. So the file
//! of a process that was killed names all that it can have left behind.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use superpose_store_path::{StoreDir, StorePath};

use super::{PID_LIMIT, records, remove_if_current};
use crate::error::{Error, Result};
use crate::flock::{self, LockMode};
use crate::state_dir::{Directory, StateDir};

/// A file of temporary roots whose owner is gone; locked, so that nobody else takes it up.
#[derive(Debug)]
pub(crate) struct Abandoned {
    name: String,
    file: OwnedFd,
    /// What its owner protected.
    pub(crate) paths: Vec<StorePath>,
}

/// Takes up the files of this program whose owners are gone. Those of Nix are left: what they mean is Nix's affair.
///
/// A file that cannot be read or understood is left, too: a collector removes it.
///
/// # Errors
/// If the directory cannot be read.
pub(crate) fn take_up(state: &StateDir, store_dir: &StoreDir) -> Result<Vec<Abandoned>> {
    let Some(directory) = state.temp_roots()? else {
        return Ok(Vec::new());
    };
    let fail = |error: Errno| Error::io("read the directory", directory.path(), error);
    let mut found = Vec::new();
    for entry in Dir::read_from(directory.fd()).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name.parse::<u32>().is_ok_and(|number| number >= PID_LIMIT)
            && let Some(abandoned) = take_up_file(&directory, name, store_dir)
        {
            found.push(abandoned);
        }
    }
    Ok(found)
}

fn take_up_file(directory: &Directory, name: &str, store_dir: &StoreDir) -> Option<Abandoned> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory.fd(), name, flags, Mode::empty()).ok()?;
    if !flock::try_acquire(file.as_fd(), LockMode::Exclusive).ok()? {
        return None;
    }
    let mut paths = Vec::new();
    let mut input = BufReader::new(File::from(file.try_clone().ok()?));
    records::read(&mut input, store_dir, |path| paths.push(path)).ok()?;
    Some(Abandoned {
        name: name.to_owned(),
        file,
        paths,
    })
}

impl Abandoned {
    /// The name that a scan gives to the owner.
    pub(crate) fn owner(&self) -> &str {
        &self.name
    }

    /// Removes the file: nothing is left of what it names.
    ///
    /// # Errors
    /// If the directory cannot be opened or written.
    pub(crate) fn remove(self, state: &StateDir) -> Result<()> {
        let Some(directory) = state.temp_roots()? else {
            return Ok(());
        };
        remove_if_current(&directory, &*self.name, self.file.as_fd()).map_err(|error| {
            Error::io(
                "remove the stale temporary roots",
                directory.path().join(&self.name),
                error,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    const A: &str = "/nix/store/x6xcakh6pmsprh9372j47cndyciwzqqy-a";

    #[test]
    fn only_files_of_our_own_dead_are_taken_up() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(top.path()).unwrap();
        let roots = top.path().join("temproots");
        let ours = (PID_LIMIT + 7).to_string();
        let living = (PID_LIMIT + 8).to_string();
        let broken = (PID_LIMIT + 9).to_string();
        for (name, text) in [
            (ours.as_str(), format!("{A}\0")),
            (&living, format!("{A}\0")),
            (&broken, "nonsense\0".to_owned()),
            ("7", format!("{A}\0")),
            ("a-name", format!("{A}\0")),
        ] {
            fs::write(roots.join(name), text).unwrap();
        }
        let held = fs::File::open(roots.join(&living)).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();

        let mut found = take_up(&state, &StoreDir::default()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(
            take_up(&state, &StoreDir::default()).unwrap().is_empty(),
            "it was taken up twice"
        );
        let found = found.remove(0);
        assert_eq!(found.name, ours);
        assert_eq!(
            found.paths,
            [StoreDir::default().parse_path(A.as_bytes()).unwrap()]
        );
        found.remove(&state).unwrap();
        assert!(!roots.join(&ours).exists());
        for name in [&living, &broken, "7", "a-name"] {
            assert!(roots.join(name).exists(), "{name}");
        }
    }
}
