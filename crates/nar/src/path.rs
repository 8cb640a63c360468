// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of objects, and the path of the node at hand for error messages.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Checks that a name is one path component that leads nowhere else.
pub(crate) fn object_name(name: &OsStr) -> Result<CString> {
    let bytes = name.as_bytes();
    let refused = || Error::ObjectName {
        name: PathBuf::from(name),
    };
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(refused());
    }
    CString::new(bytes).map_err(|_| refused())
}

/// The path of the node at hand, kept so that an error can name it; it costs no allocation per node.
pub(crate) struct Trail(Vec<u8>);

/// How long the trail was before a component was added.
pub(crate) struct Mark(usize);

impl Trail {
    pub(crate) fn new(start: &[u8]) -> Self {
        Self(start.to_vec())
    }

    pub(crate) fn enter(&mut self, name: &[u8]) -> Mark {
        let mark = Mark(self.0.len());
        self.0.push(b'/');
        self.0.extend_from_slice(name);
        mark
    }

    pub(crate) fn leave(&mut self, mark: &Mark) {
        self.0.truncate(mark.0);
    }

    /// Cuts the last component off, unless it is the only one: the trail begins with the object itself.
    pub(crate) fn leave_last(&mut self) {
        if let Some(cut) = self.0.iter().rposition(|byte| *byte == b'/') {
            self.0.truncate(cut);
        }
    }

    /// The last component.
    pub(crate) fn last(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    pub(crate) fn to_path(&self) -> PathBuf {
        OsString::from_vec(self.0.clone()).into()
    }

    /// An error of the system, named after the node at hand.
    pub(crate) fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> Error {
        move |errno| Error::System {
            operation,
            path: self.to_path(),
            source: errno.into(),
        }
    }
}
