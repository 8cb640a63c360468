// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an object is, and what a tree holds.

use rustix::fs::FileType;

/// What the root of an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
}

/// What was archived, restored or copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeStats {
    /// What the root is.
    pub kind: ObjectKind,
    /// How many regular files there are; hard links count as the files that they become.
    pub files: u64,
    /// How many symbolic links there are.
    pub symlinks: u64,
    /// How many directories there are, the root included.
    pub directories: u64,
    /// The sizes of all regular files together, in bytes.
    pub content_bytes: u64,
    /// The size of the archive in bytes.
    pub nar_size: u64,
}

impl TreeStats {
    pub(crate) const fn new() -> Self {
        Self {
            kind: ObjectKind::Directory,
            files: 0,
            symlinks: 0,
            directories: 0,
            content_bytes: 0,
            nar_size: 0,
        }
    }

    /// Counts a node; the first one counted is the root.
    pub(crate) const fn count(&mut self, kind: ObjectKind) {
        if self.files + self.symlinks + self.directories == 0 {
            self.kind = kind;
        }
        match kind {
            ObjectKind::File => self.files += 1,
            ObjectKind::Symlink => self.symlinks += 1,
            ObjectKind::Directory => self.directories += 1,
        }
    }
}

/// The name of a type that no archive can hold.
pub(crate) const fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "file of an unknown type",
    }
}
