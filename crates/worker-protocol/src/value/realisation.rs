// SPDX-License-Identifier: MIT OR Apache-2.0
//! Realisations: which path an output of a content-addressed derivation turned out to be. Two generations of them
//! are spoken, and [`Feature::RealisationWithPath`] decides which.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use superpose_store_path::{Hash, HashEncoding, Name, Signature, StorePath};

use super::json::{self, Json};
use super::path_info::{SIGNATURES, read_signatures, write_signatures};
use crate::codec::{WireReader, WireWriter, bad_value, read_list, write_list};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::feature::Feature;

const TEXT: &str = "a realisation";

/// What a realisation is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrvOutput {
    /// Up to 2.34, and without the feature: the hash of the derivation modulo its inputs.
    HashModulo {
        /// The hash.
        hash: Hash,
        /// The name of the output.
        output: Name,
    },
    /// With the feature: the derivation itself.
    Derivation {
        /// The derivation.
        path: StorePath,
        /// The name of the output.
        output: Name,
    },
}

impl DrvOutput {
    /// Finds what cannot be written, before anything is.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<()> {
        let problem = match (self, dialect.has(Feature::RealisationWithPath)) {
            (Self::HashModulo { .. }, true) => "this connection finds realisations by derivations",
            (Self::Derivation { .. }, false) => "this connection finds realisations by hashes",
            _ => return Ok(()),
        };
        Err(Error::NotExpressible { what: TEXT, problem })
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        const OUTPUT: &str = "the name of an output";
        if dialect.has(Feature::RealisationWithPath) {
            return Ok(Self::Derivation {
                path: input.store_path("the derivation of a realisation", &dialect.store_dir)?,
                output: input.parsed(OUTPUT, Name::new)?,
            });
        }
        let (hash, output) = parse_id(input.word("the id of a realisation")?)?;
        Ok(Self::HashModulo { hash, output })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        match self {
            Self::HashModulo { hash, output } => out.string(render_id(hash, output).as_bytes()),
            Self::Derivation { path, output } => {
                out.store_path(path, &dialect.store_dir)?;
                out.string(output.as_str().as_bytes())
            }
        }
    }
}

/// Which path an output turned out to be, without what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnkeyedRealisation {
    /// The path of the output.
    pub path: StorePath,
    /// Signatures.
    pub signatures: BTreeSet<Signature>,
}

impl UnkeyedRealisation {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            path: input.store_path("the path of an output", &dialect.store_dir)?,
            signatures: read_signatures(input)?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.store_path(&self.path, &dialect.store_dir)?;
        write_signatures(out, &self.signatures)
    }
}

/// Which path an output turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realisation {
    /// What it is found by.
    pub id: DrvOutput,
    /// What it turned out to be.
    pub value: UnkeyedRealisation,
    /// The realisations that it was built from, by their ids as text. Only releases up to 2.33 write them; their
    /// signatures cover them.
    pub dependencies: BTreeMap<String, StorePath>,
}

impl Realisation {
    /// Finds what cannot be written, before anything is.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<()> {
        self.id.check(dialect)?;
        if dialect.has(Feature::RealisationWithPath) && !self.dependencies.is_empty() {
            return Err(Error::NotExpressible {
                what: TEXT,
                problem: "this connection has no place for what it was built from",
            });
        }
        Ok(())
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        if dialect.has(Feature::RealisationWithPath) {
            return Ok(Self {
                id: DrvOutput::read(input, dialect)?,
                value: UnkeyedRealisation::read(input, dialect)?,
                dependencies: BTreeMap::new(),
            });
        }
        let text = input.string(TEXT, json::MAX_LEN)?;
        let (id, value, dependencies) = parse_json(&text, input.limits().signatures)?;
        let id = id.ok_or_else(|| bad_value(TEXT, "the key `id`", &text))?;
        let (hash, output) = parse_id(id.as_bytes())?;
        Ok(Self {
            id: DrvOutput::HashModulo { hash, output },
            value,
            dependencies,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        match &self.id {
            DrvOutput::Derivation { .. } => {
                self.id.write(out, dialect)?;
                self.value.write(out, dialect)
            }
            DrvOutput::HashModulo { hash, output } => {
                out.string(render_json(&render_id(hash, output), &self.value, &self.dependencies).as_bytes())
            }
        }
    }
}

/// The answer of `QueryRealisation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealisationAnswer {
    /// Without the feature: at most one in practice.
    Keyed(Vec<Realisation>),
    /// With the feature.
    Unkeyed(Option<UnkeyedRealisation>),
}

impl RealisationAnswer {
    /// Returns the path of the output, if it is known.
    #[must_use]
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Self::Keyed(list) => list.first().map(|realisation| &realisation.value.path),
            Self::Unkeyed(value) => value.as_ref().map(|value| &value.path),
        }
    }

    /// Finds what cannot be written, before anything is.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<()> {
        match (self, dialect.has(Feature::RealisationWithPath)) {
            (Self::Keyed(list), false) => list.iter().try_for_each(|realisation| realisation.check(dialect)),
            (Self::Unkeyed(_), true) => Ok(()),
            _ => Err(Error::NotExpressible {
                what: "the answer about a realisation",
                problem: "this connection has them in the other form",
            }),
        }
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        if dialect.has(Feature::RealisationWithPath) {
            let is_there = input.choice("the mark of a realisation", "0 or 1", as_mark)?;
            let value = is_there.then(|| UnkeyedRealisation::read(input, dialect));
            return Ok(Self::Unkeyed(value.transpose()?));
        }
        let list = read_list(input, "the realisations", |input| {
            Realisation::read(input, dialect)
        })?;
        Ok(Self::Keyed(list))
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        match self {
            Self::Keyed(list) => write_list(out, list.iter(), |out, realisation| {
                realisation.write(out, dialect)
            }),
            Self::Unkeyed(value) => {
                out.flag(value.is_some())?;
                value.as_ref().map_or(Ok(()), |value| value.write(out, dialect))
            }
        }
    }
}

/// The tag of an optional value.
pub(crate) const fn as_mark(number: u64) -> Option<bool> {
    match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Writes `sha256:<hex>!<output>`; without a hash zeros stand in, which every client accepts.
pub(super) fn render_output_id(hash: Option<&Hash>, output: &Name) -> String {
    render_id(hash.unwrap_or(&Hash::sha256([0; 32])), output)
}

fn render_id(hash: &Hash, output: &Name) -> String {
    format!("{}!{output}", hash.render(HashEncoding::Base16))
}

/// Parses `sha256:<hex>!<output>`.
pub(super) fn parse_id(text: &[u8]) -> Result<(Hash, Name)> {
    const WHAT: &str = "the id of a realisation";
    let Some(at) = text.iter().rposition(|&byte| byte == b'!') else {
        return Err(bad_value(WHAT, "a hash, `!` and the name of an output", text));
    };
    let parts = Hash::parse(&text[..at]).and_then(|hash| Ok((hash, Name::new(&text[at + 1..])?)));
    parts.map_err(|source| Error::Malformed { what: WHAT, source })
}

/// Writes the JSON text that releases up to 2.34 write: four keys, sorted, and base names for paths.
pub(super) fn render_json(
    id: &str,
    value: &UnkeyedRealisation,
    dependencies: &BTreeMap<String, StorePath>,
) -> String {
    let mut text = String::from("{\"dependentRealisations\":{");
    for (at, (id, path)) in dependencies.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        json::push_string(id, &mut text);
        text.push(':');
        json::push_string(path.base_name(), &mut text);
    }
    text.push_str("},\"id\":");
    json::push_string(id, &mut text);
    text.push_str(",\"outPath\":");
    json::push_string(value.path.base_name(), &mut text);
    text.push_str(",\"signatures\":[");
    for (at, signature) in value.signatures.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        json::push_string(signature.as_str(), &mut text);
    }
    text.push_str("]}");
    text
}

type JsonRealisation = (Option<String>, UnkeyedRealisation, BTreeMap<String, StorePath>);

/// Parses the JSON text, with so many signatures at most. Only `outPath` has to be there: newer servers leave out the rest for
/// older clients.
pub(super) fn parse_json(text: &[u8], most_signatures: usize) -> Result<JsonRealisation> {
    let wrong = |expected| bad_value(TEXT, expected, text);
    let malformed = |source| Error::Malformed { what: TEXT, source };
    let value = Json::parse(text).ok_or_else(|| wrong("a JSON text"))?;
    let path = value.get("outPath").and_then(Json::as_str);
    let path = path.ok_or_else(|| wrong("a JSON object with the string `outPath`"))?;
    let mut realisation = UnkeyedRealisation {
        path: StorePath::from_base_name(path.as_bytes()).map_err(malformed)?,
        signatures: BTreeSet::new(),
    };
    match value.get("signatures") {
        None => {}
        Some(Json::Array(signatures)) if signatures.len() > most_signatures => {
            return Err(Error::TooLong {
                what: SIGNATURES,
                limit: most_signatures as u64,
                found: signatures.len() as u64,
            });
        }
        Some(Json::Array(signatures)) => {
            for signature in signatures {
                let signature = signature.as_str().ok_or_else(|| wrong("strings as signatures"))?;
                let signature = Signature::parse_lenient(signature.as_bytes()).map_err(malformed)?;
                realisation.signatures.insert(signature);
            }
        }
        Some(_) => return Err(wrong("an array as `signatures`")),
    }
    let mut dependencies = BTreeMap::new();
    match value.get("dependentRealisations") {
        None => {}
        Some(Json::Object(entries)) => {
            for (id, path) in entries {
                let path = path.as_str().ok_or_else(|| wrong("base names as dependencies"))?;
                let path = StorePath::from_base_name(path.as_bytes()).map_err(malformed)?;
                dependencies.insert(id.clone(), path);
            }
        }
        Some(_) => return Err(wrong("an object as `dependentRealisations`")),
    }
    let id = value.get("id").and_then(Json::as_str).map(str::to_owned);
    Ok((id, realisation, dependencies))
}
