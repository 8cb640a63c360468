// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is inside the stream of `AddMultipleToStore`, written.

use std::io::{self, Write};

use super::reader::into_io;
use crate::codec::WireWriter;
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::value::ValidPathInfo;

/// Writes the objects of an `AddMultipleToStore`: of each what is known of it, then its archive. References go before what
/// refers to them.
///
/// The archive of the current object is what [`Write::write`] takes. Its length has to be what was announced: otherwise
/// the server would take the rest of it for another object.
#[derive(Debug)]
#[must_use = "a list that is not finished leaves the server waiting"]
pub struct AddMultipleWriter<'d, W> {
    out: WireWriter<W>,
    dialect: &'d Dialect,
    /// How many objects are still to come, and how many were announced.
    objects: u64,
    announced: u64,
    /// How much of the current archive is left, and how much was announced.
    left: u64,
    size: u64,
}

impl<'d, W: Write> AddMultipleWriter<'d, W> {
    /// Begins to write into `stream`, which usually is a [`FramedWriter`](crate::FramedWriter).
    ///
    /// # Errors
    /// If the stream fails.
    pub fn new(stream: W, objects: u64, dialect: &'d Dialect) -> Result<Self> {
        let mut out = WireWriter::new(stream);
        out.number(objects)?;
        Ok(Self {
            out,
            dialect,
            objects,
            announced: objects,
            left: 0,
            size: 0,
        })
    }

    /// Begins the next object. Exactly [`nar_size`](crate::UnkeyedValidPathInfo::nar_size) bytes of archive have to follow.
    ///
    /// # Errors
    /// If the stream fails, if the archive before is not complete or all announced objects were written, or if the hash is
    /// none that can be sent.
    pub fn begin_object(&mut self, info: &ValidPathInfo) -> Result<()> {
        self.check_archive()?;
        info.info.check()?;
        self.objects = self.objects.checked_sub(1).ok_or(Error::Amount {
            what: "the number of objects",
            expected: self.announced,
            found: self.announced.saturating_add(1),
        })?;
        info.write(&mut self.out, self.dialect)?;
        self.size = info.info.nar_size;
        self.left = self.size;
        Ok(())
    }

    /// Gives back the stream when everything was written that was announced.
    ///
    /// # Errors
    /// If it was not.
    pub fn finish(self) -> Result<W> {
        self.check_archive()?;
        if self.objects > 0 {
            return Err(Error::Amount {
                what: "the number of objects",
                expected: self.announced,
                found: self.announced - self.objects,
            });
        }
        Ok(self.out.into_inner())
    }

    /// Gives back the stream in the middle of things: after the server answered early, to end it.
    pub fn abandon(self) -> W {
        self.out.into_inner()
    }

    fn check_archive(&self) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        Err(Error::Amount {
            what: "the bytes of an archive",
            expected: self.size,
            found: self.size - self.left,
        })
    }
}

impl<W: Write> Write for AddMultipleWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(into_io(Error::Amount {
                what: "the bytes of an archive",
                expected: self.size,
                found: (self.size - self.left).saturating_add(bytes.len() as u64),
            }));
        }
        let written = self.out.get_mut().write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.get_mut().flush()
    }
}
