// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that are read from beginning to end: a named one, or standard input.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Small reads are gathered into pieces of this many bytes.
const BUFFER: usize = 256 << 10;

/// A text of a million paths has a few hundred MiB; one that has more than this is something else.
const MAX_TEXT: u64 = 4 << 30;

/// The file that a command reads.
#[derive(Debug, clap::Args)]
pub(crate) struct InputArgument {
    /// The file to read; standard input if it is `-` or not given
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: PathBuf,
}

impl InputArgument {
    /// Opens it.
    pub(crate) fn open(&self) -> Result<BufReader<Box<dyn Read>>> {
        let file: Box<dyn Read> = if self.file == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(&self.file).map_err(|error| Error::io("open", &self.file, error))?)
        };
        Ok(BufReader::with_capacity(BUFFER, file))
    }

    /// Reads all of it.
    pub(crate) fn text(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let read = self.open()?.take(MAX_TEXT).read_to_end(&mut text);
        read.map_err(|error| Error::io("read", &self.file, error))?;
        if text.len() as u64 == MAX_TEXT {
            return Err(Error::failed(format!(
                "'{}' is longer than {MAX_TEXT} bytes",
                self.file.display()
            )));
        }
        Ok(text)
    }
}
