// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be asked to be built: objects, and outputs of derivations.

use std::io::{Read, Write};

use superpose_store_path::{Name, StorePath};

use crate::codec::{WireReader, WireWriter, bad_value};
use crate::dialect::Dialect;
use crate::error::{Error, Result};

const WHAT: &str = "a derived path";

/// How deeply derivations may be outputs of derivations. Real ones are one or two deep; without a bound a text of
/// nothing but `!` would decide the depth of the stack.
const MAX_NESTING: usize = 16;

/// Most outputs that one target may name. Real derivations have a handful; a text of nothing but commas and letters would else
/// become half a million names.
const MAX_OUTPUTS: usize = 1024;

/// What can be asked to be built or substituted. On the wire a text: a store path, or `<derivation>!<outputs>`, which
/// splits at the last `!`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DerivedPath {
    /// An object as it is. Of a derivation that is the file, not its outputs.
    Opaque(StorePath),
    /// Outputs of a derivation.
    Built {
        /// The derivation.
        drv: SingleDerivedPath,
        /// Which of its outputs.
        outputs: OutputsSpec,
    },
}

/// One object: as it is, or as an output of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SingleDerivedPath {
    /// An object as it is.
    Opaque(StorePath),
    /// An output of a derivation, which may be an output itself (Nix's experimental dynamic derivations).
    Built {
        /// The derivation.
        drv: Box<SingleDerivedPath>,
        /// The name of the output.
        output: Name,
    },
}

/// Which outputs of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputsSpec {
    /// All of them: `*`.
    All,
    /// Those of these names. They stay in the order in which they came, as a reply has to repeat the text of the
    /// request.
    Names(Vec<Name>),
}

impl DerivedPath {
    /// Parses the text of 1.30 and later.
    ///
    /// # Errors
    /// If a path is not one of the dialect's store directory, an output's name is not one, the nesting is too deep, or it
    /// names more than 1024 outputs.
    pub fn parse(text: &[u8], dialect: &Dialect) -> Result<Self> {
        let Some((drv, outputs)) = split(text) else {
            return Ok(Self::Opaque(parse_path(text, dialect)?));
        };
        Ok(Self::Built {
            drv: SingleDerivedPath::parse(drv, dialect)?,
            outputs: OutputsSpec::parse(outputs)?,
        })
    }

    /// Writes the text of 1.30 and later.
    #[must_use]
    pub fn render(&self, dialect: &Dialect) -> String {
        let mut text = String::new();
        match self {
            Self::Opaque(path) => dialect.store_dir.push(path, &mut text),
            Self::Built { drv, outputs } => {
                drv.push(dialect, &mut text);
                text.push('!');
                outputs.push(&mut text);
            }
        }
        text
    }

    /// Finds what cannot be written, before anything is.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<()> {
        let problem = match self {
            Self::Built {
                outputs: OutputsSpec::Names(names),
                ..
            } if names.is_empty() => "it names no output",
            _ if dialect.since(30) => return Ok(()),
            Self::Opaque(path) if path.is_derivation() => {
                "before version 1.30 the path of a derivation means its outputs"
            }
            Self::Built {
                drv: SingleDerivedPath::Built { .. },
                ..
            } => "outputs of outputs need version 1.30",
            Self::Built {
                drv: SingleDerivedPath::Opaque(path),
                outputs: OutputsSpec::All,
            } if !path.is_derivation() => "before version 1.30 the path of an object means the object",
            _ => return Ok(()),
        };
        Err(Error::NotExpressible { what: WHAT, problem })
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        let path = Self::parse(&input.text(WHAT)?, dialect)?;
        Ok(match path {
            Self::Opaque(path) if !dialect.since(30) && path.is_derivation() => Self::Built {
                drv: SingleDerivedPath::Opaque(path),
                outputs: OutputsSpec::All,
            },
            path => path,
        })
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        match self {
            Self::Built {
                drv: SingleDerivedPath::Opaque(path),
                outputs: OutputsSpec::All,
            } if !dialect.since(30) => out.store_path(path, &dialect.store_dir),
            _ => out.string(self.render(dialect).as_bytes()),
        }
    }
}

impl SingleDerivedPath {
    /// Parses the text: a store path, or `<derivation>!<output>`.
    ///
    /// # Errors
    /// As [`DerivedPath::parse`].
    pub fn parse(text: &[u8], dialect: &Dialect) -> Result<Self> {
        let mut parts = text.split(|&byte| byte == b'!');
        let mut path = Self::Opaque(parse_path(parts.next().unwrap_or_default(), dialect)?);
        for (depth, output) in parts.enumerate() {
            if depth == MAX_NESTING {
                return Err(bad_value(WHAT, "at most 16 outputs of outputs", text));
            }
            path = Self::Built {
                drv: Box::new(path),
                output: parse_output(output)?,
            };
        }
        Ok(path)
    }

    /// Writes the text.
    #[must_use]
    pub fn render(&self, dialect: &Dialect) -> String {
        let mut text = String::new();
        self.push(dialect, &mut text);
        text
    }

    fn push(&self, dialect: &Dialect, text: &mut String) {
        match self {
            Self::Opaque(path) => dialect.store_dir.push(path, text),
            Self::Built { drv, output } => {
                drv.push(dialect, text);
                text.push('!');
                text.push_str(output.as_str());
            }
        }
    }

    pub(crate) fn read<R: Read>(input: &mut WireReader<R>, dialect: &Dialect) -> Result<Self> {
        Self::parse(&input.text(WHAT)?, dialect)
    }

    pub(crate) fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
        out.string(self.render(dialect).as_bytes())
    }
}

impl OutputsSpec {
    fn parse(text: &[u8]) -> Result<Self> {
        if text == b"*" {
            return Ok(Self::All);
        }
        let found = 1 + text.iter().filter(|&&byte| byte == b',').count();
        if found > MAX_OUTPUTS {
            return Err(Error::TooLong {
                what: "the list of outputs",
                limit: MAX_OUTPUTS as u64,
                found: found as u64,
            });
        }
        let names: Result<_> = text.split(|&byte| byte == b',').map(parse_output).collect();
        names.map(Self::Names)
    }

    fn push(&self, text: &mut String) {
        match self {
            Self::All => text.push('*'),
            Self::Names(names) => {
                for (at, name) in names.iter().enumerate() {
                    if at > 0 {
                        text.push(',');
                    }
                    text.push_str(name.as_str());
                }
            }
        }
    }
}

/// Splits at the last `!`.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|&byte| byte == b'!')?;
    Some((&text[..at], &text[at + 1..]))
}

fn parse_path(text: &[u8], dialect: &Dialect) -> Result<StorePath> {
    dialect
        .store_dir
        .parse_path(text)
        .map_err(|source| Error::Malformed { what: WHAT, source })
}

fn parse_output(text: &[u8]) -> Result<Name> {
    Name::new(text).map_err(|source| Error::Malformed {
        what: "the name of an output",
        source,
    })
}
