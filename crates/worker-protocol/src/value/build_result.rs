// SPDX-License-Identifier: MIT OR Apache-2.0
//! How builds went.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use superpose_store_path::{Hash, Name, Signature, StorePath};

use super::derived_path::DerivedPath;
use super::json;
use super::realisation::{UnkeyedRealisation, as_mark, parse_id, parse_json, render_json, render_output_id};
use crate::codec::{WireReader, WireWriter, read_map, write_map};
use crate::dialect::Dialect;
use crate::error::Result;
use crate::feature::Feature;

/// What a build is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BuildMode {
    /// To have the outputs.
    #[default]
    Normal,
    /// To replace outputs that are damaged.
    Repair,
    /// To see whether the outputs come out the same again.
    Check,
}

impl BuildMode {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>) -> Result<Self> {
        input.choice("the build mode", "0, 1 or 2", |number| match number {
            0 => Some(Self::Normal),
            1 => Some(Self::Repair),
            2 => Some(Self::Check),
            _ => None,
        })
    }

    pub(crate) fn write<W: Write>(self, out: &mut WireWriter<W>) -> Result<()> {
        out.number(self as u64)
    }
}

/// How a build ended. Nix from 2.34 on refuses numbers that it does not know, and so does this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildStatus {
    /// Built.
    Built,
    /// Fetched instead.
    Substituted,
    /// There was nothing to do.
    AlreadyValid,
    /// Failed, and would again.
    PermanentFailure,
    /// The inputs were refused.
    InputRejected,
    /// What came out was refused, as a fixed output with another hash is.
    OutputRejected,
    /// Failed, and may succeed another time.
    TransientFailure,
    /// Had failed before.
    CachedFailure,
    /// Took too long.
    TimedOut,
    /// Failed for another reason.
    MiscFailure,
    /// Something that it needs failed.
    DependencyFailed,
    /// Wrote too much output.
    LogLimitExceeded,
    /// Came out otherwise than before.
    NotDeterministic,
    /// Turned out to be something that was there.
    ResolvesToAlreadyValid,
    /// Nobody could substitute it.
    NoSubstituters,
}

impl BuildStatus {
    /// All of them; the place of each is its number.
    const ALL: [Self; 15] = [
        Self::Built,
        Self::Substituted,
        Self::AlreadyValid,
        Self::PermanentFailure,
        Self::InputRejected,
        Self::OutputRejected,
        Self::TransientFailure,
        Self::CachedFailure,
        Self::TimedOut,
        Self::MiscFailure,
        Self::DependencyFailed,
        Self::LogLimitExceeded,
        Self::NotDeterministic,
        Self::ResolvesToAlreadyValid,
        Self::NoSubstituters,
    ];

    /// Tells whether the outputs are there.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(
            self,
            Self::Built | Self::Substituted | Self::AlreadyValid | Self::ResolvesToAlreadyValid
        )
    }
}

/// An output that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltOutput {
    /// The hash of the derivation modulo its inputs. With [`Feature::RealisationWithPath`] it has no place; without it
    /// zeros stand for `None`.
    pub derivation_hash: Option<Hash>,
    /// The path of the output.
    pub path: StorePath,
    /// Signatures of this realisation.
    pub signatures: BTreeSet<Signature>,
}

/// How a build went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildResult {
    /// How it ended.
    pub status: BuildStatus,
    /// Why it failed, for people.
    pub error: Vec<u8>,
    /// How often it was built. From 1.29 on, as the next three.
    pub times_built: u64,
    /// Whether it came out otherwise when it was built again.
    pub is_non_deterministic: bool,
    /// When it began, in Unix seconds; 0 if that is not known.
    pub start_time: i64,
    /// When it ended, in Unix seconds; 0 if that is not known.
    pub stop_time: i64,
    /// Microseconds that the builder's code took. From 1.37 on, as the next.
    pub cpu_user: Option<u64>,
    /// Microseconds that the system took for it.
    pub cpu_system: Option<u64>,
    /// The outputs by their names. From 1.28 on. Without those that were asked for, clients do nothing, silently.
    pub outputs: BTreeMap<Name, BuiltOutput>,
}

impl BuildResult {
    /// Makes a result of which nothing else is known.
    #[must_use]
    pub const fn new(status: BuildStatus) -> Self {
        Self {
            status,
            error: Vec::new(),
            times_built: 0,
            is_non_deterministic: false,
            start_time: 0,
            stop_time: 0,
            cpu_user: None,
            cpu_system: None,
            outputs: BTreeMap::new(),
        }
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        let status = input.choice("the status of a build", "0 to 14", |number| {
            BuildStatus::ALL.get(usize::try_from(number).ok()?).copied()
        })?;
        let mut result = Self::new(status);
        result.error = input.text("the error of a build")?;
        if dialect.since(29) {
            result.times_built = input.number("the number of builds")?;
            result.is_non_deterministic = input.flag("the mark of a build that is not deterministic")?;
            result.start_time = input.signed("the start of a build")?;
            result.stop_time = input.signed("the end of a build")?;
        }
        if dialect.since(37) {
            result.cpu_user = read_microseconds(input)?;
            result.cpu_system = read_microseconds(input)?;
        }
        if dialect.since(28) {
            result.outputs = read_map(input, "the built outputs", |input| read_output(input, dialect))?;
        }
        Ok(result)
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.number(self.status as u64)?;
        out.string(&self.error)?;
        if dialect.since(29) {
            out.number(self.times_built)?;
            out.flag(self.is_non_deterministic)?;
            out.signed(self.start_time)?;
            out.signed(self.stop_time)?;
        }
        if dialect.since(37) {
            write_microseconds(out, self.cpu_user)?;
            write_microseconds(out, self.cpu_system)?;
        }
        if dialect.since(28) {
            write_map(out, &self.outputs, |out, name, output| {
                write_output(out, name, output, dialect)
            })?;
        }
        Ok(())
    }
}

/// How the build of one of several things went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedBuildResult {
    /// What was asked for. Clients look for it: repeat it as it came.
    pub target: DerivedPath,
    /// How it went.
    pub result: BuildResult,
}

impl KeyedBuildResult {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            target: DerivedPath::read(input, dialect)?,
            result: BuildResult::read(input, dialect)?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        self.target.write(out, dialect)?;
        self.result.write(out, dialect)
    }
}

fn read_output<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<(Name, BuiltOutput)> {
    if dialect.has(Feature::RealisationWithPath) {
        let name = input.parsed("the name of an output", Name::new)?;
        let UnkeyedRealisation { path, signatures } = UnkeyedRealisation::read(input, dialect)?;
        return Ok((
            name,
            BuiltOutput {
                derivation_hash: None,
                path,
                signatures,
            },
        ));
    }
    let (hash, name) = parse_id(input.word("the id of a built output")?)?;
    let text = input.string("a built output", json::MAX_LEN)?;
    let (_, UnkeyedRealisation { path, signatures }, _) = parse_json(&text, input.limits().signatures)?;
    let is_known = hash.digest().iter().any(|&byte| byte != 0);
    Ok((
        name,
        BuiltOutput {
            derivation_hash: is_known.then_some(hash),
            path,
            signatures,
        },
    ))
}

fn write_output<W: Write>(
    out: &mut WireWriter<W>,
    name: &Name,
    output: &BuiltOutput,
    dialect: &Dialect,
) -> Result<()> {
    let value = UnkeyedRealisation {
        path: output.path.clone(),
        signatures: output.signatures.clone(),
    };
    if dialect.has(Feature::RealisationWithPath) {
        out.string(name.as_str().as_bytes())?;
        return value.write(out, dialect);
    }
    let id = render_output_id(output.derivation_hash.as_ref(), name);
    out.string(id.as_bytes())?;
    out.string(render_json(&id, &value, &BTreeMap::new()).as_bytes())
}

fn read_microseconds<R: Read>(input: &mut WireReader<R>) -> Result<Option<u64>> {
    let is_known = input.choice("the mark of a processor time", "0 or 1", as_mark)?;
    is_known.then(|| input.number("a processor time")).transpose()
}

fn write_microseconds<W: Write>(out: &mut WireWriter<W>, time: Option<u64>) -> Result<()> {
    out.flag(time.is_some())?;
    time.map_or(Ok(()), |time| out.number(time))
}
