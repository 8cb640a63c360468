// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing primitives.

use std::io::Write;

use superpose_store_path::{StoreDir, StorePath};

use super::padding;
use crate::error::{Error, Result};

/// Writes the primitives of the protocol to anything.
///
/// It writes in many small pieces: around a socket belongs a [`std::io::BufWriter`], inside. A `Vec<u8>` gathers
/// requests that are to be sent later.
#[derive(Debug)]
pub struct WireWriter<W> {
    out: W,
}

impl<W: Write> WireWriter<W> {
    /// Prepares to write.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Returns the receiver.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Returns the receiver: for raw bytes between messages.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Gives back the receiver; nothing is held here.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Passes on what the receiver holds back.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|source| Error::Write { source })
    }

    /// Writes a number.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn number(&mut self, number: u64) -> Result<()> {
        self.raw(&number.to_le_bytes())
    }

    /// Writes a signed number: two's complement.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn signed(&mut self, number: i64) -> Result<()> {
        self.number(number.cast_unsigned())
    }

    /// Writes a truth.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn flag(&mut self, flag: bool) -> Result<()> {
        self.number(u64::from(flag))
    }

    /// Writes a string.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn string(&mut self, bytes: &[u8]) -> Result<()> {
        self.number(bytes.len() as u64)?;
        self.raw(bytes)?;
        self.pad(bytes.len())
    }

    /// Writes a store path, in full.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn store_path(&mut self, path: &StorePath, store_dir: &StoreDir) -> Result<()> {
        let (dir, base) = (store_dir.as_str(), path.base_name());
        let length = dir.len() + 1 + base.len();
        self.number(length as u64)?;
        self.raw(dir.as_bytes())?;
        self.raw(b"/")?;
        self.raw(base.as_bytes())?;
        self.pad(length)
    }

    /// Writes a store path, in full, or an empty string.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn optional_store_path(&mut self, path: Option<&StorePath>, store_dir: &StoreDir) -> Result<()> {
        match path {
            Some(path) => self.store_path(path, store_dir),
            None => self.string(b""),
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|source| Error::Write { source })
    }

    fn pad(&mut self, length: usize) -> Result<()> {
        self.raw(&[0; 8][..padding(length)])
    }
}
