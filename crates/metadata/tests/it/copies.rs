// SPDX-License-Identifier: MIT OR Apache-2.0
//! When another source is asked for what is copied, and what becomes of its answers.

use std::cell::Cell;

use superpose_metadata::{
    Closure, Error, MemorySource, MetadataSource, Outputs, PathInfo, Prune, Realisation, RealisationKey,
    Visit,
};
use superpose_store_path::{HashPart, StoreDir, StorePath};

use crate::fixture::{DRV, State, sample, sample_in_memory, store_path};

/// A source that looks, when it is asked, whether a database could be written.
struct Watching<'a> {
    inner: MemorySource,
    state: &'a State,
    was_free: Cell<Option<bool>>,
}

impl MetadataSource for Watching<'_> {
    fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>, Error> {
        let begun = self.state.raw().execute_batch("BEGIN IMMEDIATE; ROLLBACK");
        self.was_free.set(Some(begun.is_ok()));
        self.inner.derivation_outputs(derivations)
    }

    fn store_dir(&self) -> &StoreDir {
        self.inner.store_dir()
    }

    fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>, Error> {
        self.inner.are_valid(paths)
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>, Error> {
        self.inner.path_infos(paths)
    }

    fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>, Error> {
        self.inner.closure(roots, direction)
    }

    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>, Error> {
        self.inner.closure_infos(roots, prune)
    }

    fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>, Error> {
        self.inner.referrers(paths)
    }

    fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>, Error> {
        self.inner.valid_derivers(paths)
    }

    fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>, Error> {
        self.inner.path_from_hash_part(parts)
    }

    fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>, Error> {
        self.inner.realisations(keys)
    }

    fn realisations_of(&self, outputs: &[StorePath]) -> Result<Vec<Realisation>, Error> {
        self.inner.realisations_of(outputs)
    }

    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<(), Error> {
        self.inner.for_each_valid_path(visit)
    }

    fn count(&self) -> Result<u64, Error> {
        self.inner.count()
    }
}

#[test]
fn others_may_write_while_a_source_is_asked() {
    let state = State::empty();
    let mut database = state.read_write();
    let source = Watching {
        inner: sample_in_memory(),
        state: &state,
        was_free: Cell::new(None),
    };
    database.copy_in(&sample(), &source).unwrap();
    assert_eq!(source.was_free.get(), Some(true));
    assert_eq!(
        database.derivation_outputs(&[store_path(DRV)]).unwrap()[0]
            .as_ref()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_derivation_that_the_source_lost_is_not_copied() {
    let state = State::empty();
    let mut database = state.read_write();
    let source = MemorySource::new(StoreDir::default());
    let error = database.copy_in(&sample(), &source).unwrap_err();
    assert!(matches!(error, Error::NotValid { .. }), "{error}");
    assert!(error.to_string().contains(DRV), "{error}");
    let mut transaction = database.begin().unwrap();
    let error = transaction.copy_in(&sample(), &source).unwrap_err();
    assert!(matches!(error, Error::NotValid { .. }), "{error}");
    drop(transaction);
    assert_eq!(database.count().unwrap(), 0);
}
