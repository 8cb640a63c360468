// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of derivations for the tests. Those in `derivations` were written by Nix 2.34.8.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use superpose_store_path::{Derivation, DerivationOutput, ModuloMemo, Name, Result, StoreDir, StorePath};

/// Texts of derivations by path; counts how often each is read.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) texts: BTreeMap<StorePath, Vec<u8>>,
    pub(crate) reads: RefCell<BTreeMap<StorePath, usize>>,
}

pub(crate) type ReadResult = std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;

impl Files {
    /// The derivations written by Nix.
    pub(crate) fn of_nix() -> Self {
        let mut files = Self::default();
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/derivations")).unwrap()
        {
            let entry = entry.unwrap();
            let path = entry.file_name().into_string().unwrap().parse().unwrap();
            files.texts.insert(path, std::fs::read(entry.path()).unwrap());
        }
        assert_eq!(files.texts.len(), 9);
        files
    }

    pub(crate) fn read(&self, path: &StorePath) -> ReadResult {
        *self.reads.borrow_mut().entry(path.clone()).or_default() += 1;
        self.texts.get(path).cloned().ok_or_else(|| "no such file".into())
    }

    pub(crate) fn named(&self, name: &str) -> (StorePath, Derivation) {
        let (path, text) = self.texts.iter().find(|(path, _)| path.name() == name).unwrap();
        (
            path.clone(),
            Derivation::parse_object(text, &StoreDir::default(), path).unwrap(),
        )
    }

    pub(crate) fn check(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        memo: &mut ModuloMemo,
    ) -> Result<()> {
        derivation.check(path, &StoreDir::default(), memo, &mut |path| self.read(path))
    }

    /// Puts a derivation where its text belongs.
    pub(crate) fn add(&mut self, derivation: &Derivation) -> StorePath {
        let path = derivation.path(&StoreDir::default()).unwrap();
        self.texts
            .insert(path.clone(), derivation.render(&StoreDir::default()));
        path
    }
}

/// A derivation with one input-addressed output whose path is right.
pub(crate) fn filled(name: &str, inputs: &[StorePath], files: &Files) -> Derivation {
    let dir = StoreDir::default();
    let out = BTreeSet::from(["out".to_owned()]);
    let mut derivation = Derivation {
        name: Name::new(name.as_bytes()).unwrap(),
        outputs: BTreeMap::from([("out".to_owned(), DerivationOutput::Deferred)]),
        input_drvs: inputs.iter().map(|path| (path.clone(), out.clone())).collect(),
        input_srcs: BTreeSet::new(),
        platform: b"x86_64-linux".to_vec(),
        builder: b"/bin/sh".to_vec(),
        args: vec![],
        env: BTreeMap::from([(b"out".to_vec(), vec![])]),
    };
    let mut memo = ModuloMemo::new();
    let hash = derivation
        .hash_modulo(&dir, &mut memo, &mut |path| files.read(path))
        .unwrap()
        .unwrap();
    let path = dir.output_path(&hash, &derivation.name, "out").unwrap();
    derivation
        .env
        .insert(b"out".to_vec(), dir.join(&path).into_bytes());
    derivation
        .outputs
        .insert("out".to_owned(), DerivationOutput::InputAddressed { path });
    derivation
}
