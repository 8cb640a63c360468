// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that both layers have, or a part of which: what is seen is compared, and what is only a part is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{XattrFlags, setxattr};
use superpose_overlay::{Fault, Layer, Note};

use crate::comparing::{attribute, lay_above, lower_database, over_tree, quick, thorough};
use crate::namespace::Named;
use crate::stage::{Stage, add_text};

pub(crate) const TRIALS: &[Named] = &[
    (
        "merging::equal_objects_in_both_layers_are_right",
        equal_objects_in_both_layers_are_right,
    ),
    ("merging::a_union_is_not_the_object", a_union_is_not_the_object),
    (
        "merging::what_was_copied_up_is_noted",
        what_was_copied_up_is_noted,
    ),
    (
        "merging::a_file_that_was_copied_up_is_noted",
        a_file_that_was_copied_up_is_noted,
    ),
    (
        "merging::a_part_over_what_is_lost_is_a_fault",
        a_part_over_what_is_lost_is_a_fault,
    ),
    (
        "merging::a_file_without_contents_is_a_fault",
        a_file_without_contents_is_a_fault,
    ),
    (
        "merging::an_opaque_directory_that_differs_is_modified",
        an_opaque_directory_that_differs_is_modified,
    ),
    (
        "merging::an_unregistered_object_over_a_valid_one_is_hashed",
        an_unregistered_object_over_a_valid_one_is_hashed,
    ),
];

fn equal_objects_in_both_layers_are_right() {
    let (stage, path) = over_tree();
    stage.open().ensure(std::slice::from_ref(&path)).unwrap();
    lay_above(&stage, &path, &[("a", "1"), ("d/b", "2"), ("d/c", "3")]);
    let mut store = stage.open();
    let report = quick(&mut store);
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!(report.notes, [Note::Merged { path }]);
    let report = thorough(&mut store);
    assert!(report.faults.is_empty() && report.notes.is_empty(), "{report:?}");
    assert_eq!(report.hashed, 1);
}

fn a_union_is_not_the_object() {
    let (stage, path) = over_tree();
    stage.open().ensure(std::slice::from_ref(&path)).unwrap();
    lay_above(&stage, &path, &[("a", "1"), ("more", "4")]);
    let report = thorough(&mut stage.open());
    assert!(
        matches!(&report.faults[..], [Fault::Modified { path: modified, layer: Layer::Upper, .. }] if *modified == path),
        "{report:?}"
    );
}

fn what_was_copied_up_is_noted() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    let file = stage.merged_dir().join(path.base_name()).join("d/b");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(stage.upper_dir().join(path.base_name()).join("d/b").exists());
    let report = quick(&mut store);
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!(report.notes, [Note::Merged { path: path.clone() }]);
    let report = thorough(&mut store);
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!(report.notes, [Note::CopiedUp { path: path.clone() }]);
    // Changed contents are another matter.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "spoilt").unwrap();
    let report = thorough(&mut store);
    assert!(
        matches!(
            &report.faults[..],
            [Fault::Modified {
                layer: Layer::Upper,
                ..
            }]
        ),
        "{report:?}"
    );
}

/// A file is copied up as a whole, and the kernel notes that it did.
fn a_file_that_was_copied_up_is_noted() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_text(lower, "file", "1", &[])));
    let path = path.unwrap();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    let file = stage.merged_dir().join(path.base_name());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    for report in [quick(&mut store), thorough(&mut store)] {
        assert!(report.faults.is_empty(), "{report:?}");
        assert_eq!(report.notes, [Note::CopiedUp { path: path.clone() }]);
    }
}

/// What is seen is right, as long as nobody collects garbage below.
fn a_part_over_what_is_lost_is_a_fault() {
    let (stage, path) = over_tree();
    let mut store = stage.open();
    store.ensure(std::slice::from_ref(&path)).unwrap();
    let file = stage.merged_dir().join(path.base_name()).join("d/b");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    lower_database(&stage)
        .invalidate(std::slice::from_ref(&path))
        .unwrap();
    assert_eq!(quick(&mut store).notes, [Note::Merged { path: path.clone() }]);
    let report = thorough(&mut store);
    assert!(
        matches!(&report.faults[..], [Fault::Incomplete { path: part }] if *part == path),
        "{report:?}"
    );
}

fn a_file_without_contents_is_a_fault() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_text(lower, "file", "1", &[])));
    let path = path.unwrap();
    stage.open().ensure(std::slice::from_ref(&path)).unwrap();
    let above = stage.upper_dir().join(path.base_name());
    fs::write(&above, [0]).unwrap();
    setxattr(&above, attribute("metacopy"), b"", XattrFlags::empty()).unwrap();
    let mut store = stage.open();
    // Whether it can be seen at all depends on kernel and options; that it is a fault does not.
    store.refresh_mount().unwrap();
    let report = quick(&mut store);
    assert!(
        report
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::MetadataOnly { path: found } if *found == path)),
        "{report:?}"
    );
    assert_eq!(report.forgotten, []);
}

fn an_opaque_directory_that_differs_is_modified() {
    let (stage, path) = over_tree();
    stage.open().ensure(std::slice::from_ref(&path)).unwrap();
    lay_above(&stage, &path, &[("a", "1")]);
    let above = stage.upper_dir().join(path.base_name());
    setxattr(&above, attribute("opaque"), b"y", XattrFlags::empty()).unwrap();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let report = quick(&mut store);
    assert!(report.faults.is_empty() && report.notes.is_empty(), "{report:?}");
    let report = thorough(&mut store);
    assert!(
        matches!(
            &report.faults[..],
            [Fault::Modified {
                layer: Layer::Upper,
                ..
            }]
        ),
        "{report:?}"
    );
}

/// The path is valid by the row below, and what is seen under it is something else.
fn an_unregistered_object_over_a_valid_one_is_hashed() {
    let (stage, path) = over_tree();
    lay_above(&stage, &path, &[("a", "another")]);
    let report = thorough(&mut stage.open());
    assert!(
        matches!(&report.faults[..], [Fault::Modified { path: modified, layer: Layer::Upper, .. }] if *modified == path),
        "{report:?}"
    );
    assert!(report.notes.contains(&Note::Unregistered { path }));
}
