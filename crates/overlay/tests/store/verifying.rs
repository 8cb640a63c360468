// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults are found, named with their layer, and nothing else is.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use superpose_overlay::store_path::{Hash, HashEncoding};
use superpose_overlay::{Contents, Fault, Layer, Note, VerifyOptions};

use crate::comparing::{archive, quick, set_archive, thorough, upper_database};
use crate::namespace::Named;
use crate::stage::{Stage, add_text, is_valid};

pub(crate) const TRIALS: &[Named] = &[
    (
        "verifying::a_missing_hash_is_told_and_left",
        a_missing_hash_is_told_and_left,
    ),
    (
        "verifying::links_are_called_by_their_hashes",
        links_are_called_by_their_hashes,
    ),
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
    let report = thorough(&mut store);
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
    let report = thorough(&mut store);
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
    let report = thorough(&mut store);
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

fn a_missing_hash_is_told_and_left() {
    let stage = Stage::over(|_| {});
    let mut store = stage.open();
    let [hashless, sizeless, wrong] =
        ["hashless", "sizeless", "wrong"].map(|name| add_text(&mut store, name, "1", &[]));
    let good = [&hashless, &sizeless, &wrong].map(|path| archive(&store, path));
    set_archive(upper_database(&stage), &hashless, Hash::sha256([0; 32]), 0);
    set_archive(upper_database(&stage), &sizeless, good[1].hash, 0);
    set_archive(upper_database(&stage), &wrong, good[2].hash, 12);
    let report = quick(&mut store);
    assert!(
        matches!(&report.faults[..], [Fault::NoHash { path, found: None }] if *path == hashless),
        "{report:?}"
    );
    let repaired = store.repair(&report, None).unwrap();
    assert_eq!(repaired.left.len(), 1, "contents are not known");

    let report = thorough(&mut store);
    assert!(
        matches!(&report.faults[..], [Fault::NoHash { path, found: Some(found) }] if *path == hashless && *found == good[0]),
        "{report:?}"
    );
    let sizes: Vec<Note> = [(&sizeless, 0), (&wrong, 12)]
        .map(|(path, recorded)| Note::Size {
            path: path.clone(),
            recorded,
            found: Some(good[0].size),
        })
        .into();
    let mut notes = report.notes.clone();
    notes.sort_by_key(|note| std::cmp::Reverse(sizes.iter().position(|size| size == note)));
    notes.reverse();
    assert_eq!(notes, sizes);
    assert_eq!(
        archive(&store, &hashless).size,
        0,
        "a verification writes no hash"
    );
    let repaired = store.repair(&report, None).unwrap();
    assert_eq!((repaired.rows.len(), repaired.left.len()), (3, 0));
    let after = [&hashless, &sizeless, &wrong].map(|path| archive(&store, path));
    assert_eq!(after, good);
    let report = thorough(&mut store);
    assert!(report.faults.is_empty() && report.notes.is_empty(), "{report:?}");
}

/// Puts a good and a bad entry into a hard-link farm; gives the names.
fn fill_links(links: &Path) -> [String; 2] {
    fs::create_dir_all(links).unwrap();
    fs::write(links.join("good"), "abc").unwrap();
    let good = superpose_overlay::nar::hash_object(File::open(links).unwrap(), "good")
        .unwrap()
        .hash
        .render_bare(HashEncoding::Nix32);
    fs::rename(links.join("good"), links.join(&good)).unwrap();
    let bad = Hash::sha256([5; 32]).render_bare(HashEncoding::Nix32);
    fs::write(links.join(&bad), "abcd").unwrap();
    [good, bad]
}

fn links_are_called_by_their_hashes() {
    let stage = Stage::unmounted(|_| {});
    fill_links(&stage.lower_dir().join(".links"));
    stage.mount();
    let links = stage.upper_dir().join(".links");
    let [good, bad] = fill_links(&links);
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let before = stage.lower_tree();
    assert!(quick(&mut store).faults.is_empty(), "names are not enough");
    let report = thorough(&mut store);
    assert!(
        matches!(&report.faults[..], [Fault::Link { name, found }] if *name == *bad && *found != Hash::sha256([5; 32])),
        "{report:?}"
    );
    assert_eq!(report.links, 2, "those below are the lower store's affair");
    let repaired = store.repair(&report, None).unwrap();
    assert_eq!(
        (&repaired.links[..], repaired.left.len()),
        (&[bad.clone().into()][..], 0)
    );
    assert!(links.join(&good).exists() && !links.join(&bad).exists());
    assert!(thorough(&mut store).faults.is_empty());
    drop(store);
    assert_eq!(stage.lower_tree(), before);

    // A local store has the same.
    let mut lower = stage.lower_store();
    let report = thorough(&mut lower);
    assert!(matches!(&report.faults[..], [Fault::Link { .. }]), "{report:?}");
    lower.repair(&report, None).unwrap();
    assert!(!stage.lower_dir().join(".links").join(&bad).exists());
    // A link in its place leads nowhere.
    fs::remove_dir_all(&links).unwrap();
    std::os::unix::fs::symlink("/", &links).unwrap();
    let mut options = VerifyOptions::default();
    options.contents = Contents::Check;
    stage.open().verify(&options).unwrap_err();
}
