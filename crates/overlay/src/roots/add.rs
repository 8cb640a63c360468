// SPDX-License-Identifier: MIT OR Apache-2.0
//! New roots: a link of the user into the store, and a link in `gcroots/auto` to that one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;
use superpose_store_path::{HashAlgorithm, StoreDir, StorePath, hash_bytes, nix32};

use super::link;
use crate::error::{Error, Result};
use crate::faults::{self, Fault};
use crate::state_dir::{Directory, StateDir, describe_type};

/// Where a root may be made.
const ACCEPTED: &str = "a new name, or a symbolic link into the store to replace; choose another name";

/// Makes `link` a symbolic link to the object `path`, and registers it as a root. Returns what the link led to before, if
/// it was there.
///
/// The object must be protected by a temporary root, or a collector could remove it before the link is there. Missing
/// parent directories are made. Removing the user's link later is enough to end the root. `physical` are the
/// directories that hold the objects of this store wherever they are mounted; no link may be made in them.
///
/// # Durability
/// Both links are on the disk when this returns.
///
/// # Deviation
/// Nix leaves it to the kernel when they are.
///
/// # Errors
/// [`Error::RootRefused`] if `link` is relative, in the store, or something that is not a symbolic link into the store:
/// it would be lost. If a link cannot be made.
pub(crate) fn add_root(
    state: &StateDir,
    store_dir: &StoreDir,
    physical: &[&Path],
    link: &Path,
    path: &StorePath,
) -> Result<Option<OsString>> {
    let auto = state.create_auto_roots()?;
    let refused = |found: &str| Error::RootRefused {
        link: link.to_owned(),
        expected: ACCEPTED,
        found: found.to_owned(),
    };
    if !link.is_absolute() {
        return Err(Error::RootRefused {
            link: link.to_owned(),
            expected: "an absolute path",
            found: "a relative one".to_owned(),
        });
    }
    let link = link::canonical(link.as_os_str().as_bytes());
    let (Some(parent), Some(name)) = (link.parent(), link.file_name()) else {
        return Err(refused("a directory"));
    };
    let real_parent = existing_ancestor(parent);
    let in_store = |path: &Path| {
        link::is_in_store(store_dir, path)
            || path == Path::new(store_dir.as_str())
            || physical.iter().any(|physical| {
                path.starts_with(physical)
                    || fs::canonicalize(physical).is_ok_and(|real| path.starts_with(real))
            })
    };
    if in_store(&link) || in_store(&real_parent) {
        return Err(refused("a place in the store"));
    }
    fs::create_dir_all(parent).map_err(|error| Error::io("create the directory", parent, error))?;
    let parent = Directory::open(parent)?;
    let before = replace(&parent, name, store_dir.join(path).as_ref(), |text| {
        if text.starts_with(b"/") && link::is_in_store(store_dir, &link::canonical(text)) {
            return Ok(());
        }
        Err(refused(&format!(
            "a symbolic link to '{}'",
            String::from_utf8_lossy(text)
        )))
    })?;
    let name = auto_name(&link);
    replace(&auto, name.as_ref(), link.as_os_str(), |_| Ok(()))?;
    sync(&parent)?;
    sync(&auto)?;
    Ok(before)
}

/// Registers `link`, an absolute path, as a root, whatever is or will be there.
///
/// # Errors
/// [`Error::RootRefused`] if it is relative or no path; if it cannot be registered.
pub(crate) fn add_indirect_root(state: &StateDir, link: &Path) -> Result<()> {
    let auto = state.create_auto_roots()?;
    let refused = |found: &str| Error::RootRefused {
        link: link.to_owned(),
        expected: "an absolute path",
        found: found.to_owned(),
    };
    if !link.is_absolute() {
        return Err(refused("a relative one"));
    }
    if link.as_os_str().as_bytes().contains(&0) {
        return Err(refused("one with a NUL"));
    }
    let link = link::canonical(link.as_os_str().as_bytes());
    replace(&auto, auto_name(&link).as_ref(), link.as_os_str(), |_| Ok(()))?;
    sync(&auto)
}

/// Puts the names of links on the disk: what a root keeps would be collected after a power cut that lost it.
fn sync(directory: &Directory) -> Result<()> {
    if faults::is_on(Fault::RootNotSynced) {
        return Ok(());
    }
    rustix::fs::fsync(directory.fd()).map_err(|source| Error::io("sync", directory.path(), source))
}

/// Takes back a link that was made just now, unless it leads elsewhere by now: it leads again to what it led to `before`, or
/// is removed. The other link, to this one, is stale then, and removed by the next collection.
pub(crate) fn take_back_root(store_dir: &StoreDir, link: &Path, path: &StorePath, before: Option<&OsStr>) {
    let made = store_dir.join(path);
    if before == Some(OsStr::new(&made))
        || !fs::read_link(link).is_ok_and(|target| target == Path::new(&made))
    {
        return;
    }
    let taken_back = match (before, link.parent(), link.file_name()) {
        (Some(before), Some(parent), Some(name)) => Directory::open(parent)
            .and_then(|parent| replace(&parent, name, before, |_| Ok(())).and_then(|_| sync(&parent))),
        _ => fs::remove_file(link).map_err(|source| Error::io("remove the link", link, source)),
    };
    if let Err(error) = taken_back {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(link = %link.display(), error, "a link that keeps nothing stays behind");
    }
}

/// Returns the name in `gcroots/auto` of the link to a user's link: the SHA-1 of the path, in nix32.
fn auto_name(link: &Path) -> String {
    nix32::encode(hash_bytes(HashAlgorithm::Sha1, link.as_os_str().as_bytes()).digest())
}

/// Returns the directory without symbolic links as far as it exists: what is made below it will be there.
fn existing_ancestor(directory: &Path) -> PathBuf {
    directory
        .ancestors()
        .find_map(|ancestor| fs::canonicalize(ancestor).ok())
        .unwrap_or_else(|| directory.to_owned())
}

/// Makes a symbolic link, or puts it in the place of one of which `may_replace` accepts the text.
///
/// It is made under another name and renamed, so that at every moment either the old or the new link is there. Returns the
/// text of the old one.
fn replace(
    directory: &Directory,
    name: &OsStr,
    text: &OsStr,
    may_replace: impl Fn(&[u8]) -> Result<()>,
) -> Result<Option<OsString>> {
    let path = directory.path().join(name);
    let fail = |error: Errno| Error::io("make the link", &path, error);
    let temporary = make_temporary(directory.fd(), text).map_err(fail)?;
    let mut before = None;
    let result = loop {
        let flags = match existing(directory.fd(), name).map_err(fail) {
            // Whoever makes something of that name in the meantime keeps it.
            Ok(Existing::Nothing) => {
                before = None;
                RenameFlags::NOREPLACE
            }
            Ok(Existing::Link(text)) => match may_replace(&text) {
                Ok(()) => {
                    before = Some(OsString::from_vec(text));
                    RenameFlags::empty()
                }
                Err(error) => break Err(error),
            },
            Ok(Existing::Other(found)) => {
                let found = found.to_owned();
                break Err(Error::RootRefused {
                    link: path.clone(),
                    expected: ACCEPTED,
                    found,
                });
            }
            Err(error) => break Err(error),
        };
        match rustix::fs::renameat_with(directory.fd(), &temporary, directory.fd(), name, flags) {
            Err(Errno::EXIST) => {}
            // The file system cannot do it without replacing.
            Err(Errno::INVAL) if !flags.is_empty() => {
                break rustix::fs::renameat(directory.fd(), &temporary, directory.fd(), name).map_err(fail);
            }
            other => break other.map_err(fail),
        }
    };
    if result.is_err()
        && let Err(error) = rustix::fs::unlinkat(directory.fd(), &temporary, AtFlags::empty())
    {
        tracing::warn!(directory = %directory.path().display(), temporary, %error, "a link stays behind");
    }
    result.map(|()| before)
}

/// Makes a symbolic link under a name that nothing has.
fn make_temporary(directory: BorrowedFd<'_>, text: &OsStr) -> rustix::io::Result<String> {
    let mut number = 0_u64;
    loop {
        // Short: the final name may be as long as names can be.
        let name = format!(".superpose-root-{}-{number}", std::process::id());
        match rustix::fs::symlinkat(text, directory, &name) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// What has the name that a link is to have.
enum Existing {
    Nothing,
    Link(Vec<u8>),
    Other(&'static str),
}

fn existing(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Existing> {
    match rustix::fs::readlinkat(directory, name, Vec::new()) {
        Ok(text) => Ok(Existing::Link(text.into_bytes())),
        Err(Errno::NOENT) => Ok(Existing::Nothing),
        Err(Errno::INVAL) => match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Existing::Other(describe_type(FileType::from_raw_mode(
                stat.st_mode,
            )))),
            Err(Errno::NOENT) => Ok(Existing::Nothing),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::{Stale, permanent};
    use std::os::unix::fs::symlink;

    const A: &str = "x6xcakh6pmsprh9372j47cndyciwzqqy-a";
    const B: &str = "00000000000000000000000000000000-b";

    /// A state directory, a home directory and a physical store directory.
    struct Fixture {
        top: tempfile::TempDir,
        state: StateDir,
    }

    impl Fixture {
        fn new() -> Self {
            let top = tempfile::tempdir().unwrap();
            let state = StateDir::open(&top.path().join("state")).unwrap();
            for name in ["home", "real"] {
                fs::create_dir(top.path().join(name)).unwrap();
            }
            Self { top, state }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.top.path().join(name)
        }

        fn add(&self, link: &Path, base: &str) -> Result<Option<OsString>> {
            let path = StorePath::from_base_name(base.as_bytes()).unwrap();
            add_root(
                &self.state,
                &StoreDir::default(),
                &[&self.path("real")],
                link,
                &path,
            )
        }

        /// Expects a refusal, and that nothing is different after it.
        fn refuses(&self, link: &Path, found_part: &str) {
            match self.add(link, A).unwrap_err() {
                Error::RootRefused { found, .. } => assert!(found.contains(found_part), "{found}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(fs::read_dir(self.path("state/gcroots/auto")).unwrap().count(), 0);
            for name in ["home", "real"] {
                for entry in fs::read_dir(self.path(name)).unwrap() {
                    assert!(!entry.unwrap().file_name().as_bytes().starts_with(b".superpose"));
                }
            }
        }
    }

    #[test]
    fn the_name_is_that_of_nix() {
        assert_eq!(
            auto_name(Path::new("/home/alice/result")),
            "x6xcakh6pmsprh9372j47cndyciwzqqy"
        );
    }

    #[test]
    fn a_root_is_two_links_and_a_scan_finds_it() {
        let fixture = Fixture::new();
        let link = fixture.path("home/not/yet/there/result");
        let before = fixture
            .add(&fixture.path("home/not/./yet/../yet//there/result"), A)
            .unwrap();
        assert_eq!(before, None);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/nix/store").join(A));
        let auto = fixture.path("state/gcroots/auto").join(auto_name(&link));
        assert_eq!(fs::read_link(&auto).unwrap(), link);
        let found = permanent::scan(&fixture.state, &StoreDir::default(), Stale::Report).unwrap();
        assert_eq!(found.roots.len(), 1);
        assert_eq!(
            (&found.roots[0].link, found.roots[0].path.base_name()),
            (&link, A)
        );
    }

    #[test]
    fn a_root_can_be_made_again_and_moved_to_another_object() {
        let fixture = Fixture::new();
        let link = fixture.path("home").join("n".repeat(255));
        for base in [A, A, B] {
            fixture.add(&link, base).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("/nix/store").join(base));
        }
        assert_eq!(fs::read_dir(fixture.path("home")).unwrap().count(), 1);
        assert_eq!(
            fs::read_dir(fixture.path("state/gcroots/auto")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_root_that_is_taken_back_leads_to_what_it_led_to_before() {
        let fixture = Fixture::new();
        let dir = StoreDir::default();
        let link = fixture.path("home/result");
        let target = || fs::read_link(&link).ok();
        let [a, b] = [A, B].map(|base| StorePath::from_base_name(base.as_bytes()).unwrap());
        let text = |path: &StorePath| Some(PathBuf::from(dir.join(path)));

        let before = fixture.add(&link, A).unwrap();
        take_back_root(&dir, &link, &a, before.as_deref());
        assert_eq!(target(), None, "there was none before");

        fixture.add(&link, A).unwrap();
        let before = fixture.add(&link, B).unwrap();
        take_back_root(&dir, &link, &b, before.as_deref());
        assert_eq!(target(), text(&a));

        let before = fixture.add(&link, A).unwrap();
        take_back_root(&dir, &link, &a, before.as_deref());
        assert_eq!(target(), text(&a), "it was that root before");

        let before = fixture.add(&link, A).unwrap();
        fixture.add(&link, B).unwrap();
        take_back_root(&dir, &link, &a, before.as_deref());
        assert_eq!(target(), text(&b), "somebody else's by now");
    }

    #[test]
    fn what_is_not_a_link_into_the_store_is_not_overwritten() {
        let fixture = Fixture::new();
        let link = fixture.path("home/x");
        fs::write(&link, "precious").unwrap();
        fixture.refuses(&link, "a regular file");
        assert_eq!(fs::read(&link).unwrap(), b"precious");
        fs::remove_file(&link).unwrap();

        fs::create_dir(&link).unwrap();
        fixture.refuses(&link, "a directory");
        fs::remove_dir(&link).unwrap();

        for target in [
            "/etc/passwd",
            "/nix/storefront/x",
            "../nix/store/x",
            "/nix/store",
            "/nix/store/x/../../../etc/passwd",
        ] {
            symlink(target, &link).unwrap();
            fixture.refuses(&link, &format!("a symbolic link to '{target}'"));
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn links_in_the_store_are_refused_by_whatever_way_they_go() {
        let fixture = Fixture::new();
        symlink(fixture.path("real"), fixture.path("home/way")).unwrap();
        for link in [
            Path::new("/nix/store/result"),
            Path::new("/nix/var/../store/x/y"),
            &fixture.path("real/result"),
            &fixture.path("home/../real/new/result"),
            &fixture.path("home/way/result"),
            &fixture.path("home/way/new/result"),
        ] {
            fixture.refuses(link, "a place in the store");
        }
        assert_eq!(fs::read_dir(fixture.path("real")).unwrap().count(), 0);
        fixture.refuses(Path::new("/"), "a directory");
        fixture.refuses(Path::new("result"), "relative");
    }

    #[test]
    fn leftovers_are_left_alone() {
        let fixture = Fixture::new();
        let leftover = fixture
            .path("home")
            .join(format!(".superpose-root-{}-0", std::process::id()));
        symlink("leftover", &leftover).unwrap();
        fixture.add(&fixture.path("home/result"), A).unwrap();
        assert_eq!(fs::read_link(leftover).unwrap(), Path::new("leftover"));
    }

    #[test]
    fn a_store_that_is_only_read_gets_no_root() {
        let fixture = Fixture::new();
        let reader = StateDir::open_read_only(&fixture.path("state")).unwrap();
        let path = StorePath::from_base_name(A.as_bytes()).unwrap();
        let link = fixture.path("home/result");
        let refused = add_root(&reader, &StoreDir::default(), &[], &link, &path);
        assert!(matches!(refused, Err(Error::ReadOnlyState { .. })));
        assert!(!link.is_symlink());
    }
}
