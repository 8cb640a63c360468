// SPDX-License-Identifier: MIT OR Apache-2.0
//! Activities: what a server is doing, and what comes of it.

use std::io::{Read, Write};

use crate::codec::{WireReader, WireWriter, read_list, write_list};
use crate::error::Result;
use crate::numbered::numbered;

numbered! {
    /// How important a message is; also how much a client wants to hear.
    pub enum Level {
        /// What went wrong.
        Error = 0,
        /// What may be wrong.
        Warn = 1,
        /// What one should know.
        Notice = 2,
        /// What is done.
        Info = 3,
        /// Some of how it is done.
        Talkative = 4,
        /// More of how it is done.
        Chatty = 5,
        /// What helps to find mistakes.
        Debug = 6,
        /// Everything.
        Vomit = 7,
    }
}

numbered! {
    /// What an activity is. Clients of releases up to 2.34 abort if one of the types with fields comes without them.
    pub enum ActivityType {
        /// Only its text says.
        Unknown = 0,
        /// A path is copied. Fields: path, source, destination.
        CopyPath = 100,
        /// A file is fetched. Fields: address.
        FileTransfer = 101,
        /// Paths are made available.
        Realise = 102,
        /// Paths are copied.
        CopyPaths = 103,
        /// Derivations are built.
        Builds = 104,
        /// A derivation is built. Fields: derivation, machine, 1, 1.
        Build = 105,
        /// The store is deduplicated.
        OptimiseStore = 106,
        /// Paths are verified.
        VerifyPaths = 107,
        /// A path is substituted. Fields: path, substituter.
        Substitute = 108,
        /// A substituter is asked. Fields: path, substituter.
        QueryPathInfo = 109,
        /// A hook runs after a build. Fields: derivation.
        PostBuildHook = 110,
        /// A build waits for something.
        BuildWaiting = 111,
        /// A tree is fetched.
        FetchTree = 112,
        /// A source is fetched into the store. Fields: path, 0 or 1. Nix 2.36.
        FetchToStore = 113,
    }
}

numbered! {
    /// What a result says.
    pub enum ResultType {
        /// A file was linked to another. Fields: bytes, blocks.
        FileLinked = 100,
        /// A builder wrote a line. Fields: the line without its newline.
        BuildLogLine = 101,
        /// A path has no good signature. Fields: path.
        UntrustedPath = 102,
        /// A path is damaged. Fields: path.
        CorruptedPath = 103,
        /// A builder came to another phase. Fields: its name.
        SetPhase = 104,
        /// How far it is. Fields: done, expected, running, failed.
        Progress = 105,
        /// How much there is to do below. Fields: type of activity, amount.
        SetExpected = 106,
        /// A hook wrote a line. Fields: the line without its newline.
        PostBuildLogLine = 107,
        /// How a fetch is going. Fields: text.
        FetchStatus = 108,
        /// What a source became in the store. Fields: path. Nix 2.36.
        FetchToStore = 109,
    }
}

/// A detail of an activity or a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A number.
    Number(u64),
    /// A text.
    Text(Vec<u8>),
}

/// Something that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The sender's name for it, once on a connection.
    pub id: u64,
    /// How important its text is.
    pub level: Level,
    /// What it is.
    pub kind: ActivityType,
    /// What to say of it.
    pub text: Vec<u8>,
    /// Details, by its type.
    pub fields: Vec<Field>,
    /// The activity that it is part of; 0 is none.
    pub parent: u64,
}

impl Activity {
    pub(super) fn read<R: Read>(input: &mut WireReader<R>) -> Result<Self> {
        Ok(Self {
            id: input.number("the id of an activity")?,
            level: Level::from_number(input.number("the level of an activity")?),
            kind: ActivityType::from_number(input.number("the type of an activity")?),
            text: input.text("the text of an activity")?,
            fields: read_fields(input)?,
            parent: input.number("the parent of an activity")?,
        })
    }

    pub(super) fn write<W: Write>(&self, out: &mut WireWriter<W>) -> Result<()> {
        out.number(self.id)?;
        out.number(self.level.number())?;
        out.number(self.kind.number())?;
        out.string(&self.text)?;
        write_fields(out, &self.fields)?;
        out.number(self.parent)
    }
}

/// News of something that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityResult {
    /// Of which activity.
    pub id: u64,
    /// What it says.
    pub kind: ResultType,
    /// Details, by its type.
    pub fields: Vec<Field>,
}

impl ActivityResult {
    pub(super) fn read<R: Read>(input: &mut WireReader<R>) -> Result<Self> {
        Ok(Self {
            id: input.number("the id of an activity")?,
            kind: ResultType::from_number(input.number("the type of a result")?),
            fields: read_fields(input)?,
        })
    }

    pub(super) fn write<W: Write>(&self, out: &mut WireWriter<W>) -> Result<()> {
        out.number(self.id)?;
        out.number(self.kind.number())?;
        write_fields(out, &self.fields)
    }
}

fn read_fields<R: Read>(input: &mut WireReader<R>) -> Result<Vec<Field>> {
    read_list(input, "the fields of an activity", |input| {
        let is_text = input.choice("the type of a field", "0 or 1", |number| match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })?;
        Ok(match is_text {
            false => Field::Number(input.number("a field of an activity")?),
            true => Field::Text(input.text("a field of an activity")?),
        })
    })
}

fn write_fields<W: Write>(out: &mut WireWriter<W>, fields: &[Field]) -> Result<()> {
    write_list(out, fields.iter(), |out, field| match field {
        Field::Number(number) => {
            out.number(0)?;
            out.number(*number)
        }
        Field::Text(text) => {
            out.number(1)?;
            out.string(text)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_known_are_kept_and_never_twins() {
        assert_eq!(Level::from_number(99).number(), 99);
        assert_eq!(ActivityType::from_number(105), ActivityType::Build);
        assert_eq!(ResultType::Other(101), ResultType::BuildLogLine);
        assert!(Level::Error < Level::Vomit && Level::Vomit < Level::Other(8));
    }
}
