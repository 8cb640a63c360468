// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directories of an overlay store in a scratch directory, and its URL.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;

use crate::daemon::{Daemon, Front, front};
use crate::{Invocation, OverlayMount, Scratch, superpose};

/// A lower store, an upper layer and a merged view: `lower`, `upper`, `work` and `merged` in a scratch directory.
#[derive(Debug)]
pub struct Layers {
    scratch: Scratch,
    /// What the directories are called.
    names: Names,
    /// More settings of the URL, such as `check-mount=false`.
    settings: Vec<(String, OsString)>,
    /// More of the URL of the lower store, where the overlay store names it.
    lower_settings: &'static str,
    /// What stands before the lower store, where the overlay store names it.
    front: Option<Gate>,
}

/// A daemon, started when its socket is first named.
#[derive(Debug)]
struct Gate {
    front: Front,
    daemon: OnceLock<Daemon>,
}

/// The names of the directories, which a trial may want to be odd.
#[derive(Debug, Clone)]
struct Names {
    lower: OsString,
    upper: OsString,
    work: OsString,
    merged: OsString,
}

impl Layers {
    /// Directories with plain names on the file system of the work tree. Nothing is made in them.
    ///
    /// # Errors
    /// If there can be no scratch directory.
    pub fn new() -> Result<Self> {
        Self::named("")
    }

    /// The same with something odd in every name.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn named(odd: impl AsRef<OsStr>) -> Result<Self> {
        Ok(Self::within(Scratch::new()?, odd.as_ref()))
    }

    /// Directories with plain names in a directory that is there and stays.
    #[must_use]
    pub fn lasting(path: &Path) -> Self {
        Self::within(Scratch::lasting(path), OsStr::new(""))
    }

    fn within(scratch: Scratch, odd: &OsStr) -> Self {
        let name = |plain: &str| {
            let mut name = OsString::from(plain);
            name.push(odd);
            name
        };
        Self {
            scratch,
            names: Names {
                lower: name("lower"),
                upper: name("upper"),
                work: name("work"),
                merged: name("merged"),
            },
            settings: Vec::new(),
            lower_settings: "",
            front: front().map(|front| Gate {
                front,
                daemon: OnceLock::new(),
            }),
        }
    }

    /// The same with one more setting in the URL of the overlay store.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }

    /// The same over a lower store that is opened for reading only, as far as the overlay store is concerned: stock Nix
    /// writes to every other.
    #[must_use]
    pub fn over_read_only(mut self) -> Self {
        self.lower_settings = "&read-only=true";
        self
    }

    /// The same with the upper layer, and what goes with it, in a directory where another file system is to be
    /// mounted.
    #[must_use]
    pub fn with_upper_in(mut self, dir: &str) -> Self {
        self.names.upper = format!("{dir}/upper").into();
        self.names.work = format!("{dir}/work").into();
        self
    }

    /// The same with the state directory, too.
    #[must_use]
    pub fn with_state_in(mut self, dir: &str) -> Self {
        self.names.merged = format!("{dir}/merged").into();
        self
    }

    /// The directory around all of them.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A name beside them.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.join(name)
    }

    /// The root directory of the lower store.
    #[must_use]
    pub fn lower(&self) -> PathBuf {
        self.join(&self.names.lower)
    }

    /// The directory that holds the objects of the lower store.
    #[must_use]
    pub fn lower_dir(&self) -> PathBuf {
        self.lower().join("nix/store")
    }

    /// The upper layer.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.join(&self.names.upper)
    }

    /// The directory that OverlayFS works in.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.join(&self.names.work)
    }

    /// The root directory of the overlay store.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.join(&self.names.merged)
    }

    /// The merged view: the mount point.
    #[must_use]
    pub fn merged(&self) -> PathBuf {
        self.root().join("nix/store")
    }

    /// The state directory of the overlay store.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root().join("nix/var/nix")
    }

    /// The upper database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state().join("db/db.sqlite")
    }

    /// The lower database.
    #[must_use]
    pub fn lower_database(&self) -> PathBuf {
        self.lower().join("nix/var/nix/db/db.sqlite")
    }

    /// The URL of the lower store.
    #[must_use]
    pub fn lower_url(&self) -> OsString {
        let mut url = b"local://?root=".to_vec();
        url.extend(encoded(self.lower().as_os_str().as_bytes()));
        OsString::from_vec(url)
    }

    /// The URL of the overlay store.
    #[must_use]
    pub fn url(&self) -> OsString {
        let mut lower = self.lower_url();
        lower.push(self.lower_settings);
        match &self.front {
            None => self.url_over(&lower),
            Some(gate) => self.url_over(&self.url_behind(gate, &lower)),
        }
    }

    /// The URL of a daemon that serves a lower store.
    fn url_behind(&self, gate: &Gate, lower: &OsStr) -> OsString {
        let start = || gate.front.start(lower, &self.join("daemon"));
        let daemon = gate
            .daemon
            .get_or_init(|| start().expect("a daemon can be started"));
        self.daemon_url(daemon.socket())
    }

    /// The URL of the lower store by way of a daemon that listens on a socket.
    #[must_use]
    pub fn daemon_url(&self, socket: &Path) -> OsString {
        let mut url = b"unix://".to_vec();
        url.extend(encoded(socket.as_os_str().as_bytes()));
        url.extend(b"?root=");
        url.extend(encoded(self.lower().as_os_str().as_bytes()));
        OsString::from_vec(url)
    }

    /// The URL of the overlay store over some other store.
    #[must_use]
    pub fn url_over(&self, lower: &OsStr) -> OsString {
        let mut url = b"local-overlay://?root=".to_vec();
        url.extend(encoded(self.root().as_os_str().as_bytes()));
        url.extend(b"&lower-store=");
        url.extend(encoded(lower.as_bytes()));
        url.extend(b"&upper-layer=");
        url.extend(encoded(self.upper().as_os_str().as_bytes()));
        for (key, value) in &self.settings {
            url.push(b'&');
            url.extend(key.as_bytes());
            url.push(b'=');
            url.extend(encoded(value.as_bytes()));
        }
        OsString::from_vec(url)
    }

    /// Prepares a run of superpose on the overlay store.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn superpose(&self) -> Result<Invocation> {
        Ok(superpose()?.arg("--store").arg(self.url()))
    }

    /// Prepares a run of superpose on the lower store by itself.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn below(&self) -> Result<Invocation> {
        Ok(superpose()?.arg("--store").arg(self.lower_url()))
    }

    /// Makes the directories of the layers that are missing, and mounts the merged view.
    ///
    /// # Errors
    /// If the directories cannot be made, or the kernel refuses.
    pub fn mount(&self) -> Result<OverlayMount> {
        for dir in [self.lower_dir(), self.upper(), self.work(), self.merged()] {
            fs::create_dir_all(dir)?;
        }
        OverlayMount::new(&[&self.lower_dir()], &self.upper(), &self.work(), &self.merged())
    }

    /// Puts a copy of an object of the lower store into the upper layer and its row into the upper database, as
    /// stock Nix leaves it when an object was added above first and below later. The mount must be there.
    ///
    /// # Errors
    /// If the object cannot be copied or made known.
    pub fn duplicate(&self, path: &str) -> Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let copy = Invocation::new("cp").arg("-a").arg(self.lower_dir().join(name));
        copy.arg(self.upper().join(name)).succeed()?;
        self.superpose()?.args(["ensure", path]).succeed()?;
        // The kernel may remember that the lower object shows.
        self.superpose()?.arg("remount").succeed()?;
        Ok(())
    }

    /// The names in the upper layer, without those that begin with a dot.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn upper_names(&self) -> Result<Vec<String>> {
        let names =
            fs::read_dir(self.upper())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    /// The whiteouts anywhere in the upper layer: character devices without a number.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn whiteouts(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut left = vec![self.upper()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_char_device() {
                    found.push(entry.path());
                } else if kind.is_dir() {
                    left.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    /// Adds a small file to the lower store, and gives its path.
    ///
    /// # Errors
    /// If it cannot be added.
    pub fn add_below(&self, name: &str, text: &str, references: &[&str]) -> Result<String> {
        self.add(self.below()?, name, text, references)
    }

    /// Adds a small file to the overlay store, and gives its path.
    ///
    /// # Errors
    /// If it cannot be added.
    pub fn add_above(&self, name: &str, text: &str, references: &[&str]) -> Result<String> {
        self.add(self.superpose()?, name, text, references)
    }

    fn add(&self, superpose: Invocation, name: &str, text: &str, references: &[&str]) -> Result<String> {
        let references = references.iter().flat_map(|reference| ["--reference", reference]);
        let add = superpose.arg("add").args(references).arg(self.file(name, text)?);
        Ok(add.succeed()?.line()?.to_owned())
    }

    /// Adds a directory with a file in it to the lower store, and gives its path.
    ///
    /// # Errors
    /// If it cannot be added.
    pub fn add_tree_below(&self, name: &str, references: &[&str]) -> Result<String> {
        let tree = self.join(name);
        fs::create_dir_all(tree.join("share"))?;
        fs::write(tree.join("share/text"), name)?;
        let references = references.iter().flat_map(|reference| ["--reference", reference]);
        let add = self.below()?.arg("add").args(references).arg(tree);
        Ok(add.succeed()?.line()?.to_owned())
    }

    /// Adds a tree with one file of a length to the lower store, and gives its path.
    ///
    /// # Errors
    /// If it cannot be added.
    pub fn add_large_below(&self, length: usize) -> Result<String> {
        let large = self.join("large");
        fs::create_dir_all(&large)?;
        fs::write(large.join("file"), vec![42; length])?;
        Ok(self.below()?.arg("add").arg(large).succeed()?.line()?.to_owned())
    }

    /// Writes a file beside the layers, to be added.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// A value as it must be written in the query of a store URL.
#[must_use]
pub fn encoded(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~/:@?".contains(&byte) {
            text.push(byte);
        } else {
            text.extend(format!("%{byte:02X}").bytes());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_encoded_as_often_as_they_are_nested() {
        let layers = Layers::named(" x").unwrap();
        let url = layers.url().into_string().unwrap();
        let base = layers.scratch().path().display();
        assert_eq!(
            url,
            format!(
                "local-overlay://?root={base}/merged%20x&lower-store=local://?root%3D{base}/lower%2520x\
                 &upper-layer={base}/upper%20x"
            )
        );
    }
}
