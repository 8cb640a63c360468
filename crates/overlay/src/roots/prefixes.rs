// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recognises paths of objects in what the kernel tells of processes.

use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use superpose_store_path::{MAX_BASE_NAME_LEN, StoreDir, StorePath};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 1 << 16;

/// What the kernel appends to the name of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// The directories that objects are named by: the logical store directory, and the physical ones.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// Each with a slash at the end.
    prefixes: Vec<Vec<u8>>,
    /// Length of the longest text that decides about a place: a prefix, a base name, and the byte after it.
    window: usize,
}

impl Prefixes {
    /// Takes the directories as they are given, and without symbolic links too, as the kernel names them.
    pub(super) fn new(store_dir: &StoreDir, physical: &[&Path]) -> Self {
        let mut directories = vec![store_dir.as_str().as_bytes().to_vec()];
        for directory in physical {
            directories.push(directory.as_os_str().as_bytes().to_vec());
            if let Ok(real) = std::fs::canonicalize(directory) {
                directories.push(real.as_os_str().as_bytes().to_vec());
            }
        }
        let mut prefixes: Vec<Vec<u8>> = directories
            .into_iter()
            .map(|mut directory| {
                let end = directory
                    .iter()
                    .rposition(|&byte| byte != b'/')
                    .map_or(0, |last| last + 1);
                directory.truncate(end);
                directory.push(b'/');
                directory
            })
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let longest = prefixes.iter().map(Vec::len).max().unwrap_or_default();
        Self {
            prefixes,
            window: longest + MAX_BASE_NAME_LEN + 1,
        }
    }

    /// Returns the object that a whole path leads to or into.
    pub(super) fn object_at(&self, path: &[u8]) -> Option<StorePath> {
        self.prefixes.iter().find_map(|prefix| {
            let base = path
                .strip_prefix(&prefix[..])?
                .split(|&byte| byte == b'/')
                .next()?;
            StorePath::from_base_name(base.strip_suffix(DELETED).unwrap_or(base)).ok()
        })
    }

    /// Finds all objects that are named anywhere in a text, of which only a part is in memory at any time.
    pub(super) fn find_in(&self, input: &mut impl Read, mut visit: impl FnMut(StorePath)) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK.max(2 * self.window)];
        let mut filled = 0;
        loop {
            let count = match input.read(&mut buffer[filled..]) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            filled += count;
            // A place near the end is decided only when what follows it is there, or when nothing follows.
            let decided = if count == 0 {
                filled
            } else {
                filled.saturating_sub(self.window)
            };
            let text = &buffer[..filled];
            for start in (0..decided).filter(|&start| text[start] == b'/') {
                self.named_at(&text[start..]).into_iter().for_each(&mut visit);
            }
            if count == 0 {
                return Ok(());
            }
            buffer.copy_within(decided..filled, 0);
            filled -= decided;
        }
    }

    /// Returns the object that is named at the very beginning of `text`.
    fn named_at(&self, text: &[u8]) -> Option<StorePath> {
        self.prefixes.iter().find_map(|prefix| {
            let rest = text.strip_prefix(&prefix[..])?;
            let end = rest
                .iter()
                .position(|&byte| !is_base_name_byte(byte))
                .unwrap_or(rest.len());
            StorePath::from_base_name(&rest[..end]).ok()
        })
    }
}

/// Tells whether a byte can be in a base name.
fn is_base_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "x6xcakh6pmsprh9372j47cndyciwzqqy-a";
    const B: &str = "00000000000000000000000000000000-b-1.2";

    /// Gives at most so many bytes at once.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn prefixes() -> Prefixes {
        Prefixes::new(
            &StoreDir::default(),
            &[Path::new("/mnt/with space/store//"), Path::new("/nix/store")],
        )
    }

    fn find(text: &[u8], chunk: usize) -> Vec<String> {
        let mut found = Vec::new();
        prefixes()
            .find_in(&mut Slow(text, chunk), |path| found.push(path.to_string()))
            .unwrap();
        found
    }

    #[test]
    fn directories_are_kept_once_and_with_one_slash() {
        assert_eq!(
            prefixes().prefixes,
            [b"/mnt/with space/store/".to_vec(), b"/nix/store/".to_vec()]
        );
        assert_eq!(
            Prefixes::new(&StoreDir::default(), &[Path::new("/")]).prefixes[0],
            b"/"
        );
    }

    #[test]
    fn objects_are_found_anywhere_and_across_reads() {
        let longest = format!("{}-{}", &A[..32], "n".repeat(211));
        let too_long = format!("{longest}n");
        for (text, expected) in [
            (String::new(), vec![]),
            (format!("/nix/store/{A}"), vec![A]),
            (
                format!("x=/nix/store/{A}:/nix/store/{B}/bin\0/nix/store/{A}\0"),
                vec![A, B, A],
            ),
            (format!("/nix/store/nix/store/{A}"), vec![A]),
            (format!("/nix/store//nix/store/{A}\n"), vec![A]),
            (format!("/mnt/with space/store/{A} (deleted)"), vec![A]),
            (format!("'/nix/store/{longest}'"), vec![&longest]),
            (format!("/nix/store/{too_long}"), vec![]),
            (format!("/nix/store/{}", &A[..32]), vec![]),
            (format!("/nix/store/{}_a", &A[..32]), vec![]),
            (
                format!("{}/nix/store/{A}{}", "/".repeat(CHUNK - 20), "\0".repeat(CHUNK)),
                vec![A],
            ),
        ] {
            for chunk in [1, 13, usize::MAX] {
                assert_eq!(
                    find(text.as_bytes(), chunk),
                    expected,
                    "{chunk}: {}",
                    &text[..text.len().min(400)]
                );
            }
        }
    }

    #[test]
    fn an_error_is_not_the_end_of_the_text() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        assert!(prefixes().find_in(&mut Broken, |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn reads_of_any_size_find_the_same(
            pieces in prop::collection::vec(prop_oneof![
                Just(format!("/nix/store/{A}")),
                Just(format!("/mnt/with space/store/{B}/bin")),
                Just("/nix/store/".to_owned()),
                "[/a-z0-9 -]{0,40}",
            ], 0..12),
            chunk in 1_usize..300,
        ) {
            let text = pieces.concat();
            prop_assert_eq!(find(text.as_bytes(), chunk), find(text.as_bytes(), usize::MAX));
        }

        #[test]
        fn any_bytes_are_searched(text: Vec<u8>, chunk in 1_usize..64) {
            prop_assert_eq!(find(&text, chunk), find(&text, usize::MAX));
            prefixes().object_at(&text);
        }
    }
}
