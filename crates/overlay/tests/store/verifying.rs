// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults are found, named with their layer, and nothing else is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use superpose_overlay::{Contents, Fault, Layer, Store, VerifyOptions, VerifyReport};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    (
        "verifying::a_whole_store_has_no_faults",
        a_whole_store_has_no_faults,
    ),
    (
        "verifying::a_modified_object_is_named_with_its_layer",
        a_modified_object_is_named_with_its_layer,
    ),
    (
        "verifying::what_disappeared_is_forgotten_or_missed",
        what_disappeared_is_forgotten_or_missed,
    ),
];

fn verify(store: &mut Store) -> VerifyReport {
    let mut options = VerifyOptions::default();
    options.contents = Contents::Check;
    store.verify(&options).unwrap()
}

fn modify(path: &std::path::Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, "spoilt").unwrap();
}

fn a_whole_store_has_no_faults() {
    let stage = Stage::over(|lower| {
        for n in 0..5 {
            drop(add_text(lower, &format!("below-{n}"), "1", &[]));
        }
    });
    let mut store = stage.open();
    for n in 0..20 {
        drop(add_text(&mut store, &format!("above-{n}"), "2", &[]));
    }
    let report = verify(&mut store);
    assert_eq!(
        (report.rows, report.hashed, report.faults.len()),
        (20, 20, 0),
        "what is only below is not looked at"
    );
}

fn a_modified_object_is_named_with_its_layer() {
    let mut below = None;
    let stage = Stage::unmounted(|lower| below = Some(add_text(lower, "below", "1", &[])));
    let below = below.unwrap();
    stage.mount();
    let mut store = stage.open();
    let above = add_text(&mut store, "above", "2", &[&below]);
    modify(&stage.upper_dir().join(above.base_name()));
    modify(&stage.lower_dir().join(below.base_name()));
    store.refresh_mount().unwrap();
    let report = verify(&mut store);
    let mut found: Vec<_> = report
        .faults
        .iter()
        .map(|fault| match fault {
            Fault::Modified {
                path,
                layer,
                expected,
                found,
            } => {
                assert_ne!(expected, found);
                (path.clone(), *layer)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort();
    let mut expected = [(above, Layer::Upper), (below, Layer::Lower)];
    expected.sort();
    assert_eq!(found, expected);
}

fn what_disappeared_is_forgotten_or_missed() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let alone = add_text(&mut store, "alone", "1", &[]);
    let needed = add_text(&mut store, "needed", "2", &[]);
    let user = add_text(&mut store, "user", "3", &[&needed]);
    for path in [&alone, &needed] {
        fs::remove_file(stage.merged_dir().join(path.base_name())).unwrap();
    }
    let report = verify(&mut store);
    assert_eq!(report.forgotten, std::slice::from_ref(&alone));
    assert!(!is_valid(store.upper_metadata(), &alone));
    assert!(
        matches!(&report.faults[..], [Fault::Missing { path, referrers, valid_below: false }] if *path == needed && *referrers == [user])
    );
    assert_eq!(
        store.upper_metadata().count().unwrap(),
        2,
        "what is missed keeps its row"
    );
}
