// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is inside the stream of `AddMultipleToStore`, read.

use std::io::{self, Read};

use super::reader::{into_io, read_some};
use crate::codec::WireReader;
use crate::dialect::Dialect;
use crate::error::Result;
use crate::limits::Limits;
use crate::value::ValidPathInfo;

/// Size of the pieces in which an archive is skipped, in bytes.
const SKIP: usize = 16 << 10;

/// Reads the objects of an `AddMultipleToStore`: of each what is known of it, then its archive.
///
/// The archive of the current object is what [`Read::read`] gives, up to the announced size. What is not read of it is
/// skipped. Neither the archive nor its hash is looked at here.
#[derive(Debug)]
pub struct AddMultipleReader<'d, R> {
    input: WireReader<R>,
    dialect: &'d Dialect,
    /// How many objects are still to come.
    objects: u64,
    /// How much of the current archive is left.
    left: u64,
}

impl<'d, R: Read> AddMultipleReader<'d, R> {
    const WHAT: &'static str = "an archive";

    /// Begins to read `stream`, which usually is a [`FramedReader`](crate::FramedReader). The number of objects is bounded
    /// by nothing, as they are not gathered.
    ///
    /// # Errors
    /// If the stream fails or ends.
    pub fn new(stream: R, limits: Limits, dialect: &'d Dialect) -> Result<Self> {
        let mut input = WireReader::new(stream, limits);
        let objects = input.number("the number of objects")?;
        Ok(Self {
            input,
            dialect,
            objects,
            left: 0,
        })
    }

    /// How many objects are still to come, as the peer claims: do not reserve memory by it.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.objects
    }

    /// Goes on to the next object: what is known of it. `None` after the last one.
    ///
    /// # Errors
    /// If the stream fails or ends, or a field is not valid.
    pub fn next_object(&mut self) -> Result<Option<ValidPathInfo>> {
        let mut buffer = [0; SKIP];
        while self.read_some(&mut buffer)? > 0 {}
        let Some(objects) = self.objects.checked_sub(1) else {
            return Ok(None);
        };
        self.input.begin_message();
        let info = ValidPathInfo::read(&mut self.input, self.dialect)?;
        self.objects = objects;
        self.left = info.info.nar_size;
        Ok(Some(info))
    }

    /// Returns the stream, so that it can be told what is about to be read from it.
    pub fn get_mut(&mut self) -> &mut R {
        self.input.get_mut()
    }

    /// Gives back the stream, which stands wherever reading stopped.
    pub fn into_inner(self) -> R {
        self.input.into_inner()
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let read = read_some(self.input.get_mut(), &mut buffer[..wanted], Self::WHAT)?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Read> Read for AddMultipleReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(into_io)
    }
}
