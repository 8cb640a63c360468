// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where removed objects wait until nobody uses them.
//!
//! An object that is unlinked below a mount reads as an *empty directory* for everyone whose kernel still has it
//! cached. So what the lower store has too leaves its layer whole, by a rename behind the mount, and is unlinked only
//! after the remount and only when the merged view no longer leads to it; until then a user of the old tree keeps
//! seeing all of it. (What the lower store does not have is renamed through the view, which knows of it at once.)
//!
//! The trash is `superpose/trash` in the state directory when a rename from the layer leads there. Otherwise objects
//! stay in the layer under a name that parses as a store path, so that any collector may remove them as garbage.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use rustix::fd::BorrowedFd;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use superpose_store_path::{HASH_PART_LEN, HashPart, StorePath};

use crate::random;
use crate::state_dir::{Directory, StateDir};
use crate::upper_layer::UpperLayer;
use crate::{Error, Result};

/// The name of the trash below the `superpose` subdirectory of the state directory.
const DIRECTORY: &str = "trash";
/// Hexadecimal digits before the base name: several generations of one object may wait at once.
const PREFIX: usize = 8;
/// The time stamps of files move on at least so often (a kernel with 100 ticks in a second, and some room).
const CLOCK_TICK: Duration = Duration::from_millis(12);
/// Ends the name of an object that waits in its layer.
const IN_LAYER_NAME: &str = "superpose-trash";

/// The directory that removed objects are moved to.
#[derive(Debug)]
pub(super) enum Trash {
    /// Outside the layers, where nobody looks.
    Apart(Directory),
    /// In the layer itself, under a name that no object has.
    InLayer,
}

/// One object in the trash.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its name in the trash.
    pub(super) name: OsString,
    /// What it was in the layer; `None` when nothing of that hash part is valid any more.
    pub(super) object: Option<StorePath>,
}

impl Trash {
    /// Finds the trash for objects of the directory `layer`.
    pub(super) fn locate(state: &StateDir, upper: &UpperLayer) -> Result<Self> {
        let layer = upper.fd();
        let directory = state.create_own_below(DIRECTORY)?;
        // Only the kernel knows whether a rename leads from here to there (bind mounts, quotas): try one.
        let probe = format!("{}-{IN_LAYER_NAME}", random::nix32_digits());
        match fs::openat(
            layer,
            &probe,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR,
        ) {
            Ok(file) => drop(file),
            Err(source) => return Err(Error::io("write into the upper layer", upper.path(), source)),
        }
        let moved = fs::renameat(layer, &probe, directory.fd(), &probe);
        let rest = if moved.is_ok() { directory.fd() } else { layer };
        fs::unlinkat(rest, &probe, AtFlags::empty())
            .map_err(|source| Error::io("remove a probe of the trash from", upper.path(), source))?;
        Ok(if moved.is_ok() {
            Trash::Apart(directory)
        } else {
            Trash::InLayer
        })
    }

    /// Opens the trash directory, if it was ever needed.
    pub(super) fn open_existing(state: &StateDir) -> Result<Option<Directory>> {
        match state.own()? {
            Some(own) => own.open_below(DIRECTORY),
            None => Ok(None),
        }
    }

    /// A new name in this trash for an object.
    pub(super) fn name_for(&self, object: &StorePath) -> Vec<u8> {
        match self {
            Trash::Apart(_) => format!("{}-{object}", random::hex_digits(PREFIX)).into_bytes(),
            Trash::InLayer => format!(
                "{}-{IN_LAYER_NAME}-{}",
                random::nix32_digits(),
                object.hash_part_str()
            )
            .into_bytes(),
        }
    }

    /// The directory that moved objects are in: the trash, or the layer that they were in.
    pub(super) fn directory<'a>(&'a self, layer: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            Trash::Apart(directory) => directory.fd(),
            Trash::InLayer => layer,
        }
    }
}

/// The hash part of the object that waits in its layer under this name, if it is such a name.
pub(super) fn object_of(name: &[u8]) -> Option<HashPart> {
    let prefix = format!("-{IN_LAYER_NAME}-");
    let rest = name.get(HASH_PART_LEN..)?.strip_prefix(prefix.as_bytes())?;
    HashPart::parse(rest).ok()
}

/// What waits in a trash directory. Names that are not ours are left alone.
pub(super) fn list(directory: BorrowedFd<'_>) -> Result<Vec<Waiting>> {
    let failed = |source| Error::io("list the trash", DIRECTORY, source);
    let mut waiting = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if let Some(object) = name
            .get(PREFIX + 1..)
            .and_then(|base| StorePath::from_base_name(base).ok())
        {
            waiting.push(Waiting {
                name: OsString::from_vec(name.to_vec()),
                object: Some(object),
            });
        }
    }
    Ok(waiting)
}

/// Moves an object of a layer; the mode of a directory is opened up first when the kernel asks for it.
///
/// To move a directory to another parent its `..` is written, for which a user other than root needs write permission
/// on the directory itself; objects have none.
pub(super) fn rename(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    new_name: &OsStr,
) -> std::result::Result<(), Errno> {
    match fs::renameat(from, name, to, new_name) {
        Err(Errno::ACCESS) => {
            let directory = fs::openat(
                from,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            fs::fchmod(&directory, Mode::RWXU)?;
            let moved = fs::renameat(from, name, to, new_name);
            // Canonical again wherever it is now: another reader may look at it.
            if let Err(error) = fs::fchmod(&directory, Mode::from_raw_mode(0o555)) {
                tracing::debug!(%error, "a moved directory keeps the mode that it was moved with");
            }
            moved
        }
        other => other,
    }
}

/// Whether the merged view still leads to the moved tree `name` of `trash` under its old name `object`: some process
/// holds it, or a directory in it, and the kernel keeps what a process holds.
///
/// What the view shows of an object that has an upper part are the attributes of that part. So the moved tree is
/// given a status change time that nothing else has, and the view is asked for it. Nothing else of the tree changes:
/// whoever reads it meanwhile sees exactly what was there.
pub(super) fn is_pinned(
    trash: BorrowedFd<'_>,
    name: &OsStr,
    merged: BorrowedFd<'_>,
    object: &OsStr,
) -> std::result::Result<bool, Errno> {
    if !shows(trash, name, merged, object)? {
        return Ok(false);
    }
    // What took its place a moment ago has the same time, as the kernel's clock is coarse; a later time it cannot have.
    std::thread::sleep(CLOCK_TICK);
    shows(trash, name, merged, object)
}

/// Whether the view shows the status change time that the moved tree is given now.
fn shows(
    trash: BorrowedFd<'_>,
    name: &OsStr,
    merged: BorrowedFd<'_>,
    object: &OsStr,
) -> std::result::Result<bool, Errno> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let unchanged = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: unchanged,
    };
    fs::utimensat(trash, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    let moved = fs::statat(trash, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match fs::statat(merged, object, AtFlags::SYMLINK_NOFOLLOW) {
        // All whiteouts of a layer are one inode: they show through no view.
        Ok(_) if FileType::from_raw_mode(moved.st_mode) == FileType::CharacterDevice => Ok(false),
        Ok(seen) => Ok((seen.st_ctime, seen.st_ctime_nsec) == (moved.st_ctime, moved.st_ctime_nsec)),
        Err(Errno::NOENT | Errno::STALE) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_lead_back_to_their_objects() {
        let object =
            StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc").expect("a store path");
        let dir = tempfile::tempdir().expect("a scratch directory");
        let trash = Trash::Apart(Directory::open(dir.path()).expect("it opens"));
        let name = trash.name_for(&object);
        std::fs::write(dir.path().join(OsStr::from_bytes(&name)), b"").expect("a file is made");
        std::fs::write(dir.path().join("something-else"), b"").expect("a file is made");
        let Trash::Apart(fd) = &trash else {
            unreachable!("it was made so")
        };
        let waiting = list(fd.fd()).expect("it can be listed");
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].object.as_ref(), Some(&object));
        assert_eq!(waiting[0].name.as_bytes(), name);
        let in_layer = Trash::InLayer.name_for(&object);
        assert!(
            StorePath::from_base_name(&in_layer).is_ok(),
            "a collector must be able to parse it"
        );
    }
}
