// SPDX-License-Identifier: MIT OR Apache-2.0
//! The logical store directory, and store paths as full paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result, excerpt};
use crate::lexical;
use crate::store_path::StorePath;

/// The store directory that nearly every store has.
const DEFAULT: &str = "/nix/store";

/// The logical store directory: the one that is part of every path's digest, wherever the files really are.
///
/// Absolute and lexically canonical. Cloning is cheap.
///
/// # Deviation
/// Nix takes any bytes; here the directory must be UTF-8, and not `/` itself. It is written into databases,
/// messages and digests as text. Physical directories may hold any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreDir(Arc<str>);

impl StoreDir {
    /// Checks a store directory and makes it canonical.
    ///
    /// # Errors
    /// If the text is not an absolute UTF-8 path below `/`.
    pub fn new(text: &[u8]) -> Result<Self> {
        let fail = |expected| Error::StoreDir {
            found: excerpt(text),
            expected,
        };
        let canonical = lexical::canonical(text).ok_or_else(|| fail("an absolute path without NUL"))?;
        if canonical == b"/" {
            return Err(fail("a directory below `/`"));
        }
        let text = String::from_utf8(canonical).map_err(|_| fail("UTF-8"))?;
        Ok(Self(text.into()))
    }

    /// Returns the directory, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the full path of an object. The path is made canonical first; then its parent must be this
    /// directory.
    ///
    /// # Errors
    /// If the path is not absolute, not directly in this directory, or its last component is not a store
    /// path's base name.
    pub fn parse_path(&self, text: &[u8]) -> Result<StorePath> {
        if let Some(base) = self.plain_base_name(text) {
            return StorePath::from_base_name(base);
        }
        match self.parse_inside(text)? {
            (path, rest) if rest.is_empty() => Ok(path),
            _ => Err(self.not_inside(text, "an object, not a path below one, directly in")),
        }
    }

    /// Returns what follows this directory and one slash: the base name, if the text is the plain path of an object.
    ///
    /// Whether it is a base name is not looked at, but that it has no slash. Other spellings of a path, which
    /// [`parse_path`](Self::parse_path) makes canonical, are none here.
    #[must_use]
    pub fn plain_base_name<'text>(&self, text: &'text [u8]) -> Option<&'text [u8]> {
        self.strip(text).filter(|base| !base.contains(&b'/'))
    }

    /// Parses a path at or below an object: gives the object, and the rest without a leading slash.
    ///
    /// The path is made canonical first. The rest is empty for the object itself, else for example `bin/sh`.
    ///
    /// # Errors
    /// If the path is not absolute, not below this directory, or the component after it is not a store path's
    /// base name.
    pub fn parse_inside(&self, text: &[u8]) -> Result<(StorePath, Vec<u8>)> {
        let canonical = lexical::canonical(text)
            .ok_or_else(|| self.not_inside(text, "an absolute path without NUL below"))?;
        let inside = self
            .strip(&canonical)
            .ok_or_else(|| self.not_inside(text, "a path below"))?;
        let mut parts = inside.splitn(2, |&byte| byte == b'/');
        let path = StorePath::from_base_name(parts.next().unwrap_or_default())?;
        Ok((path, parts.next().unwrap_or_default().to_vec()))
    }

    /// Returns something that displays as the full path of an object.
    #[must_use]
    pub fn display<'a>(&'a self, path: &'a StorePath) -> DisplayPath<'a> {
        DisplayPath { dir: self, path }
    }

    /// Returns the full path of an object.
    #[must_use]
    pub fn join(&self, path: &StorePath) -> String {
        let mut text = String::with_capacity(self.0.len() + 1 + path.base_name().len());
        self.push(path, &mut text);
        text
    }

    /// Appends the full path of an object.
    pub fn push(&self, path: &StorePath, text: &mut String) {
        text.push_str(&self.0);
        text.push('/');
        text.push_str(path.base_name());
    }

    /// Returns what follows this directory and a slash.
    fn strip<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        text.strip_prefix(self.0.as_bytes())?.strip_prefix(b"/")
    }

    fn not_inside(&self, text: &[u8], expected: &'static str) -> Error {
        Error::NotInStore {
            store_dir: self.clone(),
            found: excerpt(text),
            expected,
        }
    }
}

impl Default for StoreDir {
    /// Returns `/nix/store`.
    fn default() -> Self {
        Self(DEFAULT.into())
    }
}

impl fmt::Display for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreDir({})", self.0)
    }
}

impl AsRef<str> for StoreDir {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for StoreDir {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text.as_bytes())
    }
}

/// A store path that displays with its store directory; made by [`StoreDir::display`].
#[derive(Debug, Clone, Copy)]
pub struct DisplayPath<'a> {
    dir: &'a StoreDir,
    path: &'a StorePath,
}

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.dir.0)?;
        f.write_str("/")?;
        f.write_str(self.path.base_name())
    }
}
