// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contents of a file of temporary roots: full store paths, each followed by a NUL.

use std::io::{self, BufRead, Read};

use superpose_store_path::{MAX_BASE_NAME_LEN, StoreDir, StorePath};

/// What a path may be longer than its canonical form: no limit of the format, but of the memory that a broken file
/// can make us use.
pub(super) const SLACK: usize = 4096;

/// Why a file cannot be read as temporary roots.
#[derive(Debug)]
pub(super) enum RecordError {
    /// It cannot be read at all.
    Io(io::Error),
    /// There is something else than a path of this store.
    NotAPath {
        /// Where it begins, in bytes.
        offset: u64,
        /// Why it is none.
        source: superpose_store_path::Error,
    },
}

/// Reads all records, and gives each to `visit`. Text after the last NUL is a write that has not ended: not yet a root.
pub(super) fn read(
    input: &mut impl BufRead,
    store_dir: &StoreDir,
    mut visit: impl FnMut(StorePath),
) -> Result<(), RecordError> {
    let longest = store_dir.as_str().len() + 1 + MAX_BASE_NAME_LEN + SLACK;
    let mut record = Vec::new();
    let mut offset = 0;
    loop {
        record.clear();
        let count = input
            .by_ref()
            .take(longest as u64 + 1)
            .read_until(0, &mut record)
            .map_err(RecordError::Io)?;
        let parsed = if record.pop_if(|last| *last == 0).is_some() {
            store_dir.parse_path(&record)
        } else if count > longest {
            // Too long for a base name as well, which says so.
            StorePath::from_base_name(&record)
        } else {
            return Ok(());
        };
        visit(parsed.map_err(|source| RecordError::NotAPath { offset, source })?);
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "/nix/store/x6xcakh6pmsprh9372j47cndyciwzqqy-a";
    const B: &str = "/nix/store/00000000000000000000000000000000-b.lock";

    /// Reads `text` through a buffer of `chunk` bytes.
    fn parse(text: &[u8], chunk: usize) -> Result<Vec<String>, RecordError> {
        let store_dir = StoreDir::default();
        let mut found = Vec::new();
        let mut input = io::BufReader::with_capacity(chunk, text);
        read(&mut input, &store_dir, |path| found.push(store_dir.join(&path)))?;
        Ok(found)
    }

    #[test]
    fn records_end_with_a_nul_and_what_does_not_is_no_record() {
        for (text, expected) in [
            (String::new(), vec![]),
            (A.to_owned(), vec![]),
            (format!("{A}\0"), vec![A]),
            (format!("{A}\0{B}"), vec![A]),
            (format!("{A}\0{B}\0{}", &A[..20]), vec![A, B]),
            (format!("{A}\0{A}\0"), vec![A, A]),
            (format!("{A}\0garbage"), vec![A]),
            (format!("/nix//store/./{}\0", &A[11..]), vec![A]),
        ] {
            for chunk in [1, 7, 8192] {
                assert_eq!(parse(text.as_bytes(), chunk).unwrap(), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_no_path_is_named_by_its_offset() {
        let long = "x".repeat(10_000);
        for (text, at) in [
            ("\0".to_owned(), 0),
            ("d\0".to_owned(), 0),
            (format!("{A}\0\0"), A.len() + 1),
            (format!("{A}\0{A}/bin\0"), A.len() + 1),
            (
                format!("{A}\0{B}\0/gnu/store/{}\0", &A[11..]),
                A.len() + B.len() + 2,
            ),
            (format!("{A}\0{A}\n\0"), A.len() + 1),
            (format!("{A}\0{long}\0"), A.len() + 1),
            (format!("{A}\0{long}"), A.len() + 1),
            (format!("{}{A}\0", "/".repeat(10_000)), 0),
        ] {
            for chunk in [1, 8192] {
                match parse(text.as_bytes(), chunk) {
                    Err(RecordError::NotAPath { offset, .. }) => assert_eq!(offset, at as u64, "{text:?}"),
                    other => panic!("{text:?}: {other:?}"),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_the_buffer_does_not_matter(text: Vec<u8>, chunk in 1usize..64) {
            let whole = parse(&text, 1 << 16);
            let pieces = parse(&text, chunk);
            match (whole, pieces) {
                (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
                (
                    Err(RecordError::NotAPath { offset: whole, .. }),
                    Err(RecordError::NotAPath { offset: pieces, .. }),
                ) => prop_assert_eq!(whole, pieces),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn what_is_written_is_read(names in prop::collection::vec("[0-9a-df-np-sv-z]{32}-[a-z0-9+_=][a-z0-9+_?=.-]{0,40}", 0..8)) {
            let paths: Vec<_> = names.iter().map(|name| format!("/nix/store/{name}")).collect();
            let text: String = paths.iter().map(|path| format!("{path}\0")).collect();
            // 32 digits hold 160 bits exactly, so that all of them are fine.
            prop_assert_eq!(parse(text.as_bytes(), 16).unwrap(), paths);
        }
    }
}
