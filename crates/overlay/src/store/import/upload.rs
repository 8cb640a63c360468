// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding objects that come one after the other, each with what is known of it before its archive.

use std::io::{self, Cursor, Read};

use superpose_metadata::PathInfo;
use superpose_nar::RestoreOptions;

use super::unpack::unpack_from;
use super::{Arriving, Imported, MAX_BYTES, Meter, ObjectSource, max_objects};
use crate::store::add::Outcome;
use crate::store::{SignatureCheck, Store};
use crate::{Error, Result};

/// An archive up to this size waits in memory, so that what is valid already writes nothing, and many small objects are
/// unpacked on all cores. A larger one goes to a scratch name as it comes, as does one for which there is no room any more.
const BUFFERED: u64 = 1 << 20;

/// How many bytes of archives wait in memory at most. Many may upload at once.
const MAX_WAITING: u64 = 16 << 20;

/// How many bytes of what is known of its objects a batch holds at most, unless it is a single object: of their references and
/// signatures there may be many, and a batch is all held at once.
const MAX_KNOWN: u64 = 16 << 20;

/// Objects that come one after the other, as a connection brings them. What is read is the archive of the current object,
/// and no more than that.
pub trait ObjectStream: Read + Send {
    /// Goes on to the next object, and says what is known of it. What is left of the archive before is skipped.
    ///
    /// # Errors
    /// If the stream fails, or what it says is not valid.
    fn next_object(&mut self) -> io::Result<Option<PathInfo>>;

    /// A batch begins: what was said of objects before is not held any more.
    fn begin_batch(&mut self) {}
}

impl Store {
    /// Adds objects from a stream, in batches, and protects them until the store is closed. The answers are in the order of
    /// the stream. Each object must come after what it refers to, or be in the same batch, which nobody but this function
    /// knows.
    ///
    /// No lock of a path is held while the stream is waited for.
    ///
    /// # Durability
    /// As [`Store::add_objects`].
    ///
    /// # Errors
    /// As [`Store::add_objects`]; and a stream that fails, [`Error::Upload`]. Nothing of the batch is registered then, and
    /// what had been written of it is removed; the batches before it stay.
    pub fn add_stream(
        &mut self,
        stream: &mut dyn ObjectStream,
        signatures: SignatureCheck,
    ) -> Result<Vec<Imported>> {
        let watch = self.options.watch.clone();
        let meter = Meter::new(&watch, 0, None);
        self.add_filled(&meter, |store, batch| {
            store.receive_batch(stream, signatures, batch, &meter)
        })
    }

    /// Receives objects until the batch is full; false when the stream is at its end.
    fn receive_batch(
        &self,
        stream: &mut dyn ObjectStream,
        signatures: SignatureCheck,
        batch: &mut Vec<Arriving<'_>>,
        meter: &Meter<'_>,
    ) -> Result<bool> {
        let room = MAX_WAITING.min(self.options.arriving_memory as u64);
        let (mut waiting, mut bytes, mut known) = (0_u64, 0_u64, 0_u64);
        stream.begin_batch();
        while batch.len() < max_objects() && bytes < MAX_BYTES && known < MAX_KNOWN {
            meter.watch.go_on()?;
            let next = stream.next_object();
            let Some(mut info) = next.map_err(|source| Error::Upload { source })? else {
                return Ok(false);
            };
            self.require_signature(&info, signatures)?;
            info.ultimate = false;
            bytes = bytes.saturating_add(info.nar_size);
            known += info.held_bytes();
            let fits = info.nar_size <= BUFFERED && waiting.saturating_add(info.nar_size) <= room;
            if info.nar_size > 0 && fits {
                let mut nar = Vec::new();
                let read = stream.take(info.nar_size).read_to_end(&mut nar);
                read.map_err(|source| Error::Upload { source })?;
                waiting += info.nar_size;
                batch.push(Arriving::known(
                    info,
                    Some(ObjectSource::Nar(Box::new(Cursor::new(nar)))),
                ));
            } else {
                // Pushed first: what fails is discarded with the batch.
                batch.push(Arriving::known(info, None));
                if let Some(arriving) = batch.last_mut() {
                    self.receive_large(stream, arriving)?;
                }
            }
        }
        Ok(true)
    }

    /// Unpacks a large object as it comes, unless it is valid.
    fn receive_large(&self, stream: &mut dyn ObjectStream, arriving: &mut Arriving<'_>) -> Result<()> {
        let path = arriving.info.path.clone();
        self.add_temp_roots(std::slice::from_ref(&path))?;
        if let Some(layer) = self.valid_in(std::slice::from_ref(&path))?[0] {
            arriving.outcome = Some(Outcome::AlreadyValid(layer));
            return Ok(());
        }
        arriving.scratch = Some(self.scratch()?);
        let archive = ObjectSource::Nar(Box::new(stream));
        unpack_from(&self.site(RestoreOptions::default()), arriving, archive)
    }
}
