// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes archives in the form that the kernel unpacks as its first file system: cpio, "newc". Several may follow each
//! other in one file.

/// Kinds of files, as in `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

/// An archive in memory.
#[derive(Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    /// Every entry is another inode, or it would be a hard link of one before.
    inodes: u32,
}

impl Cpio {
    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file; directories come before what is in them.
    pub(crate) fn file(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entry(name, REGULAR | mode, (0, 0), contents);
    }

    /// Adds a character device by its numbers.
    pub(crate) fn character_device(&mut self, name: &str, numbers: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE | 0o600, numbers, &[]);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, numbers: (u32, u32), contents: &[u8]) {
        self.inodes += 1;
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let fields = [
            self.inodes,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            length(contents.len()),
            0, // device the archive was made of
            0,
            numbers.0,
            numbers.1,
            length(name.len() + 1),
            0, // a sum that this form leaves out
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::workspace;

    fn sample() -> Vec<u8> {
        let mut cpio = Cpio::default();
        cpio.directory("dev");
        cpio.character_device("dev/console", (5, 1));
        cpio.file("init", 0o755, b"abcde");
        cpio.finish()
    }

    #[test]
    fn entries_have_the_form_that_the_kernel_reads() {
        let bytes = sample();
        assert!(bytes.len().is_multiple_of(4));
        let first = "070701000000010000 41ed".replace(' ', "");
        assert!(bytes.starts_with(first.as_bytes()));
        // Six letters, thirteen fields, the name with its zero, then what is in it, both padded to four.
        let header = 6 + 13 * 8;
        let at = bytes.windows(5).position(|window| window == b"init\0").unwrap();
        assert_eq!(&bytes[at - header + 6 + 6 * 8..][..8], b"00000005");
        let contents = (at + 5).next_multiple_of(4);
        assert_eq!(&bytes[contents..][..8], b"abcde\0\0\0");
    }

    #[test]
    fn other_programs_read_it() {
        if !workspace::has_program("cpio") {
            return; // The form is pinned above; this is a second opinion where there is one.
        }
        let mut list = Command::new("cpio");
        list.args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = list.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(
            said.contains("crw-------") && said.contains("dev/console"),
            "{said}"
        );
        assert!(said.contains("-rwxr-xr-x"), "{said}");
    }
}
