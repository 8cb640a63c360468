// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file `schema`, which says how the rest of a database directory is to be understood.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::files::{Files, io_error};
use crate::{Error, Result};

/// The schema that Nix has used since 2016. Later changes are recorded as migrations in the database.
pub(super) const CURRENT: u32 = 10;

/// The oldest schema whose tables may be sufficient to read.
const OLDEST_READABLE: u32 = 5;

/// A schema file holds a few digits; of anything longer, this many bytes are looked at.
const LOOK_AT: u64 = 64;

/// Reads the schema; `None` if there is no such file.
pub(super) fn read(files: &Files) -> Result<Option<u32>> {
    let path = &files.schema;
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LOOK_AT).read_to_end(&mut bytes)) {
        Ok(_) => parse(&bytes, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("reading the schema file", path)(error)),
    }
}

/// Parses as strictly as Nix does: digits and nothing else, not even a newline.
fn parse(bytes: &[u8], path: &Path) -> Result<u32> {
    let digits = str::from_utf8(bytes)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::CorruptSchema {
            file: path.to_owned(),
            found: bytes.escape_ascii().to_string(),
            expected: CURRENT,
        })
}

/// Checks that a schema can be written.
///
/// # Deviation
/// Nix upgrades the schemas 6 to 9, of which the last is from 2016; here they are refused.
pub(super) fn check_writable(files: &Files, found: u32) -> Result<()> {
    check(files, found, CURRENT)
}

/// Checks that a schema can be read, provided that the columns are there.
pub(super) fn check_readable(files: &Files, found: u32) -> Result<()> {
    check(files, found, OLDEST_READABLE)
}

fn check(files: &Files, found: u32, oldest: u32) -> Result<()> {
    let (file, expected) = (files.schema.clone(), CURRENT);
    match found {
        _ if found > CURRENT => Err(Error::NewerSchema {
            file,
            found,
            expected,
        }),
        _ if found < oldest => Err(Error::OlderSchema {
            file,
            found,
            expected,
        }),
        _ => Ok(()),
    }
}

/// Writes the current schema, durably and in one step: a half-written file would make the store unusable.
pub(super) fn write(files: &Files) -> Result<()> {
    write_with(files, File::sync_all).map_err(io_error("writing the schema file", &files.schema))
}

fn write_with(files: &Files, mut sync: impl FnMut(&File) -> io::Result<()>) -> io::Result<()> {
    let scratch = files.dir.join(format!("schema.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .open(&scratch)?;
    file.write_all(CURRENT.to_string().as_bytes())?;
    sync(&file)?;
    fs::rename(&scratch, &files.schema)?;
    sync(&File::open(&files.dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_parse(bytes: &[u8], expected: Option<u32>) {
        assert_eq!(
            parse(bytes, Path::new("/schema")).ok(),
            expected,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }

    #[test]
    fn only_digits_are_a_schema() {
        check_parse(b"10", Some(10));
        check_parse(b"7", Some(7));
        check_parse(b"10\n", None);
        check_parse(b" 10", None);
        check_parse(b"+10", None);
        check_parse(b"-1", None);
        check_parse(b"", None);
        check_parse(b"99999999999", None);
        check_parse(b"\xff", None);
    }

    /// The file has to be on the disk before its name is, and the name before anybody relies on it.
    #[test]
    fn each_step_is_durable_before_the_next() {
        let dir = tempfile::TempDir::new().expect("a directory can be made");
        let files = Files::new(dir.path()).expect("it has a path");
        let mut synced = Vec::new();
        let written = write_with(&files, |file| {
            let metadata = file.metadata()?;
            synced.push((metadata.is_dir(), metadata.len() == 2, files.schema.exists()));
            Ok(())
        });
        written.expect("it can be written");
        assert_eq!(synced.len(), 2);
        assert_eq!(
            synced[0],
            (false, true, false),
            "all of the file, under another name"
        );
        assert!(synced[1].0 && synced[1].2, "the directory, with the file in it");
        assert_eq!(fs::read(&files.schema).expect("it is there"), b"10");

        fs::remove_file(&files.schema).expect("it is there");
        write_with(&files, |_| Err(io::Error::other("refused"))).expect_err("the disk refuses");
        assert!(!files.schema.exists());
    }
}
