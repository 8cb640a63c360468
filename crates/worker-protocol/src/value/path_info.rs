// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of objects.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use superpose_store_path::{ContentAddress, Hash, HashAlgorithm, HashEncoding, Signature, StorePath};

use crate::codec::{WireReader, WireWriter, bad_value, read_elements, read_paths, write_list, write_paths};
use crate::dialect::Dialect;
use crate::error::{Error, Result};

/// What errors call them.
pub(super) const SIGNATURES: &str = "the signatures";

/// What is known of a valid path, without the path.
///
/// The form is that of 1.16 and later, which every peer of [`Version::MINIMUM`](crate::Version::MINIMUM) has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnkeyedValidPathInfo {
    /// The derivation that it was built from, which need not be valid.
    pub deriver: Option<StorePath>,
    /// SHA-256 of the object's archive.
    pub nar_hash: Hash,
    /// The objects it refers to, possibly itself.
    pub references: BTreeSet<StorePath>,
    /// When it became valid, in Unix seconds. To register 0 means now.
    pub registration_time: i64,
    /// Length of the object's archive in bytes; 0 if it is not known.
    pub nar_size: u64,
    /// Whether it was built there, so that it is trusted without a signature. No server may believe a client that.
    pub ultimate: bool,
    /// Signatures, read as leniently as Nix 2.34 does.
    pub signatures: BTreeSet<Signature>,
    /// How the path follows from the content, if it does.
    pub content_address: Option<ContentAddress>,
}

impl UnkeyedValidPathInfo {
    /// Makes the information of an object of which nothing but its archive's hash and length is known.
    #[must_use]
    pub fn new(nar_hash: Hash, nar_size: u64) -> Self {
        Self {
            deriver: None,
            nar_hash,
            references: BTreeSet::new(),
            registration_time: 0,
            nar_size,
            ultimate: false,
            signatures: BTreeSet::new(),
            content_address: None,
        }
    }

    /// Finds what cannot be written, before anything is.
    pub(crate) fn check(&self) -> Result<()> {
        if self.nar_hash.algorithm() == HashAlgorithm::Sha256 {
            return Ok(());
        }
        Err(Error::NotExpressible {
            what: "the NAR hash of a path",
            problem: "only SHA-256 has a form on the wire",
        })
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            deriver: input.optional_store_path("the deriver", &dialect.store_dir)?,
            nar_hash: read_nar_hash(input)?,
            references: read_paths(input, "the references", dialect)?,
            registration_time: input.signed("the registration time")?,
            nar_size: input.number("the NAR size")?,
            ultimate: input.flag("the mark of what was built there")?,
            signatures: read_signatures(input)?,
            content_address: read_content_address(input)?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.optional_store_path(self.deriver.as_ref(), &dialect.store_dir)?;
        out.string(self.nar_hash.render_bare(HashEncoding::Base16).as_bytes())?;
        write_paths(out, &self.references, dialect)?;
        out.signed(self.registration_time)?;
        out.number(self.nar_size)?;
        out.flag(self.ultimate)?;
        write_signatures(out, &self.signatures)?;
        write_content_address(out, self.content_address.as_ref())
    }
}

/// What is known of a valid path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidPathInfo {
    /// The object.
    pub path: StorePath,
    /// What is known of it.
    pub info: UnkeyedValidPathInfo,
}

impl ValidPathInfo {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            path: input.store_path("the path", &dialect.store_dir)?,
            info: UnkeyedValidPathInfo::read(input, dialect)?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.store_path(&self.path, &dialect.store_dir)?;
        self.info.write(out, dialect)
    }
}

/// What is known of an object that could be substituted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubstitutablePathInfo {
    /// The derivation that it was built from.
    pub deriver: Option<StorePath>,
    /// The objects it refers to, possibly itself.
    pub references: BTreeSet<StorePath>,
    /// How many bytes have to be fetched; 0 if it is not known.
    pub download_size: u64,
    /// Length of the object's archive in bytes; 0 if it is not known.
    pub nar_size: u64,
}

impl SubstitutablePathInfo {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            deriver: input.optional_store_path("the deriver", &dialect.store_dir)?,
            references: read_paths(input, "the references", dialect)?,
            download_size: input.number("the download size")?,
            nar_size: input.number("the NAR size")?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.optional_store_path(self.deriver.as_ref(), &dialect.store_dir)?;
        write_paths(out, &self.references, dialect)?;
        out.number(self.download_size)?;
        out.number(self.nar_size)
    }
}

/// Any known form of a digest, with or without the name of the one algorithm that it can have.
fn read_nar_hash<R: Read>(input: &mut WireReader<R>) -> Result<Hash> {
    const WHAT: &str = "the NAR hash";
    let hash = input.parsed(WHAT, |text| {
        match text.iter().any(|byte| matches!(byte, b':' | b'-')) {
            true => Hash::parse(text),
            false => Hash::parse_unprefixed(text, HashAlgorithm::Sha256),
        }
    })?;
    match hash.algorithm() {
        HashAlgorithm::Sha256 => Ok(hash),
        other => Err(bad_value(WHAT, "a sha256 hash", other.as_str().as_bytes())),
    }
}

/// Of one path or realisation.
pub(crate) fn read_signatures<R: Read>(input: &mut WireReader<R>) -> Result<BTreeSet<Signature>> {
    let limit = input.limits().signatures;
    let count = input.count_up_to(SIGNATURES, limit)?;
    let list = read_elements(input, count, |input| {
        input.parsed("a signature", Signature::parse_lenient)
    })?;
    Ok(list.into_iter().collect())
}

pub(crate) fn write_signatures<W: Write>(
    out: &mut WireWriter<W>,
    signatures: &BTreeSet<Signature>,
) -> Result<()> {
    write_list(out, signatures.iter(), |out, signature| {
        out.string(signature.as_str().as_bytes())
    })
}

pub(crate) fn read_content_address<R: Read>(input: &mut WireReader<R>) -> Result<Option<ContentAddress>> {
    input.parsed("the content address", |text| match text {
        b"" => Ok(None),
        text => ContentAddress::parse(text).map(Some),
    })
}

pub(crate) fn write_content_address<W: Write>(
    out: &mut WireWriter<W>,
    address: Option<&ContentAddress>,
) -> Result<()> {
    match address {
        Some(address) => out.string(address.to_string().as_bytes()),
        None => out.string(b""),
    }
}
