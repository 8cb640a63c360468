// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state directory of a store, laid out as Nix lays it out, and our own directory in it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Mode of the directories that Nix also has.
const SHARED_MODE: u32 = 0o755;

/// Mode of our own directories: an intent in the journal is obeyed, so nobody else may write one; that there is one,
/// everybody may know who asks the store something.
const OWN_MODE: u32 = 0o755;

/// The permissions, without set-group-id: that one is inherited from the parent on some file systems, and harmless.
const COMPARED_BITS: u32 = 0o1777;

/// What opening a store creates, in Nix's order.
const LAYOUT: [&str; 4] = [PROFILES, TEMP_ROOTS, DB, GC_ROOTS];

const PROFILES: &str = "profiles";
const TEMP_ROOTS: &str = "temproots";
const DB: &str = "db";
const GC_ROOTS: &str = "gcroots";
const PER_USER: &str = "per-user";
const AUTO: &str = "auto";
/// Name of our own directory in the state directory.
pub(crate) const OWN: &str = "superpose";

/// Name of the lock of the garbage collection in the state directory.
pub(crate) const GC_LOCK: &str = "gc.lock";

/// Where a collector listens for new temporary roots, relative to the state directory.
pub(crate) const GC_SOCKET: &str = "gc-socket/socket";

/// The directory of the collector's socket, and its name there.
const GC_SOCKET_DIRECTORY: &str = "gc-socket";
pub(crate) const GC_SOCKET_NAME: &str = "socket";

/// When a directory gets the mode that it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModeRule {
    /// Only when it is made here.
    WhenCreated,
    /// Always; if it belongs to somebody else, who alone could change it, that is only logged.
    Corrected,
    /// Always; if it belongs to somebody else, it is not used.
    Enforced,
}

/// An open directory, and the path under which messages name it.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory that the user named; symbolic links on the way are followed.
    ///
    /// # Errors
    /// If it is missing, not a directory, or not readable.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Error::io("open the directory", path, error))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Opens the directory `name` in this one; `None` if there is nothing of that name.
    ///
    /// # Errors
    /// If it is a symbolic link or a file, or cannot be opened.
    pub(crate) fn open_below(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::WrongFileType {
                expected: "a directory",
                found: self.describe(name),
                path,
            }),
            Err(error) => Err(Error::io("open the directory", path, error)),
        }
    }

    /// Opens the directory `name` in this one, and makes it if it is missing.
    ///
    /// # Errors
    /// If it is a symbolic link or a file, cannot be made or opened, or may not keep its mode.
    pub(crate) fn create_below(&self, name: &str, mode: u32, rule: ModeRule) -> Result<Self> {
        let existing = self.open_below(name)?;
        let created = existing.is_none();
        let directory = match existing {
            Some(directory) => directory,
            None => match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
                // Another process may be opening the same store.
                Ok(()) | Err(Errno::EXIST) => self.open_below(name)?.ok_or_else(|| {
                    Error::io(
                        "open the directory",
                        self.path.join(name),
                        io::Error::from(Errno::NOENT),
                    )
                })?,
                Err(error) => return Err(Error::io("create the directory", self.path.join(name), error)),
            },
        };
        if created || rule != ModeRule::WhenCreated {
            directory.set_mode(mode, rule)?;
        }
        Ok(directory)
    }

    /// Gives the directory a mode, unless it has it: only the owner may, but everybody may find that it is right.
    fn set_mode(&self, mode: u32, rule: ModeRule) -> Result<()> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|error| Error::io("examine", &self.path, error))?;
        if stat.st_mode & COMPARED_BITS == mode {
            return Ok(());
        }
        match rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode)) {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::ROFS) if rule == ModeRule::Corrected => {
                tracing::warn!(path = %self.path.display(), "the directory should have mode {mode:o}");
                Ok(())
            }
            Err(error) => Err(Error::io("change the mode of", &self.path, error)),
        }
    }

    /// Says what kind of file `name` is.
    fn describe(&self, name: &str) -> &'static str {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => describe_type(FileType::from_raw_mode(stat.st_mode)),
            Err(_) => "something that is gone again",
        }
    }

    /// Returns the open directory.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns the path under which messages name the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Says in an error what kind of file was found.
pub(crate) fn describe_type(found: FileType) -> &'static str {
    match found {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "a file of unknown type",
    }
}

/// Whether a state directory may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadWrite,
    ReadOnly,
}

/// The open state directory of a store. Cloning is cheap and gives the same one.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: Directory,
    access: Access,
}

impl StateDir {
    /// Opens the state directory of a store that will be written, and creates in it what Nix would create.
    ///
    /// The path must be absolute: relative links to roots are resolved against it.
    /// It may lead through symbolic links; what is created in it may not.
    ///
    /// # Errors
    /// If something cannot be created, or a symbolic link or a file is where a directory belongs.
    ///
    /// # Deviation
    /// Nix follows a symbolic link in place of one of the directories. If a `per-user` directory of another owner has
    /// the wrong mode, Nix fails; here that is only logged.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(SHARED_MODE)
            .create(path)
            .map_err(|error| Error::io("create the state directory", path, error))?;
        let directory = Directory::open(path)?;
        for name in LAYOUT {
            directory.create_below(name, SHARED_MODE, ModeRule::WhenCreated)?;
        }
        for name in [PROFILES, GC_ROOTS] {
            let parent = directory.create_below(name, SHARED_MODE, ModeRule::WhenCreated)?;
            parent.create_below(PER_USER, SHARED_MODE, ModeRule::Corrected)?;
        }
        Ok(Self(Arc::new(Inner {
            directory,
            access: Access::ReadWrite,
        })))
    }

    /// Opens the state directory of a store that is only read. Nothing is created, now or later.
    ///
    /// # Errors
    /// If it is missing, not a directory, or not readable.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self> {
        let directory = Directory::open(path)?;
        Ok(Self(Arc::new(Inner {
            directory,
            access: Access::ReadOnly,
        })))
    }

    /// Returns the path that it was opened by.
    pub(crate) fn path(&self) -> &Path {
        self.0.directory.path()
    }

    /// Returns the open directory.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.directory.fd()
    }

    /// Checks that the store was opened for writing; `operation` is what needs that.
    ///
    /// # Errors
    /// If it was not. To write all the same would change a store that others rely on never to change.
    pub(crate) fn ensure_writable(&self, operation: &'static str) -> Result<()> {
        match self.0.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Error::ReadOnlyState {
                operation,
                path: self.path().to_owned(),
            }),
        }
    }

    /// Returns the path of the directory of the database.
    pub(crate) fn db_path(&self) -> PathBuf {
        self.path().join(DB)
    }

    /// Returns the path of the lock of the garbage collection.
    pub(crate) fn gc_lock_path(&self) -> PathBuf {
        self.path().join(GC_LOCK)
    }

    /// Opens the directory of the temporary roots; `None` if there is none.
    pub(crate) fn temp_roots(&self) -> Result<Option<Directory>> {
        self.0.directory.open_below(TEMP_ROOTS)
    }

    /// Opens the directory of the permanent roots; `None` if there is none.
    pub(crate) fn gc_roots(&self) -> Result<Option<Directory>> {
        self.0.directory.open_below(GC_ROOTS)
    }

    /// Opens the directory of the profiles; `None` if there is none.
    pub(crate) fn profiles(&self) -> Result<Option<Directory>> {
        self.0.directory.open_below(PROFILES)
    }

    /// Opens the directory of the indirect roots, and makes it if it is missing.
    pub(crate) fn create_auto_roots(&self) -> Result<Directory> {
        self.ensure_writable("make a root")?;
        let roots = self
            .0
            .directory
            .create_below(GC_ROOTS, SHARED_MODE, ModeRule::WhenCreated)?;
        roots.create_below(AUTO, SHARED_MODE, ModeRule::WhenCreated)
    }

    /// Opens the directory of the collector's socket, and makes it if it is missing.
    pub(crate) fn create_gc_socket_directory(&self) -> Result<Directory> {
        self.ensure_writable("listen for temporary roots")?;
        self.0
            .directory
            .create_below(GC_SOCKET_DIRECTORY, SHARED_MODE, ModeRule::WhenCreated)
    }

    /// Returns the path of the directory of the indirect roots.
    pub(crate) fn auto_roots_path(&self) -> PathBuf {
        self.path().join(GC_ROOTS).join(AUTO)
    }

    /// Opens our own directory in the state directory, which Nix does not look at; `None` if there is none.
    pub(crate) fn own(&self) -> Result<Option<Directory>> {
        self.0.directory.open_below(OWN)
    }

    /// Opens our own directory in the state directory, and makes it if it is missing.
    ///
    /// # Errors
    /// If the store is only read; if it cannot be made; if others may write it and that cannot be changed.
    pub(crate) fn create_own(&self) -> Result<Directory> {
        self.ensure_writable("create the directory of superpose")?;
        self.0.directory.create_below(OWN, OWN_MODE, ModeRule::Enforced)
    }

    /// Opens a directory in our own one, and makes both if they are missing.
    ///
    /// # Errors
    /// As [`StateDir::create_own`].
    pub(crate) fn create_own_below(&self, name: &str) -> Result<Directory> {
        self.create_own()?
            .create_below(name, OWN_MODE, ModeRule::Enforced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: impl AsRef<Path>) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: impl AsRef<Path>, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The paths of all directories below `top`, relative and sorted.
    fn tree(top: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![top.to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
                if path.is_dir() {
                    pending.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn opening_creates_what_nix_creates_and_opening_again_changes_nothing() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("nix/var/nix");
        for _ in 0..2 {
            StateDir::open(&path).unwrap();
            assert_eq!(
                tree(&path),
                [
                    "db",
                    "gcroots",
                    "gcroots/per-user",
                    "profiles",
                    "profiles/per-user",
                    "temproots"
                ]
            );
            for name in tree(&path) {
                assert_eq!(mode(path.join(&name)), 0o755, "{name}");
            }
        }
    }

    #[test]
    fn modes_are_mended_where_nix_mends_them_only() {
        let top = tempfile::tempdir().unwrap();
        StateDir::open(top.path()).unwrap();
        for (name, found, expected) in [
            ("db", 0o700, 0o700),
            ("temproots", 0o1777, 0o1777),
            ("gcroots", 0o711, 0o711),
            ("gcroots/per-user", 0o1777, 0o755),
            ("profiles/per-user", 0o700, 0o755),
            ("profiles/per-user", 0o2755, 0o2755),
        ] {
            set_mode(top.path().join(name), found);
            StateDir::open(top.path()).unwrap();
            assert_eq!(mode(top.path().join(name)), expected, "{name} {found:o}");
        }
    }

    #[test]
    fn nothing_else_may_be_where_a_directory_belongs() {
        for name in [
            "profiles",
            "temproots",
            "db",
            "gcroots",
            "gcroots/per-user",
            "profiles/per-user",
        ] {
            for (found, make) in [
                (
                    "a regular file",
                    (|path: &Path| fs::write(path, "").unwrap()) as fn(&Path),
                ),
                ("a symbolic link", |path| symlink("/tmp", path).unwrap()),
            ] {
                let top = tempfile::tempdir().unwrap();
                let path = top.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                make(&path);
                let error = StateDir::open(top.path()).unwrap_err();
                let Error::WrongFileType {
                    path: named,
                    expected: "a directory",
                    found: said,
                } = error
                else {
                    panic!("{name}: {error:?}");
                };
                assert_eq!((named, said), (path, found));
            }
        }
    }

    #[test]
    fn the_state_directory_itself_may_be_a_link() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("real")).unwrap();
        symlink("real", top.path().join("state")).unwrap();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        assert!(top.path().join("real/db").is_dir());
        assert_eq!(state.path(), top.path().join("state"));
    }

    #[test]
    fn read_only_creates_nothing_and_refuses_to() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open_read_only(top.path()).unwrap();
        assert!(state.gc_roots().unwrap().is_none());
        assert!(state.profiles().unwrap().is_none());
        assert!(state.temp_roots().unwrap().is_none());
        assert!(state.own().unwrap().is_none());
        assert!(matches!(state.create_own(), Err(Error::ReadOnlyState { .. })));
        assert!(matches!(
            state.create_own_below("journal"),
            Err(Error::ReadOnlyState { .. })
        ));
        assert!(matches!(
            state.create_auto_roots(),
            Err(Error::ReadOnlyState { .. })
        ));
        assert!(tree(top.path()).is_empty());
        assert!(StateDir::open_read_only(&top.path().join("missing")).is_err());
    }

    #[test]
    fn our_own_directories_are_ours_alone() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(top.path()).unwrap();
        let journal = state.create_own_below("journal").unwrap();
        assert_eq!(journal.path(), top.path().join("superpose/journal"));
        assert_eq!(mode(top.path().join("superpose")), 0o755);
        assert_eq!(mode(journal.path()), 0o755);
        set_mode(top.path().join("superpose"), 0o777);
        state.create_own().unwrap();
        assert_eq!(mode(top.path().join("superpose")), 0o755);
        assert!(state.own().unwrap().is_some());
    }
}
