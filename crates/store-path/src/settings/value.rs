// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of settings, read by their types.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result, excerpt};
use crate::lexical;
use crate::store_dir::StoreDir;

/// The settings of a URL, which remember the ones that have been asked for: the rest is unknown.
pub(super) struct Values<'a> {
    params: &'a BTreeMap<Vec<u8>, Vec<u8>>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Values<'a> {
    pub(super) fn new(params: &'a BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Self {
            params,
            asked: RefCell::default(),
        }
    }

    /// The settings that nobody has asked for.
    pub(super) fn unknown(&self) -> Vec<Vec<u8>> {
        let asked = self.asked.borrow();
        let unknown = |key: &&Vec<u8>| !str::from_utf8(key).is_ok_and(|key| asked.contains(key));
        self.params.keys().filter(unknown).cloned().collect()
    }

    pub(super) fn bytes(&self, key: &'static str) -> Option<&'a [u8]> {
        self.asked.borrow_mut().insert(key);
        self.params.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// Exactly one of six words.
    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>> {
        self.bytes(key)
            .map(|value| match value {
                b"true" | b"yes" | b"1" => Ok(true),
                b"false" | b"no" | b"0" => Ok(false),
                _ => Err(wrong(key, "`true`, `yes`, `1`, `false`, `no` or `0`", value)),
            })
            .transpose()
    }

    /// A decimal number, maybe with a suffix for powers of 1024.
    pub(super) fn integer<T: TryFrom<i128>>(&self, key: &'static str) -> Result<Option<T>> {
        self.bytes(key)
            .map(|value| {
                integer(value)
                    .and_then(|number| T::try_from(number).ok())
                    .ok_or_else(|| wrong(key, "a decimal number in range, maybe with K, M, G or T", value))
            })
            .transpose()
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &'static str) -> Result<Option<PathBuf>> {
        self.bytes(key)
            .map(|value| {
                let canonical = lexical::canonical(value)
                    .ok_or_else(|| wrong(key, "an absolute path without NUL", value))?;
                Ok(PathBuf::from(OsString::from_vec(canonical)))
            })
            .transpose()
    }

    /// An absolute path, or nothing.
    pub(super) fn optional_path(&self, key: &'static str) -> Result<Option<PathBuf>> {
        match self.bytes(key) {
            Some(b"") => Ok(None),
            _ => self.path(key),
        }
    }

    /// An absolute path in UTF-8.
    pub(super) fn store_dir(&self, key: &'static str) -> Result<Option<StoreDir>> {
        self.bytes(key)
            .map(|value| {
                StoreDir::new(value)
                    .map_err(|_| wrong(key, "an absolute UTF-8 path without NUL, below `/`", value))
            })
            .transpose()
    }

    /// Words with blanks between them.
    pub(super) fn words(&self, key: &'static str) -> Result<Option<BTreeSet<String>>> {
        self.bytes(key)
            .map(|value| {
                let text = str::from_utf8(value).map_err(|_| wrong(key, "words in UTF-8", value))?;
                Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
            })
            .transpose()
    }
}

fn wrong(key: &'static str, expected: &'static str, value: &[u8]) -> Error {
    Error::Setting {
        key,
        expected,
        found: excerpt(value),
    }
}

fn integer(text: &[u8]) -> Option<i128> {
    let (digits, shift) = match text.split_last()? {
        (b'K' | b'k', digits) => (digits, 10),
        (b'M' | b'm', digits) => (digits, 20),
        (b'G' | b'g', digits) => (digits, 30),
        (b'T' | b't', digits) => (digits, 40),
        _ => (text, 0),
    };
    // A longer number is out of every range.
    let number = str::from_utf8(digits).ok().filter(|text| text.len() <= 20)?;
    Some(number.parse::<i128>().ok()? << shift)
}
