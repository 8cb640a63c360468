// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole replies: what a server says while it works, success, and the body.

use std::io::{Read, Write};

use super::Shape;
use crate::codec::{WireReader, WireWriter};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::frame::{Ending, Frame, LogFrame, RemoteError, read_until_end};
use crate::operation::Operation;

/// The body of a reply. The types that are one are those inside [`Reply`](super::Reply).
pub trait Body: Sized + sealed::Sealed {
    /// What kind of body it is.
    const SHAPE: Shape;

    /// Reads the body alone, as part of a message that was begun.
    ///
    /// # Errors
    /// If the source fails or ends, or a field is not valid.
    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self>;

    /// Writes the body alone.
    ///
    /// # Errors
    /// If the receiver fails.
    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()>;

    /// Finds what cannot be sent, before anything is.
    ///
    /// # Errors
    /// If there is such a thing.
    fn check(&self, dialect: &Dialect) -> Result<()> {
        let _ = dialect;
        Ok(())
    }
}

pub(super) mod sealed {
    /// Keeps the bodies to those of the protocol.
    pub trait Sealed {}
}

/// Reads the whole reply to `operation`: hands over what the server says while it works, then reads the body.
///
/// Replies come in the order of the requests, however many were written before the first was read. The inner error is
/// the server's, after which the connection goes on.
///
/// # Errors
/// If `T` is not what the operation is answered with; if the source fails or ends, or what it holds is not valid.
pub fn read_reply<T: Body, R: Read>(
    input: &mut WireReader<R>,
    operation: Operation,
    dialect: &Dialect,
    on_log: impl FnMut(LogFrame),
) -> Result<Result<T, RemoteError>> {
    check_shape::<T>(operation)?;
    match read_until_end(input, dialect.version, on_log)? {
        Ending::Failure(report) => Ok(Err(report)),
        Ending::Success => {
            input.begin_message();
            T::read(input, dialect).map(Ok)
        }
    }
}

/// Writes the end of a reply to `operation`: success, and the body. `out` is not flushed.
///
/// A request with a stream must have been read to its end before: clients abort if success comes earlier.
///
/// # Errors
/// If `T` is not what the operation is answered with, or a value cannot be sent, and then nothing was written; if the
/// receiver fails.
pub fn write_reply<T: Body, W: Write>(
    out: &mut WireWriter<W>,
    operation: Operation,
    dialect: &Dialect,
    body: &T,
) -> Result<()> {
    check_shape::<T>(operation)?;
    body.check(dialect)?;
    Frame::Last.write(out, dialect.version)?;
    body.write(out, dialect)
}

/// Mixed up, all that follows would be shifted by some words.
fn check_shape<T: Body>(operation: Operation) -> Result<()> {
    if operation.shape() == T::SHAPE {
        return Ok(());
    }
    Err(Error::WrongReply {
        operation,
        asked: T::SHAPE.words(),
    })
}
