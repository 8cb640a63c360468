// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much a collection frees, says that it freed, and is allowed to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use superpose_overlay::store_path::StorePath;
use superpose_overlay::{CollectAction, CollectOptions, Collected, Store};

use crate::collecting::{collect, local, question};
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid};

pub(crate) const TRIALS: &[Named] = &[(
    "amounts::numbers_are_exact_and_links_count_once",
    numbers_are_exact_and_links_count_once,
)];

pub(crate) const LOCAL_TRIALS: &[Named] = &[
    ("amounts::a_limit_holds_exactly", a_limit_holds_exactly),
    (
        "amounts::a_limit_counts_links_in_the_farm",
        a_limit_counts_links_in_the_farm,
    ),
];

/// Blocks of a file or directory.
fn space(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().blocks() * 512
}

fn limited(store: &mut Store, limit: u64) -> Collected {
    let mut options = CollectOptions::default();
    options.max_freed = Some(limit);
    store.collect(&options).unwrap()
}

fn numbers_are_exact_and_links_count_once() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let text = "x".repeat(50_000);
    let paths: Vec<StorePath> = (0..40)
        .map(|number| {
            let own = number.to_string();
            add_tree(
                &mut store,
                &format!("tree-{number}"),
                &[("same", &text), ("own", &own)],
            )
        })
        .collect();
    drop(store);
    // As an optimiser leaves them: one file under all names.
    let first = stage.upper_dir().join(paths[0].base_name()).join("same");
    for path in &paths[1..] {
        let directory = stage.upper_dir().join(path.base_name());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(directory.join("same")).unwrap();
        fs::hard_link(&first, directory.join("same")).unwrap();
    }
    let mut expected = space(&first);
    for path in &paths {
        let directory = stage.upper_dir().join(path.base_name());
        expected += space(&directory) + space(&directory.join("own"));
    }
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let collected = collect(&mut store);
    assert_eq!(
        (collected.bytes, collected.inodes, collected.entries),
        (expected, 81, 120)
    );
}

fn a_limit_holds_exactly() {
    let top = tempfile::tempdir().unwrap();
    let mut store = local(top.path());
    // A chain: the last must go first.
    let mut chain: Vec<StorePath> = Vec::new();
    for number in 0..8 {
        let references: Vec<&StorePath> = chain.last().into_iter().collect();
        let text = number.to_string().repeat(6000);
        chain.push(add_text(
            &mut store,
            &format!("link-{number}"),
            &text,
            &references,
        ));
    }
    drop(store);
    let each = space(&top.path().join("nix/store").join(chain[0].base_name()));
    assert!(each >= 6000);
    let mut store = local(top.path());
    let mut left = 8;
    for (limit, expected) in [(0, 0), (1, 1), (each - 1, 1), (each, 2), (2 * each - 1, 2)] {
        let rehearsed = {
            let mut options = question(CollectAction::Rehearse);
            options.max_freed = Some(limit);
            store.collect(&options).unwrap()
        };
        let collected = limited(&mut store, limit);
        assert_eq!(
            collected.deleted.len(),
            expected,
            "more than {limit} and no object more"
        );
        assert_eq!(collected.bytes, each * expected as u64);
        assert_eq!(
            (rehearsed.deleted, rehearsed.bytes),
            (collected.deleted, collected.bytes)
        );
        left -= expected;
        for (number, path) in chain.iter().enumerate() {
            assert_eq!(is_valid(store.upper_metadata(), path), number < left, "{number}");
        }
    }
    assert_eq!(limited(&mut store, u64::MAX).deleted.len(), left);
}

fn a_limit_counts_links_in_the_farm() {
    let top = tempfile::tempdir().unwrap();
    let mut store = local(top.path());
    let text = "y".repeat(20_000);
    let paths: Vec<StorePath> = (0..3)
        .map(|number| add_tree(&mut store, &format!("tree-{number}"), &[("same", &text)]))
        .collect();
    drop(store);
    let objects = top.path().join("nix/store");
    fs::write(objects.join(".links/file"), &text).unwrap();
    for path in &paths {
        let directory = objects.join(path.base_name());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(directory.join("same")).unwrap();
        fs::hard_link(objects.join(".links/file"), directory.join("same")).unwrap();
    }
    let (directory, file) = (
        space(&objects.join(paths[0].base_name())),
        space(&objects.join(".links/file")),
    );
    let mut store = local(top.path());
    // Two trees free their directories only; the third frees the file, whose link goes by itself then.
    let collected = limited(&mut store, 2 * directory);
    assert_eq!(collected.deleted.len(), 3);
    assert_eq!(
        (collected.bytes, collected.links, collected.inodes),
        (3 * directory + file, 1, 4)
    );
}
