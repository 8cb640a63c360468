// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store paths as people give them: in full, by base name, below an object, through links, or where the files really are.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use superpose_overlay::Layout;
use superpose_overlay::store_path::{StoreDir, StorePath};

use crate::error::{Error, Result};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Longer lines on standard input are no paths (`PATH_MAX`, and some room for blunders).
const MAX_LINE: u64 = 64 << 10;

/// Turns arguments into store paths.
#[derive(Debug)]
pub(crate) struct PathArguments<'a> {
    store_dir: &'a StoreDir,
    layout: &'a Layout,
}

impl<'a> PathArguments<'a> {
    /// For the paths of one store.
    pub(crate) fn of(layout: &'a Layout) -> Self {
        PathArguments {
            store_dir: layout.store_dir(),
            layout,
        }
    }

    /// The store path that one argument means.
    pub(crate) fn one(&self, argument: &OsStr) -> Result<StorePath> {
        Ok(self.inside(argument)?.0)
    }

    /// The store paths that arguments mean, in the given order, each once.
    pub(crate) fn many<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Vec<StorePath>> {
        let mut seen = HashSet::new();
        let mut paths = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let path = self.one(argument.as_ref())?;
            if seen.insert(path.clone()) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// The object that an argument means, and what follows below it (empty for the object itself).
    pub(crate) fn inside(&self, argument: &OsStr) -> Result<(StorePath, PathBuf)> {
        let text = argument.as_bytes();
        if !text.contains(&b'/') && looks_like_base_name(text) {
            return Ok((
                StorePath::from_base_name(text).map_err(Error::usage)?,
                PathBuf::new(),
            ));
        }
        if is_below(text, self.store_dir) {
            return self.logical(text);
        }
        match self.followed(Path::new(argument))? {
            Some(found) => Ok(found),
            None => Err(Error::usage(format!(
                "'{}' is not in the store: expected a path in '{}', a link to one, or the name of an object",
                Path::new(argument).display(),
                self.store_dir
            ))),
        }
    }

    fn logical(&self, text: &[u8]) -> Result<(StorePath, PathBuf)> {
        let (path, rest) = self.store_dir.parse_inside(text).map_err(Error::usage)?;
        Ok((path, PathBuf::from(OsString::from_vec(rest))))
    }

    /// Follows links one by one until the path is in the store or in one of the directories that hold its objects.
    ///
    /// Not by the kernel: a link into the store may lead nowhere while the store is not mounted at its logical
    /// directory, and the links inside objects are not to be followed.
    fn followed(&self, argument: &Path) -> Result<Option<(StorePath, PathBuf)>> {
        let physical = self.physical_directories();
        let absolute =
            std::path::absolute(argument).map_err(|error| Error::io("resolve", argument, error))?;
        let mut left = parts_of(&absolute);
        let mut reached = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                reached.pop();
                continue;
            }
            if physical.contains(&reached) || reached.as_os_str() == self.store_dir.as_str() {
                let mut text = self.store_dir.as_str().as_bytes().to_vec();
                for part in std::iter::once(&part).chain(&left) {
                    text.push(b'/');
                    text.extend_from_slice(part.as_bytes());
                }
                return self.logical(&text).map(Some);
            }
            reached.push(&part);
            let Ok(target) = std::fs::read_link(&reached) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::usage(format!(
                    "'{}' leads through too many links",
                    argument.display()
                )));
            }
            reached.pop();
            if target.is_absolute() {
                reached = PathBuf::from("/");
            }
            for part in parts_of(&target).into_iter().rev() {
                left.push_front(part);
            }
            // A store directory that is reached by a link itself (`/nix` on some machines) is known by its text.
            let mut text = reached.clone();
            text.extend(&left);
            if is_below(text.as_os_str().as_bytes(), self.store_dir) {
                return self.logical(text.as_os_str().as_bytes()).map(Some);
            }
        }
        Ok(None)
    }

    /// The merged view and all layers, as they are called and as they are without links.
    fn physical_directories(&self) -> HashSet<PathBuf> {
        let mut directories = self.layout.layers();
        directories.push(self.layout.settings().real_dir.clone());
        let canonical: Vec<PathBuf> = directories
            .iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        directories.into_iter().chain(canonical).collect()
    }
}

/// Whether an argument without a slash is meant as the name of an object rather than of a file here.
fn looks_like_base_name(text: &[u8]) -> bool {
    StorePath::from_base_name(text).is_ok() || !Path::new(OsStr::from_bytes(text)).is_symlink()
}

fn is_below(text: &[u8], store_dir: &StoreDir) -> bool {
    text.strip_prefix(store_dir.as_str().as_bytes())
        .is_some_and(|rest| rest.starts_with(b"/"))
}

/// The components of a path, without the root and without `.`.
fn parts_of(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// The lines of standard input.
pub(crate) fn from_standard_input() -> Result<Vec<OsString>> {
    let fail = |error| Error::io("read", Path::new("standard input"), error);
    let mut input = io::stdin().lock();
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = io::Read::take(&mut input, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(fail)?;
        if read == 0 {
            return Ok(lines);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if read as u64 == MAX_LINE {
            return Err(Error::usage(format!(
                "a line on standard input is longer than {MAX_LINE} bytes"
            )));
        }
        if !line.is_empty() {
            lines.push(OsString::from_vec(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use superpose_overlay::store_path::{Defaults, StoreReference};

    use super::*;

    const BASE: &str = "0g1savw1cf7pji42hasyx0smc4aw15nw-abc";

    fn layout(root: &Path) -> Layout {
        Layout::resolve(&StoreReference::local(root), &Defaults::default())
            .unwrap()
            .0
    }

    #[test]
    fn every_way_to_name_an_object_is_understood() {
        let top = tempfile::tempdir().unwrap();
        let real = top.path().join("store/nix/store");
        std::fs::create_dir_all(real.join(BASE).join("bin")).unwrap();
        symlink(format!("/nix/store/{BASE}"), top.path().join("result")).unwrap();
        symlink("result", top.path().join("again")).unwrap();
        symlink(&real, top.path().join("shortcut")).unwrap();
        symlink("/etc", real.join(BASE).join("link")).unwrap();
        let layout = layout(&top.path().join("store"));
        let arguments = PathArguments::of(&layout);
        let check = |argument: &Path, rest: &str| {
            let (path, found) = arguments.inside(argument.as_os_str()).unwrap();
            assert_eq!(
                (path.base_name(), found),
                (BASE, PathBuf::from(rest)),
                "{}",
                argument.display()
            );
        };
        check(Path::new(BASE), "");
        check(&Path::new("/nix/store").join(BASE), "");
        check(&Path::new("/nix/store/").join(BASE).join("bin//sh/"), "bin/sh");
        check(&top.path().join("result"), "");
        check(&top.path().join("again/bin/sh"), "bin/sh");
        check(&real.join(BASE), "");
        check(&real.join(BASE).join("link/x"), "link/x");
        check(&top.path().join("shortcut").join(BASE).join("bin"), "bin");
        check(&top.path().join("store/../store/./nix/store").join(BASE), "");
    }

    #[test]
    fn what_is_not_in_the_store_is_wrong_usage() {
        let top = tempfile::tempdir().unwrap();
        let layout = layout(top.path());
        symlink("loop", top.path().join("loop")).unwrap();
        std::fs::create_dir_all(&layout.settings().real_dir).unwrap();
        for argument in [
            "/etc/passwd".into(),
            "".into(),
            "/".into(),
            "..".into(),
            "abc".into(),
            "/nix/store".into(),
            "/nix/store/".into(),
            "/nix/store/abc".into(),
            format!("/nix/store2/{BASE}"),
            format!("/gnu/store/{BASE}"),
            top.path().join("loop").to_str().unwrap().to_owned(),
            layout.settings().real_dir.to_str().unwrap().to_owned(),
        ] {
            assert!(
                PathArguments::of(&layout).one(argument.as_ref()).is_err(),
                "{argument}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_argument_panics(bytes: Vec<u8>) {
            let layout = layout(Path::new("/nonexistent"));
            PathArguments::of(&layout).one(OsStr::from_bytes(&bytes)).ok();
        }
    }
}
