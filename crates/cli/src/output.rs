// SPDX-License-Identifier: MIT OR Apache-2.0
//! Standard output: buffered, with errors that are not lost.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, PrettyFormatter, Serializer};
use superpose_overlay::store_path::{StoreDir, StorePath};

use crate::error::{Error, Result};

/// A listing of many paths goes out in pieces of this many bytes.
const BUFFER: usize = 64 << 10;

/// Standard output. Call [`Output::finish`], or an error in the last piece is lost.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<File>,
}

impl Output {
    pub(crate) fn open() -> Result<Self> {
        // Not `io::stdout()`, which looks for line ends in all that is written.
        Ok(Output {
            out: BufWriter::with_capacity(BUFFER, raw()?),
        })
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.out, "{text}").map_err(Error::output)
    }

    /// Prints the full path of an object, and nothing after it.
    pub(crate) fn path(&mut self, dir: &StoreDir, path: &StorePath) -> Result<()> {
        self.text(dir.as_str())?;
        self.text("/")?;
        self.text(path.base_name())
    }

    /// Prints a text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).map_err(Error::output)
    }

    /// Prints a value as JSON: on one line for programs, indented on a terminal, as `nix` does.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let result = if self.out.get_ref().is_terminal() {
            value.serialize(&mut Serializer::with_formatter(
                &mut self.out,
                PrettyFormatter::new(),
            ))
        } else {
            value.serialize(&mut Serializer::with_formatter(&mut self.out, CompactFormatter))
        };
        result.map_err(|error| match error.io_error_kind() {
            Some(_) => Error::output(error.into()),
            None => Error::failed(error),
        })?;
        self.text("\n")
    }

    /// Writes out what is still held back.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(Error::output)
    }
}

/// Prints a value as JSON, and nothing else.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut output = Output::open()?;
    output.json(value)?;
    output.finish()
}

/// Prints one line, and nothing else.
pub(crate) fn line(text: impl Display) -> Result<()> {
    let mut output = Output::open()?;
    output.line(text)?;
    output.finish()
}

/// Standard output as it is, for bytes that come in large pieces.
pub(crate) fn raw() -> Result<File> {
    io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(Error::output)
}

/// Whether standard output is a terminal, on which archives have no business.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
