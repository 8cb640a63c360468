// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that come with all that is known of them.

use std::io::{self, Read};

use superpose_overlay::metadata::PathInfo;
use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Imported, ObjectStream, Outcome, SignatureCheck, Store};
use superpose_worker_protocol::{AddFlags, AddMultipleReader, Operation, Reply, Trust, ValidPathInfo};

use super::{Upload, repair};
use crate::budget::Share;
use crate::connection::LIMITS;
use crate::context::Context;
use crate::error::{Error, Result};

/// What an object of a list costs until the list ends, in bytes: it is known of each what became of it.
const OUTCOME_COST: u64 = 96;

/// Adds one object, whose archive is the stream.
pub(super) fn one(
    info: ValidPathInfo,
    flags: AddFlags,
    upload: &mut Upload<'_>,
    context: &mut Context,
) -> Result<Reply> {
    let info = acceptable(info).map_err(|path| Error::NoSize {
        path: context.store_dir().join(&path),
    })?;
    let signatures = signatures(flags, context);
    let mut object = One {
        info: Some(info),
        upload,
        left: 0,
    };
    let mut store = context.store(Operation::AddToStoreNar)?;
    let imported = store.add_stream(&mut object, signatures)?;
    require_intact(flags, &imported, &store)?;
    Ok(Reply::Nothing(()))
}

/// Adds the objects that are in the stream.
pub(super) fn many(flags: AddFlags, upload: &mut Upload<'_>, context: &mut Context) -> Result<Reply> {
    let signatures = signatures(flags, context);
    let mut store = context.store(Operation::AddMultipleToStore)?;
    let stream = Counted {
        upload,
        share: context.share(),
        is_held: false,
        held: 0,
        refused: None,
    };
    let reader = AddMultipleReader::new(stream, LIMITS, &context.dialect)?;
    let mut objects = Many { reader };
    let imported = match store.add_stream(&mut objects, signatures) {
        Ok(imported) => imported,
        Err(error) => return Err(objects.refusal().unwrap_or_else(|| error.into())),
    };
    require_intact(flags, &imported, &store)?;
    Ok(Reply::Nothing(()))
}

/// Who has to vouch for what comes. Only a trusted client may do it himself; the wish of another is passed over, as in Nix.
fn signatures(flags: AddFlags, context: &Context) -> SignatureCheck {
    if flags.without_signatures && context.trust == Trust::Trusted {
        SignatureCheck::Skipped
    } else {
        SignatureCheck::Required
    }
}

/// Of what was to be repaired: that which was valid before has to be right.
fn require_intact(flags: AddFlags, imported: &[Imported], store: &Store) -> Result<()> {
    if !flags.repair {
        return Ok(());
    }
    let valid = imported.iter().filter(|object| object.outcome != Outcome::Stored);
    let valid: Vec<StorePath> = valid.map(|object| object.path.clone()).collect();
    repair::require_intact(&valid, store)
}

/// An object whose length is not known has no end here, and a real one has one.
fn acceptable(info: ValidPathInfo) -> Result<PathInfo, StorePath> {
    if info.info.nar_size == 0 {
        return Err(info.path);
    }
    Ok(PathInfo::from_wire(info.path, info.info))
}

/// One object. What follows its archive in the stream is nobody's.
struct One<'u, 'i> {
    info: Option<PathInfo>,
    upload: &'u mut Upload<'i>,
    left: u64,
}

impl Read for One<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.upload.read(&mut buffer[..room])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl ObjectStream for One<'_, '_> {
    fn next_object(&mut self) -> io::Result<Option<PathInfo>> {
        let info = self.info.take();
        self.left = info.as_ref().map_or(0, |info| info.nar_size);
        Ok(info)
    }
}

/// A stream of which a part is held, which is counted as it comes: what is known of objects, while archives are passed on.
struct Counted<'u, 'i> {
    upload: &'u mut Upload<'i>,
    share: Share,
    /// Whether what comes now is held.
    is_held: bool,
    /// How much is held of the batch.
    held: u64,
    /// Why no more could be held.
    refused: Option<Error>,
}

impl Counted<'_, '_> {
    fn hold(&mut self, bytes: u64) -> io::Result<()> {
        self.share.take(bytes).map_err(|error| {
            self.refused = Some(error);
            io::ErrorKind::OutOfMemory.into()
        })
    }
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.upload.read(buffer)?;
        if self.is_held {
            self.hold(read as u64)?;
            self.held += read as u64;
        }
        Ok(read)
    }
}

/// Many objects.
struct Many<'d, 'u, 'i> {
    reader: AddMultipleReader<'d, Counted<'u, 'i>>,
}

impl Many<'_, '_, '_> {
    /// Why what is known of them could not be held, if that is why they were not added.
    fn refusal(&mut self) -> Option<Error> {
        self.reader.get_mut().refused.take()
    }
}

impl Read for Many<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl ObjectStream for Many<'_, '_, '_> {
    fn next_object(&mut self) -> io::Result<Option<PathInfo>> {
        // What is left of the archive before goes by.
        io::copy(&mut self.reader, &mut io::sink())?;
        self.reader.get_mut().is_held = true;
        let next = self.reader.next_object();
        self.reader.get_mut().is_held = false;
        let Some(info) = next.map_err(io::Error::other)? else {
            return Ok(None);
        };
        self.reader.get_mut().hold(OUTCOME_COST)?;
        match acceptable(info) {
            Ok(info) => Ok(Some(info)),
            Err(path) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the archive of '{}' is announced without its length", path),
            )),
        }
    }

    fn begin_batch(&mut self) {
        let stream = self.reader.get_mut();
        stream.share.give(std::mem::take(&mut stream.held));
    }
}
