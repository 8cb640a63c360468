// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows that no Nix writes: values or errors that name path and column, never a panic.

use proptest::prelude::*;
use rusqlite::types::Value;
use superpose_metadata::{Closure, MetadataSource};

use crate::fixture::{DRV, State, chain, path, store_path};

/// Spoils the row of `lib` and asks for it.
fn check(change: &str, expected: Option<&str>) {
    let state = State::with_sample();
    let raw = state.raw();
    raw.execute_batch("PRAGMA foreign_keys = 0; PRAGMA ignore_check_constraints = 1")
        .unwrap();
    raw.execute_batch(&format!("UPDATE ValidPaths SET {change} WHERE path LIKE '%-lib'"))
        .unwrap();
    drop(raw);
    for database in [state.read_write(), state.read_only()] {
        let infos = database.path_infos(&[path("lib")]);
        let archives = database.archives(&[path("lib")]);
        let walked = database.closure_infos(&[path("app")], &mut |paths| Ok(vec![false; paths.len()]));
        let left_out = database.closure_infos(&[path("app")], &mut |paths| {
            Ok(paths.iter().map(|path| path.name() == "lib").collect())
        });
        assert_eq!(
            left_out.unwrap().len(),
            3,
            "a row that is not needed is no matter"
        );
        assert_eq!(database.are_valid(&[path("lib")]).unwrap(), [true]);
        assert_eq!(
            database
                .closure(&[path("lib")], Closure::References)
                .unwrap()
                .len(),
            2
        );
        match expected {
            None => {
                assert!(infos.unwrap()[0].is_some());
                assert!(archives.unwrap()[0].is_some());
                assert_eq!(walked.unwrap().len(), 4);
            }
            Some(expected) => {
                for error in [infos.unwrap_err(), archives.unwrap_err(), walked.unwrap_err()] {
                    let message = chain(&error);
                    assert!(
                        message.contains(expected) && message.contains("-lib` in `/"),
                        "{message}"
                    );
                }
            }
        }
    }
}

#[test]
fn broken_columns_are_named() {
    check("hash = 'sha256:xyz'", Some("column ValidPaths.hash of"));
    check("hash = ''", Some("column ValidPaths.hash of"));
    check("hash = x'00ff'", Some("holds a blob of 2 bytes: expected a text"));
    check("deriver = 'nowhere'", Some("column ValidPaths.deriver of"));
    check("deriver = 5.5", Some("column ValidPaths.deriver of"));
    check("sigs = 'nokey'", Some("column ValidPaths.sigs of"));
    check("sigs = 'key:!!'", Some("column ValidPaths.sigs of"));
    check("ca = 'fixed:what'", Some("column ValidPaths.ca of"));
    check("ca = x'00'", Some("column ValidPaths.ca of"));
}

#[test]
fn odd_but_harmless_columns_are_read() {
    check("deriver = ''", None);
    check("sigs = '  '", None);
    check("ca = ''", None);
    check("narSize = NULL", None);
    check("narSize = -1", None);
    check("narSize = 'large'", None);
    check("narSize = 1.5", None);
    check("narSize = x'00'", None);
    check("registrationTime = 'soon'", None);
    check("registrationTime = -5", None);
    check("registrationTime = 1.5", None);
    check("sigs = 'k:YR k:YQ='", None);
    check("sigs = 'k:Y' || char(10) || 'Q=='", None);
    check(
        "hash = 'sha256-EacbR1TYEvSuogFhxTO9qhEqxchTAT5l06qWQLVzUjB'",
        None,
    );
    check("ultimate = 'yes'", None);
    check("ultimate = 2", None);
    check(
        "hash = 'sha256-EacbR1TYEvSuogFhxTO9qhEqxchTAT5l06qWQLVzUjA='",
        None,
    );
    check(
        "hash = 'sha256:0c2jffsl15masdjkw0akr32jl4daplrwaq81lapg84nqai3ip9qi'",
        None,
    );
}

#[test]
fn what_is_read_leniently_is_known_as_nix_knows_it() {
    let state = State::with_sample();
    state
        .raw()
        .execute_batch(
            "UPDATE ValidPaths SET narSize = -1, registrationTime = 'soon', sigs = 'k:YR j:YWJj  k:YQ=='
            WHERE path LIKE '%-lib'",
        )
        .unwrap();
    let info = state.read_only().path_infos(&[path("lib")]).unwrap()[0]
        .clone()
        .unwrap();
    assert_eq!((info.nar_size, info.registration_time), (0, 0));
    let signatures: Vec<&str> = info
        .signatures
        .iter()
        .map(|signature| signature.as_str())
        .collect();
    assert_eq!(signatures, ["j:YWJj", "k:YQ=="]);
}

#[test]
fn dangling_references_are_named() {
    let state = State::with_sample();
    let raw = state.raw();
    raw.execute_batch("PRAGMA foreign_keys = 0").unwrap();
    raw.execute_batch("INSERT INTO Refs SELECT id, 999 FROM ValidPaths WHERE path LIKE '%-lib'")
        .unwrap();
    let database = state.read_only();
    let infos = database.path_infos(&[path("lib")]).unwrap_err();
    let walked = database
        .closure_infos(&[path("app")], &mut |paths| Ok(vec![false; paths.len()]))
        .unwrap_err();
    for error in [infos, walked] {
        let message = error.to_string();
        assert!(
            message.contains("column Refs.reference of `/nix/store/") && message.contains("-lib`"),
            "{message}"
        );
        assert!(
            message.ends_with("holds the integer 999: expected the id of a valid path"),
            "{message}"
        );
    }
    let error = database.closure(&[path("app")], Closure::References).unwrap_err();
    assert!(
        error.to_string().contains("column Refs.reference of `row "),
        "{error}"
    );
}

#[test]
fn output_names_are_not_guessed() {
    let state = State::with_sample();
    state
        .raw()
        .execute_batch("UPDATE DerivationOutputs SET id = CAST(x'6fff' AS TEXT)")
        .unwrap();
    let error = state
        .read_only()
        .derivation_outputs(&[store_path(DRV)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("column DerivationOutputs.id of `/nix/store/")
            && error.ends_with("holds the text `o\\xff`: expected UTF-8"),
        "{error}"
    );
}

#[test]
fn paths_that_are_none_are_named() {
    let state = State::with_sample();
    state
        .raw()
        .execute_batch("UPDATE ValidPaths SET path = '/nix/store/rubbish' WHERE path LIKE '%-lib'")
        .unwrap();
    let database = state.read_only();
    let mut shown = 0;
    let all = database.for_each_valid_path(&mut |_| {
        shown += 1;
        Ok(())
    });
    let errors = [
        all.unwrap_err(),
        database.path_infos(&[path("app")]).unwrap_err(),
        database.closure(&[path("app")], Closure::References).unwrap_err(),
        database.referrers(&[path("base")]).unwrap_err(),
    ];
    for error in errors {
        let message = chain(&error);
        assert!(
            message.contains("column ValidPaths.path of `row ") && message.contains("rubbish"),
            "{message}"
        );
    }
    assert!(shown < 6);
    assert_eq!(database.count().unwrap(), 6);
}

#[test]
fn rings_do_not_hang() {
    let state = State::with_sample();
    let ring = "INSERT INTO Refs SELECT b.id, a.id FROM ValidPaths a, ValidPaths b WHERE a.path LIKE '%-app' AND b.path LIKE '%-base'";
    state.raw().execute_batch(ring).unwrap();
    let database = state.read_only();
    for direction in [Closure::References, Closure::Referrers] {
        assert_eq!(database.closure(&[path("app")], direction).unwrap().len(), 4);
    }
    assert_eq!(
        database
            .closure_infos(&[path("app")], &mut |paths| Ok(vec![false; paths.len()]))
            .unwrap()
            .len(),
        4
    );
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        ".{0,40}".prop_map(Value::Text),
        "(sha256|text|fixed|fixed:r):[0-9a-z:]{0,70}".prop_map(Value::Text),
        "/nix/store/[0-9a-z]{32}-[a-z.]{0,8}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_in_any_column_panics(
        values in proptest::collection::vec((0..9_usize, value()), 1..4),
        text in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let state = State::with_sample();
        let raw = state.raw();
        raw.execute_batch("PRAGMA foreign_keys = 0").unwrap();
        let columns = ["path", "hash", "registrationTime", "deriver", "narSize", "ultimate", "sigs", "ca"];
        for (column, value) in values {
            // What a constraint refuses cannot be there.
            drop(match columns.get(column) {
                Some(column) => raw.execute(&format!("UPDATE ValidPaths SET {column} = ?1 WHERE path LIKE '%-lib'"), [value]),
                None => raw.execute("INSERT INTO Refs SELECT id, ?1 FROM ValidPaths WHERE path LIKE '%-app'", [value]),
            });
        }
        raw.execute("UPDATE ValidPaths SET sigs = CAST(?1 AS TEXT) WHERE path LIKE '%-self'", [text]).unwrap();
        drop(raw);
        let database = state.read_only();
        let paths = [path("lib"), path("app"), path("base"), path("self")];
        drop(database.path_infos(&paths));
        drop(database.closure(&paths[1..2], Closure::References));
        drop(database.closure(&paths[2..3], Closure::Referrers));
        drop(database.closure_infos(&paths[1..2], &mut |paths| Ok(vec![false; paths.len()])));
        drop(database.referrers(&paths));
        drop(database.valid_derivers(&paths));
        drop(database.path_from_hash_part(&[paths[0].hash_part()]));
        drop(database.for_each_valid_path(&mut |_| Ok(())));
    }
}
