// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a derivation, read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Derivation, DerivationOutput, MAX_DERIVATION_LEN};
use crate::content_address::{ContentAddress, ContentMethod};
use crate::error::{Error, Result, excerpt};
use crate::hash::{Hash, HashAlgorithm};
use crate::name::{self, Name};
use crate::store_dir::StoreDir;
use crate::store_path::StorePath;

/// How much of a text is shown where something else was expected, in bytes.
const SHOWN: usize = 24;

impl Derivation {
    /// Parses the text of a derivation. `name` is its file's name without hash part and `.drv`.
    ///
    /// # Errors
    /// If the text is longer than [`MAX_DERIVATION_LEN`], does not follow the syntax, or a field is not of
    /// its type.
    ///
    /// # Deviation
    /// Stricter than Nix where Nix never writes such a thing: a key or path twice, store paths that are not
    /// canonical (as Nix 2.36), output names that could not be part of a store path's name, and bytes after
    /// the end are refused. The form of dynamic derivations (`DrvWithVersion`) is refused as well.
    pub fn parse(text: &[u8], dir: &StoreDir, name: &Name) -> Result<Self> {
        if text.len() > MAX_DERIVATION_LEN {
            let subject = format!("derivation `{name}`");
            return Err(Error::TooLarge {
                subject,
                limit: MAX_DERIVATION_LEN,
                unit: "bytes",
            });
        }
        let mut parser = Parser {
            text,
            at: 0,
            dir,
            name,
        };
        let derivation = parser.derivation()?;
        if parser.at == text.len() {
            Ok(derivation)
        } else {
            Err(parser.unexpected("the end"))
        }
    }

    /// Parses the text of the derivation that is stored under `path`.
    ///
    /// # Errors
    /// As [`Derivation::parse`], and if `path` is not the path of a derivation.
    pub fn parse_object(text: &[u8], dir: &StoreDir, path: &StorePath) -> Result<Self> {
        let name = path.derivation_name().ok_or_else(|| Error::Name {
            found: path.name().to_owned(),
            expected: "a derivation's name, which ends with `.drv`",
        })?;
        Self::parse(text, dir, &Name::new(name.as_bytes())?)
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    dir: &'a StoreDir,
    name: &'a Name,
}

impl Parser<'_> {
    fn derivation(&mut self) -> Result<Derivation> {
        if self.text.starts_with(b"DrvWithVersion(") {
            return Err(self.unexpected("`Derive(`, as dynamic derivations are not supported;"));
        }
        self.expect(b"Derive(", "`Derive(`")?;
        let mut outputs = BTreeMap::new();
        self.list(|parser| {
            let (name, output) = parser.output()?;
            parser.insert(&mut outputs, name, output)
        })?;
        self.comma()?;
        let mut input_drvs = BTreeMap::new();
        self.list(|parser| {
            let (path, names) = parser.input_drv()?;
            parser.insert(&mut input_drvs, path, names)
        })?;
        self.comma()?;
        let mut input_srcs = BTreeSet::new();
        self.list(|parser| {
            let path = parser.path()?;
            if input_srcs.insert(path) {
                Ok(())
            } else {
                Err(parser.unexpected("no source twice, before"))
            }
        })?;
        self.comma()?;
        let platform = self.string()?;
        self.comma()?;
        let builder = self.string()?;
        self.comma()?;
        let mut args = Vec::new();
        self.list(|parser| {
            args.push(parser.string()?);
            Ok(())
        })?;
        self.comma()?;
        let mut env = BTreeMap::new();
        self.list(|parser| {
            parser.expect(b"(", "`(`")?;
            let key = parser.string()?;
            parser.comma()?;
            let value = parser.string()?;
            parser.expect(b")", "`)`")?;
            parser.insert(&mut env, key, value)
        })?;
        self.expect(b")", "`)`")?;
        Ok(Derivation {
            name: self.name.clone(),
            outputs,
            input_drvs,
            input_srcs,
            platform,
            builder,
            args,
            env,
        })
    }

    fn output(&mut self) -> Result<(String, DerivationOutput)> {
        self.expect(b"(", "`(`")?;
        let name = self.output_name()?;
        self.comma()?;
        let path = self.string()?;
        self.comma()?;
        let kind = self.string()?;
        self.comma()?;
        let hash = self.string()?;
        self.expect(b")", "`)`")?;
        let output = self.output_kind(&path, &kind, &hash)?;
        Ok((name, output))
    }

    /// Tells the kind of an output by which of its three fields are filled.
    fn output_kind(&self, path: &[u8], kind: &[u8], hash: &[u8]) -> Result<DerivationOutput> {
        if kind.is_empty() {
            return match (path, hash) {
                (b"", b"") => Ok(DerivationOutput::Deferred),
                (path, b"") => Ok(DerivationOutput::InputAddressed {
                    path: self.store_path(path)?,
                }),
                _ => Err(self.unexpected("no output hash without an algorithm, before")),
            };
        }
        let (method, algorithm) = ContentMethod::split_prefix(kind);
        let algorithm = HashAlgorithm::parse(algorithm).map_err(|source| self.field(source))?;
        match (path, hash) {
            (b"", b"") => Ok(DerivationOutput::Floating { method, algorithm }),
            (b"", b"impure") => Ok(DerivationOutput::Impure { method, algorithm }),
            (b"", _) | (_, b"" | b"impure") => {
                Err(self.unexpected("a path exactly for outputs with a known hash, before"))
            }
            (path, hash) => {
                let hash = Hash::parse_unprefixed(hash, algorithm).map_err(|source| self.field(source))?;
                let ca = ContentAddress { method, hash };
                Ok(DerivationOutput::Fixed {
                    path: self.store_path(path)?,
                    ca,
                })
            }
        }
    }

    fn input_drv(&mut self) -> Result<(StorePath, BTreeSet<String>)> {
        self.expect(b"(", "`(`")?;
        let path = self.path()?;
        if !path.is_derivation() {
            return Err(self.unexpected("the path of a derivation, before"));
        }
        self.comma()?;
        let mut names = BTreeSet::new();
        self.list(|parser| {
            let name = parser.output_name()?;
            if names.insert(name) {
                Ok(())
            } else {
                Err(parser.unexpected("no output name twice, before"))
            }
        })?;
        self.expect(b")", "`)`")?;
        Ok((path, names))
    }

    fn output_name(&mut self) -> Result<String> {
        let text = self.string()?;
        match name::check(&text) {
            Ok(name) => Ok(name.to_owned()),
            Err(source) => Err(self.field(source)),
        }
    }

    fn path(&mut self) -> Result<StorePath> {
        let text = self.string()?;
        self.store_path(&text)
    }

    fn store_path(&self, text: &[u8]) -> Result<StorePath> {
        let path = self.dir.parse_path(text).map_err(|source| self.field(source))?;
        if text.len() == self.dir.as_str().len() + 1 + path.base_name().len() {
            Ok(path)
        } else {
            Err(self.unexpected("a store path in canonical form, before"))
        }
    }

    fn insert<K: Ord, V>(&self, map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<()> {
        match map.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
            Entry::Occupied(_) => Err(self.unexpected("no key twice, before")),
        }
    }

    /// Parses `[`, elements separated by commas, `]`.
    fn list(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b"[", "`[`")?;
        if self.skip(b"]") {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.skip(b"]") {
                return Ok(());
            }
            self.expect(b",", "`,` or `]`")?;
        }
    }

    fn comma(&mut self) -> Result<()> {
        self.expect(b",", "`,`")
    }

    /// Parses a quoted string and resolves its escapes.
    fn string(&mut self) -> Result<Vec<u8>> {
        self.expect(b"\"", "`\"`")?;
        let mut value = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(plain) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                self.at = self.text.len();
                return Err(self.unexpected("the `\"` that ends a string"));
            };
            value.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(value);
            }
            let Some(&escaped) = rest.get(plain + 1) else {
                return Err(self.unexpected("a character after `\\`"));
            };
            self.at += 1;
            value.push(match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            });
        }
    }

    fn skip(&mut self, token: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &[u8], expected: &'static str) -> Result<()> {
        if self.skip(token) {
            Ok(())
        } else {
            Err(self.unexpected(expected))
        }
    }

    fn unexpected(&self, expected: &'static str) -> Error {
        let rest = &self.text[self.at.min(self.text.len())..];
        let found = excerpt(&rest[..rest.len().min(SHOWN)]);
        Error::DerivationSyntax {
            name: self.name.to_string(),
            offset: self.at,
            expected,
            found,
        }
    }

    fn field(&self, source: Error) -> Error {
        Error::DerivationField {
            name: self.name.to_string(),
            offset: self.at,
            source: Box::new(source),
        }
    }
}
