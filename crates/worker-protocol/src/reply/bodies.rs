// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bodies of replies, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use superpose_store_path::{Name, StorePath};

use super::Shape;
use super::body::{Body, sealed::Sealed};
use crate::codec::{
    WireReader, WireWriter, read_list, read_map, read_paths, write_list, write_map, write_paths,
};
use crate::dialect::Dialect;
use crate::error::Result;
use crate::value::{
    BuildResult, Collected, KeyedBuildResult, RealisationAnswer, SubstitutablePathInfo, UnkeyedValidPathInfo,
    ValidPathInfo, as_mark,
};

/// The server is done. On the wire the number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done;

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcRoot {
    /// Where it is: the path of a link, or something in braces.
    pub link: Vec<u8>,
    /// What it keeps.
    pub path: StorePath,
}

/// The names of a derivation's outputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputNames(pub Vec<Name>);

/// Where a root was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootPath(pub Vec<u8>);

/// An archive follows: neither framed nor announced by its length. It is not read or written as part of the body.
///
/// Who asked for it parses it from [`WireReader::get_mut`] with a reader that takes nothing of what follows; who serves it
/// writes it to [`WireWriter::get_mut`]. After success has been said nothing can fail any more: a server makes sure before
/// that the path is valid, and closes the connection if the archive cannot be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawNar;

/// What would have to be built or fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    /// The derivations that would have to be built.
    pub will_build: BTreeSet<StorePath>,
    /// What would be substituted.
    pub will_substitute: BTreeSet<StorePath>,
    /// What nobody knows how to make.
    pub unknown: BTreeSet<StorePath>,
    /// How many bytes would have to be fetched.
    pub download_size: u64,
    /// How many bytes of archives that would be.
    pub nar_size: u64,
}

impl Sealed for () {}
impl Body for () {
    const SHAPE: Shape = Shape::Nothing;

    fn read<R: Read>(_: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        Ok(())
    }

    fn write<W: Write>(&self, _: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        Ok(())
    }
}

impl Sealed for Done {}
impl Body for Done {
    const SHAPE: Shape = Shape::Done;

    fn read<R: Read>(input: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        // Which number it is has never meant anything.
        input.number("the mark of a finished operation")?;
        Ok(Self)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        out.number(1)
    }
}

impl Sealed for bool {}
impl Body for bool {
    const SHAPE: Shape = Shape::Flag;

    fn read<R: Read>(input: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        input.flag("the answer to a question")
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        out.flag(*self)
    }
}

impl Sealed for StorePath {}
impl Body for StorePath {
    const SHAPE: Shape = Shape::Path;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        input.store_path("the path", &dialect.store_dir)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.store_path(self, &dialect.store_dir)
    }
}

impl Sealed for Option<StorePath> {}
impl Body for Option<StorePath> {
    const SHAPE: Shape = Shape::OptionalPath;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        input.optional_store_path("the path", &dialect.store_dir)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.optional_store_path(self.as_ref(), &dialect.store_dir)
    }
}

impl Sealed for BTreeSet<StorePath> {}
impl Body for BTreeSet<StorePath> {
    const SHAPE: Shape = Shape::Paths;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        read_paths(input, "the paths", dialect)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_paths(out, self, dialect)
    }
}

impl Sealed for Option<UnkeyedValidPathInfo> {}
impl Body for Option<UnkeyedValidPathInfo> {
    const SHAPE: Shape = Shape::PathInfo;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        let is_valid = input.choice("the validity of a path", "0 or 1", as_mark)?;
        is_valid
            .then(|| UnkeyedValidPathInfo::read(input, dialect))
            .transpose()
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.flag(self.is_some())?;
        self.as_ref().map_or(Ok(()), |info| info.write(out, dialect))
    }

    fn check(&self, _: &Dialect) -> Result<()> {
        self.as_ref().map_or(Ok(()), UnkeyedValidPathInfo::check)
    }
}

impl Sealed for ValidPathInfo {}
impl Body for ValidPathInfo {
    const SHAPE: Shape = Shape::AddedPath;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Self::read(input, dialect)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        self.write(out, dialect)
    }

    fn check(&self, _: &Dialect) -> Result<()> {
        self.info.check()
    }
}

impl Sealed for Option<SubstitutablePathInfo> {}
impl Body for Option<SubstitutablePathInfo> {
    const SHAPE: Shape = Shape::Substitutable;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        let is_there = input.choice("the mark of a substitutable path", "0 or 1", as_mark)?;
        is_there
            .then(|| SubstitutablePathInfo::read(input, dialect))
            .transpose()
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.flag(self.is_some())?;
        self.as_ref().map_or(Ok(()), |info| info.write(out, dialect))
    }
}

impl Sealed for BTreeMap<StorePath, SubstitutablePathInfo> {}
impl Body for BTreeMap<StorePath, SubstitutablePathInfo> {
    const SHAPE: Shape = Shape::Substitutables;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        read_map(input, "the substitutable paths", |input| {
            let path = input.store_path("the path", &dialect.store_dir)?;
            Ok((path, SubstitutablePathInfo::read(input, dialect)?))
        })
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_map(out, self, |out, path, info| {
            out.store_path(path, &dialect.store_dir)?;
            info.write(out, dialect)
        })
    }
}

impl Sealed for Vec<GcRoot> {}
impl Body for Vec<GcRoot> {
    const SHAPE: Shape = Shape::Roots;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        read_list(input, "the roots", |input| {
            Ok(GcRoot {
                link: input.text("the link of a root")?,
                path: input.store_path("the target of a root", &dialect.store_dir)?,
            })
        })
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_list(out, self.iter(), |out, root| {
            out.string(&root.link)?;
            out.store_path(&root.path, &dialect.store_dir)
        })
    }
}

impl Sealed for Collected {}
impl Body for Collected {
    const SHAPE: Shape = Shape::Collected;

    fn read<R: Read>(input: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        Self::read(input)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        self.write(out)
    }
}

impl Sealed for OutputNames {}
impl Body for OutputNames {
    const SHAPE: Shape = Shape::OutputNames;

    fn read<R: Read>(input: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        let names = read_list(input, "the names of outputs", |input| {
            input.parsed("the name of an output", Name::new)
        });
        names.map(Self)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        write_list(out, self.0.iter(), |out, name| {
            out.string(name.as_str().as_bytes())
        })
    }
}

impl Sealed for BTreeMap<Name, Option<StorePath>> {}
impl Body for BTreeMap<Name, Option<StorePath>> {
    const SHAPE: Shape = Shape::OutputMap;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        read_map(input, "the outputs of a derivation", |input| {
            let name = input.parsed("the name of an output", Name::new)?;
            Ok((
                name,
                input.optional_store_path("the path of an output", &dialect.store_dir)?,
            ))
        })
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_map(out, self, |out, name, path| {
            out.string(name.as_str().as_bytes())?;
            out.optional_store_path(path.as_ref(), &dialect.store_dir)
        })
    }
}

impl Sealed for Missing {}
impl Body for Missing {
    const SHAPE: Shape = Shape::Missing;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Ok(Self {
            will_build: read_paths(input, "the paths to build", dialect)?,
            will_substitute: read_paths(input, "the paths to substitute", dialect)?,
            unknown: read_paths(input, "the unknown paths", dialect)?,
            download_size: input.number("the download size")?,
            nar_size: input.number("the NAR size")?,
        })
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_paths(out, &self.will_build, dialect)?;
        write_paths(out, &self.will_substitute, dialect)?;
        write_paths(out, &self.unknown, dialect)?;
        out.number(self.download_size)?;
        out.number(self.nar_size)
    }
}

impl Sealed for BuildResult {}
impl Body for BuildResult {
    const SHAPE: Shape = Shape::BuildResult;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Self::read(input, dialect)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        self.write(out, dialect)
    }
}

impl Sealed for Vec<KeyedBuildResult> {}
impl Body for Vec<KeyedBuildResult> {
    const SHAPE: Shape = Shape::BuildResults;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        read_list(input, "the results of builds", |input| {
            KeyedBuildResult::read(input, dialect)
        })
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        write_list(out, self.iter(), |out, result| result.write(out, dialect))
    }

    fn check(&self, dialect: &Dialect) -> Result<()> {
        self.iter().try_for_each(|result| result.target.check(dialect))
    }
}

impl Sealed for RealisationAnswer {}
impl Body for RealisationAnswer {
    const SHAPE: Shape = Shape::Realisation;

    fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Self::read(input, dialect)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        self.write(out, dialect)
    }

    fn check(&self, dialect: &Dialect) -> Result<()> {
        self.check(dialect)
    }
}

impl Sealed for RootPath {}
impl Body for RootPath {
    const SHAPE: Shape = Shape::RootPath;

    fn read<R: Read>(input: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        input.text("the path of a root").map(Self)
    }

    fn write<W: Write>(&self, out: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        out.string(&self.0)
    }
}

impl Sealed for RawNar {}
impl Body for RawNar {
    const SHAPE: Shape = Shape::RawNar;

    fn read<R: Read>(_: &mut WireReader<R>, _: &Dialect) -> Result<Self> {
        Ok(Self)
    }

    fn write<W: Write>(&self, _: &mut WireWriter<W>, _: &Dialect) -> Result<()> {
        Ok(())
    }
}
