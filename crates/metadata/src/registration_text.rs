// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text in which Nix writes down which paths are valid: `nix-store --dump-db`, `--load-db`, `--register-validity`.
//!
//! For each path, one item per line: the full path; the hash of its archive (SHA-256, hexadecimal, without prefix); the
//! size of the archive; the deriver, or an empty line; the number of references; the references. Where the archives are
//! to be hashed by the reader, the lines of hash and size are absent. Signatures, content addresses and times are not
//! part of the text.

use superpose_store_path::{Hash, HashAlgorithm, HashEncoding, StoreDir, StorePath};

use crate::{Error, PathInfo, Result};

/// What the text says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The object.
    pub path: StorePath,
    /// Hash and size of its archive, where the text gives them.
    pub archive: Option<(Hash, u64)>,
    /// The derivation that it was built from.
    pub deriver: Option<StorePath>,
    /// The objects it refers to: sorted, each once.
    pub references: Vec<StorePath>,
}

/// Whether a text says what the archives are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveLines {
    /// Each path is followed by the hash and the size of its archive.
    Given,
    /// It is not: whoever reads the text hashes the objects.
    Absent,
}

impl From<&PathInfo> for Registration {
    fn from(info: &PathInfo) -> Self {
        Self {
            path: info.path.clone(),
            archive: Some((info.nar_hash, info.nar_size)),
            deriver: info.deriver.clone(),
            references: info.references.clone(),
        }
    }
}

impl Registration {
    /// Appends the lines of the path.
    pub fn render(&self, store_dir: &StoreDir, text: &mut String) {
        let path_line = |path: Option<&StorePath>, text: &mut String| {
            if let Some(path) = path {
                store_dir.push(path, text);
            }
            text.push('\n');
        };
        path_line(Some(&self.path), text);
        if let Some((hash, size)) = &self.archive {
            text.push_str(&hash.render_bare(HashEncoding::Base16));
            text.push_str(&format!("\n{size}\n"));
        }
        path_line(self.deriver.as_ref(), text);
        text.push_str(&format!("{}\n", self.references.len()));
        for reference in &self.references {
            path_line(Some(reference), text);
        }
    }
}

/// Parses a text: gives one registration after the other, or the first error and then nothing more.
///
/// What a text says is taken as it is: whether it is true of any store is for others to find out.
///
/// # Deviation
/// A last line without its newline is an error; Nix leaves it out. Where a path is missing, Nix ends with a failed
/// assertion.
#[derive(Debug)]
pub struct RegistrationText<'a> {
    rest: &'a [u8],
    /// How many lines have been read.
    line: u64,
    store_dir: &'a StoreDir,
    archives: ArchiveLines,
}

impl<'a> RegistrationText<'a> {
    /// Prepares to parse a text about paths of the given store directory.
    #[must_use]
    pub const fn new(text: &'a [u8], store_dir: &'a StoreDir, archives: ArchiveLines) -> Self {
        Self {
            rest: text,
            line: 0,
            store_dir,
            archives,
        }
    }

    fn registration(&mut self) -> Result<Registration> {
        let path = self.path()?;
        let archive = match self.archives {
            ArchiveLines::Given => Some((self.hash()?, self.number("the size of the archive")?)),
            ArchiveLines::Absent => None,
        };
        let deriver = match self.next_line("the deriver, or an empty line")? {
            b"" => None,
            text => Some(self.parsed_path(text)?),
        };
        let count = self.number("the number of references")?;
        let mut references = Vec::new();
        // Not reserved for: the text may claim any number.
        for _ in 0..count {
            references.push(self.path()?);
        }
        references.sort_unstable();
        references.dedup();
        Ok(Registration {
            path,
            archive,
            deriver,
            references,
        })
    }

    fn path(&mut self) -> Result<StorePath> {
        let text = self.next_line("a store path")?;
        self.parsed_path(text)
    }

    fn parsed_path(&self, text: &[u8]) -> Result<StorePath> {
        let parsed = self.store_dir.parse_path(text);
        parsed.map_err(|source| self.fail("a store path", text, Some(source)))
    }

    fn hash(&mut self) -> Result<Hash> {
        const EXPECTED: &str = "the SHA-256 of the archive";
        let text = self.next_line(EXPECTED)?;
        // With a prefix of its own, or without one.
        let hash = Hash::parse_unprefixed(text, HashAlgorithm::Sha256).or_else(|error| {
            Hash::parse(text)
                .ok()
                .filter(|hash| hash.algorithm() == HashAlgorithm::Sha256)
                .ok_or(error)
        });
        hash.map_err(|source| self.fail(EXPECTED, text, Some(source)))
    }

    fn number(&mut self, expected: &'static str) -> Result<u64> {
        let text = self.next_line(expected)?;
        // `parse` alone would take a sign.
        let digits = str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
        let number = digits.and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.fail(expected, text, None))
    }

    /// Takes the next line, without its newline.
    fn next_line(&mut self, expected: &'static str) -> Result<&'a [u8]> {
        self.line += 1;
        match self.rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                let line = &self.rest[..end];
                self.rest = &self.rest[end + 1..];
                Ok(line)
            }
            None => Err(Error::RegistrationTextEnds {
                line: self.line,
                expected,
            }),
        }
    }

    fn fail(
        &self,
        expected: &'static str,
        found: &[u8],
        source: Option<superpose_store_path::Error>,
    ) -> Error {
        /// As much of a line as a message can do with.
        const SHOWN: usize = 80;
        Error::RegistrationText {
            line: self.line,
            expected,
            found: found[..found.len().min(SHOWN)].escape_ascii().to_string(),
            source: source.map(Box::new),
        }
    }
}

impl Iterator for RegistrationText<'_> {
    type Item = Result<Registration>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.registration();
        if next.is_err() {
            self.rest = &[];
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use superpose_store_path::{HashPart, Name};

    use super::*;

    const TEXT: &str = "/nix/store/6kvk9qxdxinblqkx059z9822clggmk4i-d\n\
        62b54b6558514adc9c321a139c78e386f47e39bed1cc3ba5c0da270fbefbaaae\n456\n\n1\n\
        /nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt\n";

    fn parse(text: &[u8], archives: ArchiveLines) -> Result<Vec<Registration>> {
        RegistrationText::new(text, &StoreDir::default(), archives).collect()
    }

    fn rendered(registrations: &[Registration]) -> String {
        let mut text = String::new();
        for registration in registrations {
            registration.render(&StoreDir::default(), &mut text);
        }
        text
    }

    #[test]
    fn what_nix_writes_is_read_and_written_again() {
        let found = parse(TEXT.as_bytes(), ArchiveLines::Given).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].archive.unwrap().1, &found[0].deriver), (456, &None));
        assert_eq!(rendered(&found), TEXT);
        assert_eq!(parse(b"", ArchiveLines::Given).unwrap(), []);
    }

    #[test]
    fn every_form_of_the_hash_is_read() {
        for form in [
            "sha256:62b54b6558514adc9c321a139c78e386f47e39bed1cc3ba5c0da270fbefbaaae",
            "sha256-YrVLZVhRStycMhoTnHjjhvR+Ob7RzDulwNonD777qq4=",
            "YrVLZVhRStycMhoTnHjjhvR+Ob7RzDulwNonD777qq4=",
        ] {
            let text = TEXT.replace(
                "62b54b6558514adc9c321a139c78e386f47e39bed1cc3ba5c0da270fbefbaaae",
                form,
            );
            assert_eq!(
                rendered(&parse(text.as_bytes(), ArchiveLines::Given).unwrap()),
                TEXT,
                "{form}"
            );
        }
    }

    #[test]
    fn errors_name_the_line_and_what_belongs_there() {
        let check = |text: &str, expected: &str| {
            let error = parse(text.as_bytes(), ArchiveLines::Given).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        let lines: Vec<&str> = TEXT.lines().collect();
        let with = |line: usize, text: &str| {
            let mut lines = lines.clone();
            lines[line - 1] = text;
            lines.join("\n") + "\n"
        };
        check("rubbish\n", "line 1");
        check(&with(1, ""), "line 1: expected a store path, found ``");
        check(
            &with(2, "abc"),
            "line 2: expected the SHA-256 of the archive, found `abc`",
        );
        for size in ["", " 5", "5x", "-1", "+5", "99999999999999999999"] {
            check(&with(3, size), "line 3: expected the size of the archive");
        }
        check(&with(4, "x"), "line 4");
        for count in ["-1", "", "x"] {
            check(&with(5, count), "line 5: expected the number of references");
        }
        check(&with(5, "2"), "ends in line 7: expected a store path");
        check(&with(5, "18446744073709551615"), "ends in line 7");
        check(&(TEXT.to_owned() + "\n"), "line 7");
    }

    #[test]
    fn a_text_that_is_cut_anywhere_is_an_error() {
        for end in 1..TEXT.len() {
            assert!(
                parse(&TEXT.as_bytes()[..end], ArchiveLines::Given).is_err(),
                "{end}"
            );
        }
    }

    fn paths() -> impl Strategy<Value = StorePath> {
        (any::<[u8; 20]>(), "[a-z][a-z0-9.-]{0,20}").prop_map(|(hash, name)| {
            StorePath::from_parts(HashPart::new(hash), &Name::new(name.as_bytes()).unwrap())
        })
    }

    fn registrations(archives: ArchiveLines) -> impl Strategy<Value = Registration> {
        (
            paths(),
            any::<([u8; 32], u64)>(),
            proptest::option::of(paths()),
            proptest::collection::btree_set(paths(), 0..5),
        )
            .prop_map(move |(path, (hash, size), deriver, references)| Registration {
                path,
                archive: (archives == ArchiveLines::Given).then(|| (Hash::sha256(hash), size)),
                deriver,
                references: references.into_iter().collect(),
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            given in proptest::collection::vec(registrations(ArchiveLines::Given), 0..5),
            absent in proptest::collection::vec(registrations(ArchiveLines::Absent), 0..5),
        ) {
            for (archives, all) in [(ArchiveLines::Given, given), (ArchiveLines::Absent, absent)] {
                prop_assert_eq!(parse(rendered(&all).as_bytes(), archives).unwrap(), all);
            }
        }

        #[test]
        fn no_text_panics(text: Vec<u8>, lines in "([0-9]{0,3}|/nix/store/[a-z0-9]{32}-x|)(\n[0-9]{0,2}){0,8}\n") {
            for text in [&text[..], lines.as_bytes()] {
                for archives in [ArchiveLines::Given, ArchiveLines::Absent] {
                    parse(text, archives).ok();
                }
            }
        }
    }
}
