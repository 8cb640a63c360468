// SPDX-License-Identifier: MIT OR Apache-2.0
//! `SetOptions`: what a client wants of its connection.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use crate::codec::{WireReader, WireWriter, read_map, write_map};
use crate::error::Result;
use crate::frame::Level;

/// What a client wants of its connection. Only a trusted client may override any setting.
///
/// Fields of the wire that mean nothing any more (a use of build hooks, a log type, a trace) are written as stock clients
/// do, and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Whether the directory of a failed build is kept.
    pub keep_failed: bool,
    /// Whether other builds go on after one failed.
    pub keep_going: bool,
    /// Whether to build what cannot be substituted after all.
    pub try_fallback: bool,
    /// How much the server is to say.
    pub verbosity: Level,
    /// How many builds may run at once.
    pub max_build_jobs: u64,
    /// After how many seconds of silence a build is ended; 0 is never.
    pub max_silent_time: u64,
    /// Whether the output of builders is wanted. On the wire it is a level: 0 is yes.
    pub verbose_build: bool,
    /// How many cores a build may use; 0 is all.
    pub build_cores: u64,
    /// Whether to substitute.
    pub use_substitutes: bool,
    /// Other settings, by their names. A server ignores names that it does not know.
    pub overrides: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for ClientOptions {
    /// Returns what `nix-store` sends without configuration, on a machine where cores are automatic.
    fn default() -> Self {
        Self {
            keep_failed: false,
            keep_going: false,
            try_fallback: false,
            verbosity: Level::Info,
            max_build_jobs: 1,
            max_silent_time: 0,
            verbose_build: true,
            build_cores: 0,
            use_substitutes: true,
            overrides: BTreeMap::new(),
        }
    }
}

impl ClientOptions {
    pub(crate) fn read<R: Read>(input: &mut WireReader<R>) -> Result<Self> {
        const OBSOLETE: &str = "an obsolete field of SetOptions";
        let keep_failed = input.flag("the wish to keep failed builds")?;
        let keep_going = input.flag("the wish to keep going")?;
        let try_fallback = input.flag("the wish to fall back")?;
        let verbosity = Level::from_number(input.number("the verbosity")?);
        let max_build_jobs = input.number("the number of jobs")?;
        let max_silent_time = input.number("the longest silence")?;
        input.number(OBSOLETE)?;
        let verbose_build = input.number("the level of build output")? == 0;
        input.number(OBSOLETE)?;
        input.number(OBSOLETE)?;
        Ok(Self {
            keep_failed,
            keep_going,
            try_fallback,
            verbosity,
            max_build_jobs,
            max_silent_time,
            verbose_build,
            build_cores: input.number("the number of cores")?,
            use_substitutes: input.flag("the wish to substitute")?,
            overrides: read_map(input, "the overridden settings", |input| {
                Ok((
                    input.word("the name of a setting")?.to_vec(),
                    input.text("a setting")?,
                ))
            })?,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>) -> Result<()> {
        /// What stock clients send in the field of build hooks.
        const USE_BUILD_HOOK: u64 = 1;
        out.flag(self.keep_failed)?;
        out.flag(self.keep_going)?;
        out.flag(self.try_fallback)?;
        out.number(self.verbosity.number())?;
        out.number(self.max_build_jobs)?;
        out.number(self.max_silent_time)?;
        out.number(USE_BUILD_HOOK)?;
        let level = if self.verbose_build {
            Level::Error
        } else {
            Level::Vomit
        };
        out.number(level.number())?;
        out.number(0)?;
        out.number(0)?;
        out.number(self.build_cores)?;
        out.flag(self.use_substitutes)?;
        write_map(out, &self.overrides, |out, name, value| {
            out.string(name)?;
            out.string(value)
        })
    }
}
