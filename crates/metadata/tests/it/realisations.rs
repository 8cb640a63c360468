// SPDX-License-Identifier: MIT OR Apache-2.0
//! Realisations of both kinds.

use superpose_metadata::{Error, MetadataSource, Realisation, RealisationKey, RealisationKind};

use crate::fixture::{State, path, signature};

fn realisation(kind: RealisationKind, output: &str) -> Realisation {
    let derivation = match kind {
        RealisationKind::HashModulo => {
            "sha256:74224e4aff069cae2f6dcc5569ffd05c182eb5cd7846c5461b2528fa7362cf34"
        }
        RealisationKind::BuildTrace => "akj8mbqjx8nzkql9142nb7103vwn0wa2-plain.drv",
    };
    let key = RealisationKey {
        kind,
        derivation: derivation.to_owned(),
        output: "out".to_owned(),
    };
    Realisation {
        key,
        output_path: path(output),
        signatures: vec![],
    }
}

fn other_than(kind: RealisationKind) -> RealisationKind {
    match kind {
        RealisationKind::HashModulo => RealisationKind::BuildTrace,
        RealisationKind::BuildTrace => RealisationKind::HashModulo,
    }
}

fn check(kind: RealisationKind, table: &str, migration: &str) {
    let state = State::with_sample();
    let mut database = state.read_write();
    let first = realisation(kind, "app");
    let ask = |database: &superpose_metadata::Database| {
        database.realisations(std::slice::from_ref(&first.key)).unwrap()[0].clone()
    };
    assert_eq!(ask(&database), None, "no table is not an error");
    database
        .register_realisations(std::slice::from_ref(&first))
        .unwrap();
    assert_eq!(ask(&database), Some(first.clone()));
    let raw = state.raw();
    let empty: i64 = raw
        .query_row(
            &format!("SELECT count(*) FROM {table} WHERE signatures = ''"),
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(empty, 1, "as Nix writes none at all");
    let recorded: i64 = raw
        .query_row(
            "SELECT count(*) FROM SchemaMigrations WHERE migration = ?1",
            [migration],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(recorded, 1);

    for key in ["b-1", "a-1", "b-1"] {
        let signed = Realisation {
            signatures: vec![signature(key)],
            ..first.clone()
        };
        database.register_realisations(&[signed]).unwrap();
    }
    assert_eq!(
        ask(&database).unwrap().signatures,
        [signature("a-1"), signature("b-1")]
    );
    let rows: i64 = raw
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);

    let error = database
        .register_realisations(&[realisation(kind, "base")])
        .unwrap_err();
    assert!(matches!(error, Error::ConflictingRealisation { .. }), "{error}");
    assert_eq!(ask(&database).unwrap().output_path, path("app"));
    assert_eq!(ask(&state.read_only()), ask(&database));
    // The other kind does not see it.
    let mut other = first.key.clone();
    other.kind = other_than(kind);
    assert_eq!(database.realisations(&[other]).unwrap(), [None]);

    // By output, too.
    let found =
        |database: &dyn MetadataSource, output: &str| database.realisations_of(&[path(output)]).unwrap();
    assert_eq!(found(&database, "app"), [ask(&database).unwrap()]);
    assert_eq!(found(&state.read_only(), "app"), [ask(&database).unwrap()]);
    assert_eq!(found(&database, "base"), []);
    let keeps = |kind| database.keeps_realisations(kind).unwrap();
    assert_eq!(
        keeps(kind),
        !keeps(other_than(kind)),
        "the tables of one kind were made"
    );

    database.invalidate(&[path("app")]).unwrap();
    let stays = kind == RealisationKind::BuildTrace;
    assert_eq!(ask(&database).is_some(), stays);
}

#[test]
fn both_kinds_follow_their_own_rules() {
    check(
        RealisationKind::HashModulo,
        "Realisations",
        "20220326-ca-derivations",
    );
    check(
        RealisationKind::BuildTrace,
        "BuildTraceV3",
        "20251017-ca-derivations",
    );
}

#[test]
fn only_the_older_kind_needs_a_valid_output() {
    let state = State::with_sample();
    let mut database = state.read_write();
    let older = database.register_realisations(&[realisation(RealisationKind::HashModulo, "unknown")]);
    assert!(matches!(older, Err(Error::NotValid { .. })));
    database
        .register_realisations(&[realisation(RealisationKind::BuildTrace, "unknown")])
        .unwrap();
}
