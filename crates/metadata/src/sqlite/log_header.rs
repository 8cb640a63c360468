// SPDX-License-Identifier: MIT OR Apache-2.0
//! The beginning of a write-ahead log: 32 bytes, of which the last eight are a checksum of the others. SQLite takes nothing
//! from a log whose header is wrong.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

const LEN: usize = 32;

/// How a log begins, but for the last bit, which says in which order the bytes of its checksums are read.
const MAGIC: u32 = 0x377f_0682;

/// Tells whether nothing in a log counts, as it has no header, or nothing behind it. One that cannot be read is not judged.
pub(super) fn is_void(log: &Path) -> bool {
    let (mut header, mut more) = ([0; LEN], [0]);
    let read = File::open(log).and_then(|mut file| {
        file.read_exact(&mut header)?;
        file.read_exact(&mut more)
    });
    match read {
        Ok(()) => !is_header(&header),
        Err(error) => error.kind() == ErrorKind::UnexpectedEof,
    }
}

fn is_header(header: &[u8; LEN]) -> bool {
    let mut words = [[0; 4]; LEN / 4];
    for (word, bytes) in words.iter_mut().zip(header.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    let [magic, _, _, _, _, _, first, second] = words.map(u32::from_be_bytes);
    let read = match magic ^ MAGIC {
        0 => u32::from_le_bytes,
        1 => u32::from_be_bytes,
        _ => return false,
    };
    let [a, b, c, d, e, f, ..] = words.map(read);
    (first, second) == checksum([a, b, c, d, e, f])
}

/// The checksum of SQLite: two sums, each of which takes in the other.
fn checksum(words: [u32; 6]) -> (u32, u32) {
    let (mut first, mut second) = (0_u32, 0_u32);
    for pair in words.chunks_exact(2) {
        first = first.wrapping_add(pair[0]).wrapping_add(second);
        second = second.wrapping_add(pair[1]).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that SQLite wrote.
    fn log() -> Vec<u8> {
        let top = tempfile::tempdir().expect("a directory");
        let name = top.path().join("db");
        let connection = rusqlite::Connection::open(&name).expect("a database");
        connection
            .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (a);")
            .expect("a table");
        let log = std::fs::read(top.path().join("db-wal")).expect("it is there while the database is open");
        assert!(log.len() > LEN);
        log
    }

    fn is_void_with(bytes: &[u8]) -> bool {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("it can be written");
        is_void(file.path())
    }

    #[test]
    fn a_log_of_sqlite_is_one_and_with_any_other_bit_it_is_none() {
        let log = log();
        assert!(!is_void_with(&log) && !is_void_with(&log[..=LEN]));
        for nothing in [&log[..LEN], &log[..LEN - 1], &[], &[0; 64]] {
            assert!(is_void_with(nothing), "{nothing:?}");
        }
        for bit in 0..LEN * 8 {
            let mut other = log.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(is_void_with(&other), "bit {bit}");
        }
    }

    #[test]
    fn the_other_order_of_bytes_counts_too() {
        let mut header: [u8; LEN] = log()[..LEN].try_into().expect("it is long enough");
        header[3] ^= 1;
        let words: Vec<u32> = header[..24]
            .chunks_exact(4)
            .map(|bytes| u32::from_be_bytes(bytes.try_into().expect("four bytes")))
            .collect();
        let is_native_little = log()[3] & 1 == 0;
        let sums = checksum(words.try_into().expect("six words"));
        header[24..28].copy_from_slice(&sums.0.to_be_bytes());
        header[28..].copy_from_slice(&sums.1.to_be_bytes());
        assert_eq!(is_header(&header), is_native_little);
    }

    #[test]
    fn what_cannot_be_read_is_not_judged() {
        assert!(!is_void(Path::new("/nonexistent/log")));
    }
}
