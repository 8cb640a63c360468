// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of one directory.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir};

/// Room for one answer of the kernel, in bytes; a few hundred entries.
const ANSWER: usize = 32 * 1024;

/// The buffer that listings are read into; one serves a whole walk.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }
}

struct Entry {
    start: usize,
    end: usize,
    kind: FileType,
}

/// The names in a directory, held in one piece of memory, with the types that the directory tells.
pub(crate) struct Listing {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

impl Listing {
    /// Reads a directory from where its descriptor stands, in the order of the file system.
    pub(crate) fn read(directory: BorrowedFd<'_>, scratch: &mut Scratch) -> rustix::io::Result<Self> {
        let mut listing = Self {
            text: Vec::new(),
            entries: Vec::new(),
        };
        scratch.0.clear();
        scratch.0.reserve(ANSWER);
        let mut answers = RawDir::new(directory, scratch.0.spare_capacity_mut());
        while let Some(entry) = answers.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            let start = listing.text.len();
            listing.text.extend_from_slice(name);
            listing.entries.push(Entry {
                start,
                end: listing.text.len(),
                kind: entry.file_type(),
            });
        }
        Ok(listing)
    }

    /// Puts the names in byte order, as archives hold them.
    pub(crate) fn sort(&mut self) {
        // The closing NULs take part; as no name holds one, a shorter name still goes before its continuations.
        self.entries
            .sort_unstable_by(|a, b| self.text[a.start..a.end].cmp(&self.text[b.start..b.end]));
    }

    /// The name and type of each entry; the type is unknown where the file system does not tell it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        self.entries.iter().map(|entry| (self.name(entry), entry.kind))
    }

    /// Takes an entry off the end.
    pub(crate) fn pop(&mut self) -> Option<(&CStr, FileType)> {
        let entry = self.entries.pop()?;
        Some((self.name(&entry), entry.kind))
    }

    fn name(&self, entry: &Entry) -> &CStr {
        CStr::from_bytes_with_nul(&self.text[entry.start..entry.end])
            .expect("names were stored with their NUL")
    }
}
