// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server says when an operation failed.

use std::fmt;
use std::io::{Read, Write};

use super::activity::Level;
use crate::codec::{WireReader, WireWriter, bad_value, read_list, write_list};
use crate::error::Result;
use crate::version::Version;

/// The only type that an error can have.
const TYPE: &[u8] = b"Error";

/// The version from which on errors have a level and traces.
const HAS_TRACES: u8 = 26;

/// What a server says when an operation failed.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteError {
    /// How important it is; clients print [`Level::Warn`] as a warning. From 1.26 on.
    ///
    /// Clients abort over a level that they do not know: one is written as [`Level::Error`].
    pub level: Level,
    /// What went wrong, for people: bytes that may hold colour escapes.
    pub message: Vec<u8>,
    /// What was being done, in the order in which clients print it above the message. From 1.26 on.
    pub traces: Vec<Vec<u8>>,
    /// With which status the client should exit. Only before 1.26.
    pub exit_status: u64,
}

impl RemoteError {
    /// Makes an error of its message.
    #[must_use]
    pub fn new(message: impl Into<Vec<u8>>) -> Self {
        Self {
            level: Level::Error,
            message: message.into(),
            traces: Vec::new(),
            exit_status: 1,
        }
    }

    pub(super) fn read<R: Read>(input: &mut WireReader<R>, version: Version) -> Result<Self> {
        if !version.has(HAS_TRACES) {
            let mut report = Self::new(input.text("an error message")?);
            report.exit_status = input.number("the exit status of an error")?;
            return Ok(report);
        }
        const KIND: &str = "the type of an error";
        let kind = input.word(KIND)?;
        if kind != TYPE {
            return Err(bad_value(KIND, "`Error`", kind));
        }
        let level = Level::from_number(input.number("the level of an error")?);
        input.text("the name of an error")?;
        let mut report = Self::new(input.text("an error message")?);
        report.level = level;
        read_no_position(input)?;
        report.traces = read_list(input, "the traces of an error", |input| {
            read_no_position(input)?;
            input.text("a trace of an error")
        })?;
        Ok(report)
    }

    pub(super) fn write<W: Write>(&self, out: &mut WireWriter<W>, version: Version) -> Result<()> {
        if !version.has(HAS_TRACES) {
            out.string(&self.message)?;
            return out.number(self.exit_status);
        }
        let level = match self.level {
            Level::Other(_) => Level::Error,
            known => known,
        };
        out.string(TYPE)?;
        out.number(level.number())?;
        out.string(TYPE)?;
        out.string(&self.message)?;
        out.number(0)?;
        write_list(out, self.traces.iter(), |out, trace| {
            out.number(0)?;
            out.string(trace)
        })
    }
}

/// Positions in files are never sent.
fn read_no_position<R: Read>(input: &mut WireReader<R>) -> Result<()> {
    input.choice("the mark of a position", "0", |number| {
        (number == 0).then_some(())
    })
}

impl fmt::Display for RemoteError {
    /// Writes the message, with what is not UTF-8 replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.message))
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traces = self.traces.iter().map(|trace| String::from_utf8_lossy(trace));
        f.debug_struct("RemoteError")
            .field("level", &self.level)
            .field("message", &String::from_utf8_lossy(&self.message))
            .field("traces", &traces.collect::<Vec<_>>())
            .field("exit_status", &self.exit_status)
            .finish()
    }
}

impl std::error::Error for RemoteError {}
