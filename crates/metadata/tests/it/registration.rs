// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registration and copies: what is written, what is overwritten, what is refused.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::Value;
use superpose_metadata::{Error, MemorySource, MetadataSource, PathInfo};
use superpose_store_path::{ContentAddress, Hash, HashAlgorithm, StoreDir, hash_bytes};

use crate::fixture::{
    ADDRESS, ADDRESSED, DRV, DRV_OUTPUT, DRV_TEXT, State, chain, info, path, read_sample, sample,
    sample_in_memory, signature, store_path,
};

fn rows(state: &State, statement: &str) -> Vec<Vec<Value>> {
    let raw = state.raw();
    let mut statement = raw.prepare(statement).unwrap();
    let columns = statement.column_count();
    let rows = statement
        .query_map([], |row| (0..columns).map(|index| row.get(index)).collect())
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn columns_are_written_as_nix_writes_them() {
    let state = State::empty();
    let mut database = state.read_write();
    let stats = database.register(&sample(), &mut read_sample).unwrap();
    assert_eq!((stats.added, stats.updated, stats.references), (6, 0, 5));
    let columns = "SELECT hash, registrationTime, deriver, narSize, ultimate, sigs, ca FROM ValidPaths";
    let app = rows(&state, &format!("{columns} WHERE path LIKE '%-app'"));
    assert_eq!(
        app,
        [vec![
            text("sha256:0303030303030303030303030303030303030303030303030303030303030303"),
            Value::Integer(1_700_000_000),
            text(&format!("/nix/store/{DRV}")),
            Value::Integer(103),
            Value::Integer(1),
            text("cache.example-1:aGVsbG8= other-1:aGVsbG8="),
            Value::Null,
        ]]
    );
    let base = rows(&state, &format!("{columns} WHERE path LIKE '%-base'"));
    assert_eq!(
        base[0][2..],
        [Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]
    );
    let addressed = rows(
        &state,
        &format!("SELECT ca FROM ValidPaths WHERE path = '/nix/store/{ADDRESSED}'"),
    );
    assert_eq!(addressed, [[text(ADDRESS)]]);
    let outputs = rows(
        &state,
        "SELECT v.path, o.id, o.path FROM DerivationOutputs o JOIN ValidPaths v ON v.id = drv",
    );
    assert_eq!(
        outputs,
        [[
            text(&format!("/nix/store/{DRV}")),
            text("out"),
            text(&format!("/nix/store/{DRV_OUTPUT}"))
        ]]
    );
    // Ids grow in the order of paths.
    let paths = rows(&state, "SELECT path FROM ValidPaths ORDER BY id");
    let mut sorted = paths.clone();
    sorted.sort_by_key(|row| format!("{row:?}"));
    assert_eq!(paths, sorted);
    for column in ["deriver", "sigs", "ca", "ultimate", "narSize"] {
        assert_eq!(
            rows(
                &state,
                &format!("SELECT 1 FROM ValidPaths WHERE {column} IN ('', 0)")
            )
            .len(),
            0,
            "{column}"
        );
    }
}

#[test]
fn a_path_without_a_time_becomes_valid_now() {
    let state = State::empty();
    let mut database = state.read_write();
    let info = PathInfo::new(path("base"), Hash::sha256([1; 32]), 1);
    database
        .register(std::slice::from_ref(&info), &mut read_sample)
        .unwrap();
    let time = database.path_infos(&[info.path]).unwrap()[0]
        .as_ref()
        .unwrap()
        .registration_time;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(u64::try_from(time).unwrap().abs_diff(now) < 60);
}

#[test]
fn registering_again_overwrites_what_nix_overwrites() {
    let state = State::with_sample();
    let mut database = state.read_write();
    let stats = database
        .register(
            &[PathInfo {
                nar_hash: Hash::sha256([9; 32]),
                nar_size: 9,
                deriver: None,
                registration_time: 9,
                signatures: vec![signature("new-1")],
                references: vec![path("base")],
                ..info("app", &[])
            }],
            &mut read_sample,
        )
        .unwrap();
    assert_eq!((stats.added, stats.updated), (0, 1));
    let app = database.path_infos(&[path("app")]).unwrap()[0].clone().unwrap();
    assert_eq!(
        (app.nar_hash, app.nar_size, app.ultimate),
        (Hash::sha256([9; 32]), 9, false)
    );
    assert_eq!(app.signatures, [signature("new-1")]);
    assert_eq!(
        (app.registration_time, app.deriver),
        (1_700_000_000, Some(store_path(DRV)))
    );
    assert_eq!(app.references.len(), 3, "references are only added");
    // The derivation's file is not read again.
    let drv = PathInfo::new(store_path(DRV), Hash::sha256([8; 32]), 300);
    database
        .register(&[drv], &mut |_| Err("must not be read".into()))
        .unwrap();
    assert_eq!(
        database.derivation_outputs(&[store_path(DRV)]).unwrap()[0]
            .as_ref()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn of_two_infos_for_one_path_the_last_counts() {
    let state = State::empty();
    let mut database = state.read_write();
    let twice = [
        info("base", &[]),
        PathInfo {
            nar_size: 77,
            ..info("base", &[])
        },
    ];
    assert_eq!(database.register(&twice, &mut read_sample).unwrap().added, 1);
    assert_eq!(
        database.path_infos(&[path("base")]).unwrap()[0]
            .as_ref()
            .unwrap()
            .nar_size,
        77
    );
}

/// Registers what must be refused, and checks that nothing of it is left.
fn check_refused(infos: &[PathInfo], expected: &str) {
    let state = State::with_sample();
    let mut database = state.read_write();
    let mut with_good = vec![info("good", &["base"])];
    with_good.extend_from_slice(infos);
    let error = database
        .register(&with_good, &mut |path| match path.name() {
            "broken.drv" => Ok(b"Derive(".to_vec()),
            "wrong.drv" => Ok(DRV_TEXT.replace("plain", "wrong").into()),
            _ => read_sample(path),
        })
        .unwrap_err();
    assert!(chain(&error).contains(expected), "{}", chain(&error));
    assert_eq!(database.count().unwrap(), 6);
    assert_eq!(rows(&state, "SELECT count(*) FROM Refs"), [[Value::Integer(5)]]);
    assert_eq!(rows(&state, "PRAGMA foreign_key_check").len(), 0);
    // The connection goes on working, and refuses the same again.
    assert!(database.register(infos, &mut read_sample).is_err());
    database.register(&with_good[..1], &mut read_sample).unwrap();
}

#[test]
fn what_is_not_right_is_not_registered() {
    check_refused(
        &[info("new", &["missing"])],
        "-missing` is not valid, but `/nix/store/",
    );
    check_refused(
        &[info("x", &["y"]), info("y", &["z"]), info("z", &["x"])],
        "cycle detected in the references of",
    );
    check_refused(
        &[PathInfo {
            nar_hash: hash_bytes(HashAlgorithm::Sha512, b""),
            ..info("new", &[])
        }],
        "-new` is a sha512 hash: expected sha256",
    );
    check_refused(
        &[PathInfo {
            nar_size: u64::MAX,
            ..info("new", &[])
        }],
        "-new` is 18446744073709551615: expected at most 2^63 - 1",
    );
    let address = ContentAddress::parse(ADDRESS.as_bytes()).unwrap();
    check_refused(
        &[PathInfo {
            content_address: Some(address),
            ..info("new", &[])
        }],
        &format!("content address `{ADDRESS}` with the given references does not lead to"),
    );
    check_refused(&[info("gone.drv", &[])], "reading the derivation `/nix/store/");
    check_refused(&[info("broken.drv", &[])], "-broken.drv` is not right: ");
    check_refused(&[info("wrong.drv", &[])], "-wrong.drv` is not right: ");
}

#[test]
fn references_may_come_in_any_order_and_to_itself() {
    let state = State::empty();
    let mut database = state.read_write();
    let infos = [info("a", &["b", "a"]), info("b", &["c", "b"]), info("c", &[])];
    database.register(&infos, &mut read_sample).unwrap();
    let reversed: Vec<PathInfo> = infos.iter().rev().cloned().collect();
    assert_eq!(database.register(&reversed, &mut read_sample).unwrap().updated, 3);
    assert_eq!(
        database
            .closure(&[path("a")], superpose_metadata::Closure::References)
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn copies_keep_everything_and_touch_nothing_that_is_there() {
    let state = State::empty();
    let mut database = state.read_write();
    database
        .register(
            &[PathInfo {
                nar_size: 1,
                ..info("base", &[])
            }],
            &mut read_sample,
        )
        .unwrap();
    let stats = database.copy_in(&sample(), &sample_in_memory()).unwrap();
    assert_eq!((stats.added, stats.references), (5, 5));
    for expected in sample() {
        let found = database.path_infos(std::slice::from_ref(&expected.path)).unwrap()[0]
            .clone()
            .unwrap();
        if expected.path == path("base") {
            assert_eq!(found.nar_size, 1);
        } else {
            assert_eq!(found, expected);
        }
    }
    let outputs = database.derivation_outputs(&[store_path(DRV)]).unwrap();
    assert_eq!(outputs, [Some(vec![("out".to_owned(), store_path(DRV_OUTPUT))])]);
    let stats = database.copy_in(&sample(), &sample_in_memory()).unwrap();
    assert_eq!((stats.added, stats.references), (0, 0));
}

#[test]
fn a_copy_without_its_closure_is_refused_whole() {
    let state = State::empty();
    let mut database = state.read_write();
    let error = database
        .copy_in(&[info("app", &["base"]), info("one", &[])], &sample_in_memory())
        .unwrap_err();
    assert!(matches!(error, Error::ReferenceNotValid { .. }), "{error}");
    assert_eq!(database.count().unwrap(), 0);
}

#[test]
fn copies_and_registrations_share_a_transaction() {
    let state = State::empty();
    let mut database = state.read_write();
    let lower = sample_in_memory();
    let new = info("new", &["app"]);
    let work = |database: &mut superpose_metadata::Database, commit: bool| {
        let mut transaction = database.begin().unwrap();
        transaction
            .copy_in(
                &lower
                    .closure_infos(&[path("app")], &mut |paths| Ok(vec![false; paths.len()]))
                    .unwrap(),
                &lower,
            )
            .unwrap();
        transaction
            .register(std::slice::from_ref(&new), &mut read_sample)
            .unwrap();
        assert_eq!(
            transaction
                .database()
                .are_valid(&[path("new"), path("app")])
                .unwrap(),
            [true, true]
        );
        if commit {
            transaction.commit().unwrap();
        }
    };
    work(&mut database, false);
    assert_eq!(database.count().unwrap(), 0, "dropped, it was never there");
    work(&mut database, true);
    assert_eq!(database.count().unwrap(), 5);
    assert_eq!(state.read_only().count().unwrap(), 5);
}

#[test]
fn foreign_keys_are_enforced_on_every_connection() {
    let state = State::with_sample();
    let mut database = state.read_write();
    database
        .copy_in(&[info("more", &["app"])], &MemorySource::new(StoreDir::default()))
        .unwrap();
    let error = database.copy_in(
        &[info("even-more", &["nowhere"])],
        &MemorySource::new(StoreDir::default()),
    );
    assert!(matches!(error, Err(Error::ReferenceNotValid { .. })));
    // Cascades and the trigger work: they need the keys to be on.
    assert_eq!(
        database
            .invalidate(&[path("more"), path("app"), path("self")])
            .unwrap(),
        3
    );
    assert_eq!(rows(&state, "SELECT count(*) FROM Refs"), [[Value::Integer(1)]]);
    assert_eq!(rows(&state, "PRAGMA foreign_key_check").len(), 0);
}

#[test]
fn a_read_only_database_is_not_written() {
    let state = State::with_sample();
    let mut database = state.read_only();
    let error = database.register(&sample(), &mut read_sample).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }));
    assert!(error.to_string().ends_with("db.sqlite` is open for reading only"));
}

/// As many paths as make registration take its quicker way.
fn many() -> Vec<PathInfo> {
    let name = |number: usize| format!("many-{number}");
    let one = |number: usize| {
        let references: Vec<String> = (number.saturating_sub(8)..number).map(name).collect();
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        let mut info = info(&name(number), &references);
        info.references.sort();
        info
    };
    (0..1000).map(one).collect()
}

#[test]
fn large_batches_keep_the_same_rules() {
    let state = State::with_sample();
    let nothing = MemorySource::new(StoreDir::default());
    let mut database = state.read_write();
    let mut infos = many();
    infos[999].references.push(path("nowhere"));
    for refused in [
        database.copy_in(&infos, &nothing).map(drop),
        database.register(&infos, &mut read_sample).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Error::ReferenceNotValid { ref reference, .. } if reference.ends_with("-nowhere")),
            "{error}"
        );
        assert_eq!(database.count().unwrap(), 6);
    }
    infos[999].references.pop();
    assert_eq!(database.copy_in(&infos, &nothing).unwrap().references, 7964);
    assert_eq!(database.register(&infos, &mut read_sample).unwrap().updated, 1000);
    assert_eq!(rows(&state, "PRAGMA foreign_key_check").len(), 0);
    let found = database
        .closure_infos(&[path("many-999")], &mut |paths| Ok(vec![false; paths.len()]))
        .unwrap();
    assert_eq!(found.len(), 1000);
    let paths: Vec<_> = infos.iter().map(|info| info.path.clone()).collect();
    assert_eq!(
        database
            .path_infos(&paths)
            .unwrap()
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
        infos
    );

    // Afterwards, on the same connection, keys are enforced again: the rows of a path go with it.
    let error = database.invalidate(&paths[..999]).unwrap_err();
    assert!(matches!(error, Error::StillReferenced { .. }), "{error}");
    assert_eq!(
        database
            .invalidate(&[path("many-999"), path("app"), store_path(DRV)])
            .unwrap(),
        3
    );
    assert_eq!(
        rows(&state, "SELECT count(*) FROM DerivationOutputs"),
        [[Value::Integer(0)]]
    );
    let error = database
        .copy_in(&[info("one", &["nowhere"])], &nothing)
        .unwrap_err();
    assert!(matches!(error, Error::ReferenceNotValid { .. }), "{error}");
}
