// SPDX-License-Identifier: MIT OR Apache-2.0
//! A layer and its database side by side, by names alone: nothing is walked into, nothing hashed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::BorrowedFd;
use superpose_metadata::MetadataSource;
use superpose_store_path::StorePath;

use crate::Result;
use crate::listing::{EntryKind, for_each_entry};

/// The names in a layer, read once.
#[derive(Debug, Default)]
pub(crate) struct Entries(HashMap<Vec<u8>, EntryKind>);

impl Entries {
    /// Reads a layer directory; `path` names it in messages. The link farm is left out.
    pub(crate) fn read(directory: BorrowedFd<'_>, path: &Path) -> Result<Self> {
        let mut entries = HashMap::new();
        for_each_entry(directory, path, |name, kind| {
            entries.insert(name.to_vec(), kind);
            Ok(())
        })?;
        Ok(Entries(entries))
    }

    /// What the name of an object stands for.
    pub(crate) fn of(&self, object: &StorePath) -> Option<EntryKind> {
        self.0.get(object.base_name().as_bytes()).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsStr, EntryKind)> {
        self.0.iter().map(|(name, kind)| (OsStr::from_bytes(name), *kind))
    }
}

/// What a layer holds beside its objects, and what its database knows and the layer lacks. All lists are sorted.
///
/// It is the quick part of a verification: names, and what the databases say of them. For a local store the layer is
/// the whole store directory, and nothing is below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// How many paths the database knows.
    pub rows: u64,
    /// How many of them have no object in the layer: their rows are copies from below.
    pub copied: u64,
    /// Known paths whose object is nowhere: neither in the layer, nor valid below.
    pub nowhere: Vec<StorePath>,
    /// Objects of the layer that the database does not know: being added, or garbage.
    pub unregistered: Vec<StorePath>,
    /// Names that are no store paths.
    pub foreign: Vec<OsString>,
    /// Whiteouts over objects that are valid below: these are valid, and cannot be seen.
    pub hidden: Vec<StorePath>,
    /// Whiteouts over nothing, or over what nobody knows.
    pub whiteouts: Vec<OsString>,
}

impl Survey {
    /// Compares what is known with what is there. Costs what the layer and its database hold, whatever is below.
    pub(crate) fn of(
        entries: &Entries,
        upper: &dyn MetadataSource,
        lower: Option<&dyn MetadataSource>,
    ) -> Result<Self> {
        let mut survey = Survey::default();
        let mut copied = Vec::new();
        upper.for_each_valid_path(&mut |path| {
            survey.rows += 1;
            if matches!(entries.of(&path), None | Some(EntryKind::Whiteout)) {
                copied.push(path);
            }
            Ok(())
        })?;
        let (mut named, mut whiteouts) = (Vec::new(), Vec::new());
        for (name, kind) in entries.iter() {
            match (StorePath::from_base_name(name.as_bytes()), kind) {
                (Ok(path), EntryKind::Whiteout) => whiteouts.push(path),
                (Ok(path), _) => named.push(path),
                (Err(_), EntryKind::Whiteout) => survey.whiteouts.push(name.to_owned()),
                (Err(_), _) => survey.foreign.push(name.to_owned()),
            }
        }
        let known = upper.are_valid(&named)?;
        let valid_below = |paths: &[StorePath]| match lower {
            Some(lower) => lower.are_valid(paths),
            None => Ok(vec![false; paths.len()]),
        };
        survey.unregistered = without(named, &known);
        survey.copied = if lower.is_some() { copied.len() as u64 } else { 0 };
        let below = valid_below(&copied)?;
        survey.nowhere = without(copied, &below);
        for (path, below) in whiteouts.iter().zip(valid_below(&whiteouts)?) {
            if below {
                survey.hidden.push(path.clone());
            } else {
                survey.whiteouts.push(path.base_name().into());
            }
        }
        survey.nowhere.sort_unstable();
        survey.unregistered.sort_unstable();
        survey.foreign.sort_unstable();
        survey.hidden.sort_unstable();
        survey.whiteouts.sort_unstable();
        Ok(survey)
    }
}

/// Those of `paths` of which the answer is no.
fn without(paths: Vec<StorePath>, answers: &[bool]) -> Vec<StorePath> {
    let left = paths.into_iter().zip(answers).filter(|(_, answer)| !**answer);
    left.map(|(path, _)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use superpose_metadata::{MemorySource, PathInfo};
    use superpose_store_path::{Hash, StoreDir};

    fn path(letter: char) -> StorePath {
        StorePath::from_base_name(format!("{}-x", letter.to_string().repeat(32)).as_bytes()).unwrap()
    }

    fn knowing(letters: &str) -> MemorySource {
        let mut source = MemorySource::new(StoreDir::default());
        for letter in letters.chars() {
            source.insert(PathInfo::new(path(letter), Hash::sha256([1; 32]), 1));
        }
        source
    }

    fn entries(objects: &str, whiteouts: &str, others: &[(&str, EntryKind)]) -> Entries {
        let of = |letters: &str, kind| {
            let names = letters
                .chars()
                .map(move |letter| (path(letter).base_name().as_bytes().to_vec(), kind));
            names.collect::<Vec<_>>()
        };
        let others = others
            .iter()
            .map(|(name, kind)| (name.as_bytes().to_vec(), *kind));
        let mut all: HashMap<_, _> = others.collect();
        all.extend(of(objects, EntryKind::Directory));
        all.extend(of(whiteouts, EntryKind::Whiteout));
        Entries(all)
    }

    #[test]
    fn layer_and_database_are_compared_in_both_directions() {
        // In the layer: a and b known, c not. Below: d and f. Known and nowhere: g.
        let entries = entries(
            "abc",
            "fh",
            &[("tmp-1-0", EntryKind::Directory), ("gone", EntryKind::Whiteout)],
        );
        let lower = knowing("df");
        let survey = Survey::of(&entries, &knowing("abdfg"), Some(&lower)).unwrap();
        let expected = Survey {
            rows: 5,
            copied: 3,
            nowhere: vec![path('g')],
            unregistered: vec![path('c')],
            foreign: vec!["tmp-1-0".into()],
            hidden: vec![path('f')],
            whiteouts: vec!["gone".into(), path('h').base_name().into()],
        };
        assert_eq!(survey, expected);
    }

    #[test]
    fn of_a_local_store_nothing_is_copied() {
        let survey = Survey::of(&entries("a", "", &[]), &knowing("ab"), None).unwrap();
        assert_eq!(
            (survey.rows, survey.copied, survey.nowhere),
            (2, 0, vec![path('b')])
        );
    }
}
