// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that come with all that is known of them.

use std::io::{self, Read};

use superpose_overlay::metadata::PathInfo;
use superpose_overlay::store_path::StorePath;
use superpose_overlay::{Imported, ObjectStream, Outcome, SignatureCheck, Store};
use superpose_worker_protocol::{
    AddFlags, AddMultipleReader, Limits, Operation, Reply, Trust, ValidPathInfo,
};

use super::{Upload, repair};
use crate::context::Context;
use crate::error::{Error, Result};

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
    let reader = AddMultipleReader::new(upload, Limits::for_requests(), &context.dialect)?;
    let mut objects = Many { reader };
    let imported = store.add_stream(&mut objects, signatures)?;
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

/// Many objects.
struct Many<'d, 'u, 'i> {
    reader: AddMultipleReader<'d, &'u mut Upload<'i>>,
}

impl Read for Many<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl ObjectStream for Many<'_, '_, '_> {
    fn next_object(&mut self) -> io::Result<Option<PathInfo>> {
        let Some(info) = self.reader.next_object().map_err(io::Error::other)? else {
            return Ok(None);
        };
        match acceptable(info) {
            Ok(info) => Ok(Some(info)),
            Err(path) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the archive of '{}' is announced without its length", path),
            )),
        }
    }
}
