// SPDX-License-Identifier: MIT OR Apache-2.0
//! Derivations as builders get them: inputs resolved, without their name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use superpose_store_path::{ContentAddress, DerivationOutput, Hash, HashEncoding, Name, StoreDir, StorePath};

use super::content_method::MethodAlgorithm;
use crate::codec::{
    WireReader, WireWriter, bad_value, read_list, read_map, read_paths, write_list, write_map, write_paths,
};
use crate::dialect::Dialect;
use crate::error::{Error, Result};

/// What stands for the hash of an impure output.
const IMPURE: &[u8] = b"impure";

/// A derivation whose inputs are all objects. Its name is that of its path, which is sent beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicDerivation {
    /// The outputs by their names.
    pub outputs: BTreeMap<Name, DerivationOutput>,
    /// What is needed.
    pub input_srcs: BTreeSet<StorePath>,
    /// The platform it is built on, such as `x86_64-linux`.
    pub platform: Vec<u8>,
    /// The program that builds it.
    pub builder: Vec<u8>,
    /// The program's arguments.
    pub args: Vec<Vec<u8>>,
    /// The program's environment.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl BasicDerivation {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            outputs: read_map(input, "the outputs of a derivation", |input| {
                let name = input.parsed("the name of an output", Name::new)?;
                Ok((name, read_output(input, &dialect.store_dir)?))
            })?,
            input_srcs: read_paths(input, "the inputs of a derivation", dialect)?,
            platform: input.word("the platform of a derivation")?.to_vec(),
            builder: input.text("the builder of a derivation")?,
            args: read_list(input, "the arguments of a builder", |input| {
                input.content("an argument of a builder")
            })?,
            env: read_map(input, "the variables of a builder", |input| {
                let name = input.text("the name of a variable")?;
                Ok((name, input.content("a variable of a builder")?))
            })?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_map(out, &self.outputs, |out, name, output| {
            out.string(name.as_str().as_bytes())?;
            write_output(out, output, &dialect.store_dir)
        })?;
        write_paths(out, &self.input_srcs, dialect)?;
        out.string(&self.platform)?;
        out.string(&self.builder)?;
        write_list(out, self.args.iter(), |out, argument| out.string(argument))?;
        write_map(out, &self.env, |out, name, value| {
            out.string(name)?;
            out.string(value)
        })
    }
}

/// The kind of an output follows from which of its three fields are empty.
fn read_output<R: Read>(input: &mut WireReader<R>, store_dir: &StoreDir) -> Result<DerivationOutput> {
    const HASH: &str = "the hash of an output";
    let path = input.optional_store_path("the path of an output", store_dir)?;
    let method = match input.word("the hash algorithm of an output")? {
        b"" => None,
        text => Some(MethodAlgorithm::parse_unprefixed(text)?),
    };
    let hash = input.word(HASH)?;
    Ok(match (path, method, hash) {
        (Some(path), None, b"") => DerivationOutput::InputAddressed { path },
        (None, None, b"") => DerivationOutput::Deferred,
        (None, Some(MethodAlgorithm { method, algorithm }), b"") => {
            DerivationOutput::Floating { method, algorithm }
        }
        (None, Some(MethodAlgorithm { method, algorithm }), IMPURE) => {
            DerivationOutput::Impure { method, algorithm }
        }
        (Some(path), Some(MethodAlgorithm { method, algorithm }), digest) => {
            let hash = Hash::parse_unprefixed(digest, algorithm);
            let hash = hash.map_err(|source| Error::Malformed { what: HASH, source })?;
            DerivationOutput::Fixed {
                path,
                ca: ContentAddress { method, hash },
            }
        }
        (_, _, found) => return Err(bad_value(HASH, "one that fits its path and algorithm", found)),
    })
}

fn write_output<W: Write>(
    out: &mut WireWriter<W>,
    output: &DerivationOutput,
    store_dir: &StoreDir,
) -> Result<()> {
    let hash = match output {
        DerivationOutput::Fixed { ca, .. } => ca.hash.render_bare(HashEncoding::Base16),
        DerivationOutput::Impure { .. } => String::from_utf8_lossy(IMPURE).into_owned(),
        _ => String::new(),
    };
    let method = match *output {
        DerivationOutput::InputAddressed { .. } | DerivationOutput::Deferred => String::new(),
        DerivationOutput::Fixed { ca, .. } => MethodAlgorithm {
            method: ca.method,
            algorithm: ca.hash.algorithm(),
        }
        .render_unprefixed(),
        DerivationOutput::Floating { method, algorithm } | DerivationOutput::Impure { method, algorithm } => {
            MethodAlgorithm { method, algorithm }.render_unprefixed()
        }
    };
    out.optional_store_path(output.path(), store_dir)?;
    out.string(method.as_bytes())?;
    out.string(hash.as_bytes())
}
