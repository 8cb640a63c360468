// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalidation and signatures.

use superpose_metadata::{ArchiveInfo, Closure, Error, MetadataSource, PathInfo};
use superpose_store_path::{Hash, HashAlgorithm, Signature, StorePath};

use crate::fixture::{DRV, State, info, path, read_sample, signature, store_path};

#[test]
fn paths_go_with_their_referrers_or_not_at_all() {
    let state = State::with_sample();
    let mut database = state.read_write();
    let error = database
        .invalidate(&[path("lone"), path("base"), path("lib")])
        .unwrap_err();
    let Error::StillReferenced {
        path: of,
        referrer,
        more,
    } = error
    else {
        panic!("{error}")
    };
    assert!(
        of.ends_with("-lib") && referrer.ends_with("-app")
            || of.ends_with("-base") && referrer.ends_with("-self")
    );
    assert_eq!((more, database.count().unwrap()), (0, 6));

    // In whatever order they are named.
    let closure = database.closure(&[path("base")], Closure::Referrers).unwrap();
    let reversed: Vec<StorePath> = closure.into_iter().rev().collect();
    assert_eq!(database.invalidate(&reversed).unwrap(), 4);
    assert_eq!(database.count().unwrap(), 2);
    assert_eq!(
        database.invalidate(&reversed).unwrap(),
        0,
        "what is not valid is no matter"
    );
    assert_eq!(database.invalidate(&[]).unwrap(), 0);
    assert_eq!(database.invalidate(&[store_path(DRV)]).unwrap(), 1);
    let outputs: i64 = state
        .raw()
        .query_row("SELECT count(*) FROM DerivationOutputs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(outputs, 0);
}

#[test]
fn the_error_counts_referrers() {
    let state = State::with_sample();
    let mut database = state.read_write();
    database
        .register(
            &[info("other", &["base"]), info("another", &["base"])],
            &mut read_sample,
        )
        .unwrap();
    let error = database.invalidate(&[path("base")]).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(" and 3 more; remove the referrers with it"),
        "{error}"
    );
}

#[test]
fn signatures_are_added_to_those_there_are() {
    let state = State::with_sample();
    let mut database = state.read_write();
    let check = |database: &mut superpose_metadata::Database, add: &[Signature], expected: &[Signature]| {
        database.add_signatures(&path("app"), add).unwrap();
        assert_eq!(
            database.path_infos(&[path("app")]).unwrap()[0]
                .as_ref()
                .unwrap()
                .signatures,
            expected
        );
    };
    let (cache, mine, other) = (
        signature("cache.example-1"),
        signature("mine-1"),
        signature("other-1"),
    );
    check(&mut database, &[], &[cache.clone(), other.clone()]);
    check(
        &mut database,
        &[mine.clone(), cache.clone()],
        &[cache, mine.clone(), other],
    );
    let error = database.add_signatures(&path("unknown"), &[mine]).unwrap_err();
    assert!(matches!(error, Error::NotValid { .. }));
    database.add_signatures(&path("base"), &[]).unwrap();
    let empty: i64 = state
        .raw()
        .query_row("SELECT count(*) FROM ValidPaths WHERE sigs = ''", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(empty, 0, "none at all are null");
}

#[test]
fn an_archive_is_replaced_and_nothing_else() {
    let state = State::with_sample();
    let mut database = state.read_write();
    let before = database.path_infos(&[path("app")]).unwrap().remove(0).unwrap();
    let archive = ArchiveInfo {
        hash: Hash::sha256([7; 32]),
        size: 12,
    };
    let mut transaction = database.begin().unwrap();
    transaction.set_archive(&path("app"), &archive).unwrap();
    transaction.commit().unwrap();
    let after = database.path_infos(&[path("app")]).unwrap().remove(0).unwrap();
    let expected = PathInfo {
        nar_hash: archive.hash,
        nar_size: archive.size,
        ..before
    };
    assert_eq!(after, expected);

    let mut transaction = database.begin().unwrap();
    let error = transaction.set_archive(&path("unknown"), &archive).unwrap_err();
    assert!(matches!(error, Error::NotValid { .. }), "{error}");
    let sha512 = ArchiveInfo {
        hash: Hash::new(HashAlgorithm::Sha512, &[1; 64]).unwrap(),
        size: 12,
    };
    let error = transaction.set_archive(&path("app"), &sha512).unwrap_err();
    assert!(matches!(error, Error::NarHashAlgorithm { .. }), "{error}");
}
