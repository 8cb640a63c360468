// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a directory holds, down to the last attribute, so that a trial can say that nothing changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::daemon::{Front, front};

/// A directory and everything below it at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    inode: u64,
    links: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
    Other,
}

impl Tree {
    /// Reads a tree: names, kinds, rights, owners, inodes, times of modification and contents. No link is followed.
    ///
    /// Where a stock daemon stands before the lower stores, files that its SQLite shares with itself are left out: it makes its
    /// marks there when it is asked.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn of(root: &Path) -> Result<Self> {
        let is_marked = matches!(front(), Some(Front::Stock(_)));
        let mut entries = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(name) = left.pop() {
            if is_marked && name.as_os_str().as_encoded_bytes().ends_with(b"-shm") {
                continue;
            }
            let path = root.join(&name);
            let found = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
            let kind = found.file_type();
            let content = if kind.is_dir() {
                for entry in fs::read_dir(&path)? {
                    left.push(name.join(entry?.file_name()));
                }
                Content::Directory
            } else if kind.is_file() {
                Content::File(fs::read(&path)?)
            } else if kind.is_symlink() {
                Content::Link(fs::read_link(&path)?)
            } else {
                Content::Other
            };
            let entry = Entry {
                mode: found.mode(),
                owner: (found.uid(), found.gid()),
                inode: found.ino(),
                links: found.nlink(),
                modified: (found.mtime(), found.mtime_nsec()),
                content,
            };
            entries.insert(name, entry);
        }
        Ok(Self { entries })
    }

    /// Compares with another tree of which this one is a copy, or the other way round: inodes and links do not count.
    ///
    /// # Errors
    /// If it cannot be read, or anything differs: the first difference is named.
    pub fn expect_alike(&self, other: &Path) -> Result<()> {
        let other_tree = Self::of(other)?;
        for name in self.entries.keys().chain(other_tree.entries.keys()) {
            match (self.entries.get(name), other_tree.entries.get(name)) {
                (Some(one), Some(two)) if one.is_alike(two) => {}
                (Some(one), Some(two)) => bail!(
                    "'{}' in '{}' is another: {}",
                    name.display(),
                    other.display(),
                    one.changes(two)
                ),
                (Some(_), None) => bail!("'{}' is missing in '{}'", name.display(), other.display()),
                (None, _) => bail!("'{}' is only in '{}'", name.display(), other.display()),
            }
        }
        Ok(())
    }

    /// The names, relative to the root, which is the empty one.
    pub fn names(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// Compares with the same tree as it is now.
    ///
    /// # Errors
    /// If it cannot be read, or anything differs: the first difference is named.
    pub fn expect_unchanged(&self, root: &Path) -> Result<()> {
        let now = Self::of(root)?;
        for (name, before) in &self.entries {
            match now.entries.get(name) {
                None => bail!("'{}' is gone from '{}'", name.display(), root.display()),
                Some(after) if after != before => bail!(
                    "'{}' in '{}' changed: {}",
                    name.display(),
                    root.display(),
                    before.changes(after)
                ),
                Some(_) => {}
            }
        }
        match now.entries.keys().find(|name| !self.entries.contains_key(*name)) {
            Some(name) => bail!("'{}' is new in '{}'", name.display(), root.display()),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn is_alike(&self, other: &Self) -> bool {
        (self.mode, self.owner, self.modified) == (other.mode, other.owner, other.modified)
            && self.content == other.content
    }

    /// What differs, without the contents, which may be long.
    fn changes(&self, after: &Self) -> String {
        let attributes = |entry: &Self| {
            format!(
                "mode {:o}, owner {:?}, inode {}, {} links, modified {:?}",
                entry.mode, entry.owner, entry.inode, entry.links, entry.modified
            )
        };
        if attributes(self) == attributes(after) {
            return "other contents".to_owned();
        }
        format!("{}; before: {}", attributes(after), attributes(self))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::Scratch;

    use super::*;

    #[test]
    fn every_kind_of_change_is_seen() {
        let check = |what: &str, change: &dyn Fn(&Path)| {
            let scratch = Scratch::new().unwrap();
            let root = scratch.join("tree");
            fs::create_dir(&root).unwrap();
            fs::write(root.join("file"), "text").unwrap();
            symlink("file", root.join("link")).unwrap();
            let before = Tree::of(&root).unwrap();
            before.expect_unchanged(&root).unwrap();
            change(&root);
            let error = before.expect_unchanged(&root).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        check("'file'", &|root| fs::write(root.join("file"), "TEXT").unwrap());
        check("'' in", &|root| fs::write(root.join("new"), "").unwrap());
        check("'' in", &|root| fs::remove_file(root.join("link")).unwrap());
        check("mode 100600", &|root| {
            fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        });
    }
}
