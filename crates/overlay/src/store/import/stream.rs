// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding objects from a stream of exported ones.

use std::io::{self, Cursor, Read};

use superpose_metadata::PathInfo;
use superpose_nar::{Event, NarHash, Reader, RestoreOptions, Taps};
use superpose_store_path::Hash;

use super::{Arriving, Imported, Meter, ObjectSource, max_objects};
use crate::crash::CrashPoint;
use crate::export_stream::{Described, ExportStream};
use crate::store::Store;
use crate::store::place::Scratch;
use crate::{Error, Result};

/// An archive up to this size waits in memory until it is known whose it is, so that what is valid already writes
/// nothing, and many small objects are unpacked on all cores. A larger one goes to a scratch name as it comes.
const BUFFERED: usize = 1 << 20;

/// How many bytes of archives wait in memory at most.
const MAX_WAITING: usize = 64 << 20;

/// An archive as it came.
enum Archive {
    Waiting(Vec<u8>),
    Unpacked(Scratch, NarHash),
}

impl Store {
    /// Adds the objects of a stream as `nix-store --export` writes it, in batches, and protects them until the store is
    /// closed. The answers are in the order of the stream.
    ///
    /// The stream says nothing of what the archives should be, nor of signatures: whoever imports it vouches for it, as
    /// with `nix-store --import`.
    ///
    /// # Durability
    /// As [`Store::add_objects`].
    ///
    /// # Errors
    /// A stream that is malformed or ends too early; a reference that is valid nowhere; a full disk;
    /// [`Error::Stopped`]. Nothing of the batch is registered then, and what had been written of it is removed; the
    /// batches before it stay.
    ///
    /// # Deviation
    /// Nix adds one object after the other, each with a transaction of its own, and fails in an overlay store if a
    /// reference is valid only below.
    pub fn import(&mut self, stream: &mut dyn Read) -> Result<Vec<Imported>> {
        let watch = self.options.watch.clone();
        let meter = Meter::new(&watch, 0, None);
        let mut stream = ExportStream::new(stream);
        self.add_filled(&meter, |store, batch| {
            store.read_batch(&mut stream, batch, &meter)
        })
    }

    /// Reads objects until the batch is full; false when the stream is at its end.
    fn read_batch(
        &self,
        stream: &mut ExportStream<'_>,
        batch: &mut Vec<Arriving<'_>>,
        meter: &Meter<'_>,
    ) -> Result<bool> {
        let mut waiting = 0;
        while batch.len() < max_objects() && waiting < MAX_WAITING {
            meter.watch.go_on()?;
            if !stream.has_object()? {
                return Ok(false);
            }
            let archive = self.read_archive(stream)?;
            let described = stream.described(self.dir());
            let arriving = match (archive, described) {
                (Archive::Waiting(nar), described) => {
                    waiting += nar.len();
                    let info = new_info(described?, Hash::sha256([0; 32]), nar.len() as u64);
                    Arriving {
                        info,
                        nar_is_known: false,
                        source: Some(ObjectSource::Nar(Box::new(Cursor::new(nar)))),
                        scratch: None,
                        outcome: None,
                    }
                }
                (Archive::Unpacked(scratch, nar), Ok(described)) => Arriving {
                    info: new_info(described, nar.hash, nar.size),
                    nar_is_known: true,
                    source: None,
                    scratch: Some(scratch),
                    outcome: None,
                },
                (Archive::Unpacked(scratch, _), Err(error)) => {
                    self.discard(&scratch);
                    return Err(error);
                }
            };
            batch.push(arriving);
        }
        Ok(true)
    }

    fn read_archive(&self, stream: &mut ExportStream<'_>) -> Result<Archive> {
        let mut reader = Reader::new(Recorder {
            input: &mut *stream,
            bytes: Vec::new(),
        });
        let bytes = loop {
            match reader.next_event() {
                Ok(Event::End) => return Ok(Archive::Waiting(reader.into_inner().bytes)),
                Ok(_) => {}
                Err(error) => {
                    let recorder = reader.into_inner();
                    if !recorder.is_full() {
                        return Err(error.into());
                    }
                    break recorder.bytes;
                }
            }
        };
        let scratch = self.scratch()?;
        let mut whole = Cursor::new(bytes).chain(stream);
        let restored = superpose_nar::restore_hashed(
            &mut whole,
            self.real.fd(),
            scratch.name(),
            &RestoreOptions::default(),
            Taps::none(),
        );
        let hashed = restored.map_err(|source| match source {
            // The stream's own fault, and no matter of writing.
            superpose_nar::Error::Malformed { .. } | superpose_nar::Error::Read { .. } => Error::Nar(source),
            source => Error::CannotAdd {
                name: "an imported object".to_owned(),
                path: self.real.path().to_path_buf(),
                source: Box::new(source),
            },
        })?;
        self.options.crash_points.reached(CrashPoint::ObjectUnpacked);
        Ok(Archive::Unpacked(scratch, hashed.nar))
    }
}

fn new_info(described: Described, nar_hash: Hash, nar_size: u64) -> PathInfo {
    PathInfo {
        references: described.references,
        deriver: described.deriver,
        ..PathInfo::new(described.path, nar_hash, nar_size)
    }
}

/// Keeps what is read of an archive, and fails when that becomes too much.
struct Recorder<'a, 's> {
    input: &'a mut ExportStream<'s>,
    bytes: Vec<u8>,
}

impl Recorder<'_, '_> {
    fn is_full(&self) -> bool {
        self.bytes.len() >= BUFFERED
    }
}

impl Read for Recorder<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_full() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.input.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}
