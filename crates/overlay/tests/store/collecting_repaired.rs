// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a collection makes of objects above that the lower store has too.

use std::fs;

use superpose_overlay::store_path::StorePath;
use superpose_overlay::{CollectOptions, LockWait};

use crate::comparing::lay_above;
use crate::namespace::Named;
use crate::repairing::{FILES, Good, mend, spoil};
use crate::stage::{Stage, add_text, add_tree, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    (
        "collecting_repaired::a_repaired_object_that_a_root_below_needs_stays",
        a_repaired_object_that_a_root_below_needs_stays,
    ),
    (
        "collecting_repaired::a_repaired_object_that_is_in_use_from_below_stays",
        a_repaired_object_that_is_in_use_from_below_stays,
    ),
    (
        "collecting_repaired::an_equal_copy_goes_whoever_needs_it",
        an_equal_copy_goes_whoever_needs_it,
    ),
];

/// An object that is bad below and good above, and what needs it, which is only below, so that no row above refers to it.
fn repaired() -> (Stage, StorePath, StorePath) {
    let good = Good::with(|store| drop(add_tree(store, "library", FILES)));
    let mut made = None;
    let stage = Stage::over(|lower| {
        let library = add_tree(lower, "library", FILES);
        let user = add_text(lower, "user", "u", &[&library]);
        made = Some((library, user));
    });
    let (library, user) = made.unwrap();
    spoil(&stage.lower_dir().join(library.base_name()).join("d/b"));
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&library)).unwrap();
    assert_eq!(mend(&mut store, &good).objects, std::slice::from_ref(&library));
    // Temporary roots go with the store that was opened.
    drop(store);
    (stage, library, user)
}

fn a_repaired_object_that_a_root_below_needs_stays() {
    let (stage, library, user) = repaired();
    let below = stage.lower_tree();
    let store = stage.open();
    store.add_root(&stage.path("result"), &user).unwrap();
    drop(store);
    let file = stage.merged_dir().join(library.base_name()).join("d/b");
    for _ in 0..2 {
        let mut store = stage.open();
        let collected = store.collect(&CollectOptions::default()).unwrap();
        assert!(collected.deleted.is_empty(), "{collected:?}");
        assert!(is_valid(store.upper_metadata(), &library));
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
    }
    // Without the root nobody needs it: what is below shows again, as bad as it is.
    fs::remove_file(stage.path("result")).unwrap();
    let collected = stage.open().collect(&CollectOptions::default()).unwrap();
    assert_eq!(collected.deleted, [library]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "spoilt");
    assert_eq!(stage.lower_tree(), below);
}

fn a_repaired_object_that_is_in_use_from_below_stays() {
    let (stage, library, user) = repaired();
    let user_of_both = stage.open().new_protection(usize::MAX);
    user_of_both.add(&[user], LockWait::Forever).unwrap();
    let file = stage.merged_dir().join(library.base_name()).join("d/b");
    let collected = stage.open().collect(&CollectOptions::default()).unwrap();
    assert!(collected.deleted.is_empty(), "{collected:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "2");
    drop(user_of_both);
    let collected = stage.open().collect(&CollectOptions::default()).unwrap();
    assert_eq!(collected.deleted, [library]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "spoilt");
}

fn an_equal_copy_goes_whoever_needs_it() {
    let mut made = None;
    let stage = Stage::over(|lower| {
        let library = add_tree(lower, "library", FILES);
        made = Some((add_text(lower, "user", "u", &[&library]), library));
    });
    let (user, library) = made.unwrap();
    let store = stage.open();
    store.add_root(&stage.path("result"), &user).unwrap();
    drop(store);
    lay_above(&stage, &library, FILES);
    let mut store = stage.open();
    let collected = store.collect(&CollectOptions::default()).unwrap();
    assert_eq!(collected.deleted, std::slice::from_ref(&library));
    let file = stage.merged_dir().join(library.base_name()).join("d/b");
    assert_eq!(fs::read_to_string(file).unwrap(), "2");
}
