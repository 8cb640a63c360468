// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad objects make room for good ones, which come into the upper layer wherever the fault is.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::getxattr;
use superpose_overlay::mounting::{Detach, OverlayAttributes, mount_overlay, unmount};
use superpose_overlay::store_path::{StorePath, StoreReference};
use superpose_overlay::{OpenOptions, Repaired, Store, StoreView, is_interrupted};

use crate::comparing::{attribute, lay_above, thorough};
use crate::namespace::Named;
use crate::stage::{Stage, add_text, add_tree, is_valid, resolve, tree};

pub(crate) const TRIALS: &[Named] = &[
    (
        "repairing::whatever_is_wrong_is_made_good",
        whatever_is_wrong_is_made_good,
    ),
    (
        "repairing::nothing_of_a_bad_lower_object_shines_through",
        nothing_of_a_bad_lower_object_shines_through,
    ),
    (
        "repairing::the_mark_is_of_the_kind_of_the_mount",
        the_mark_is_of_the_kind_of_the_mount,
    ),
    (
        "repairing::a_path_without_a_row_gets_one",
        a_path_without_a_row_gets_one,
    ),
    (
        "repairing::a_user_of_the_bad_object_keeps_it",
        a_user_of_the_bad_object_keeps_it,
    ),
    (
        "repairing::a_state_directory_elsewhere",
        a_state_directory_elsewhere,
    ),
    (
        "repairing::an_overlay_store_is_a_source_too",
        an_overlay_store_is_a_source_too,
    ),
    (
        "repairing::what_took_the_place_of_a_whiteout_stays",
        what_took_the_place_of_a_whiteout_stays,
    ),
    (
        "repairing::a_local_store_is_repaired_in_place",
        a_local_store_is_repaired_in_place,
    ),
    (
        "repairing::good_objects_are_on_the_disk_first",
        good_objects_are_on_the_disk_first,
    ),
];

/// A store that has good objects.
pub(crate) struct Good(tempfile::TempDir);

impl Good {
    pub(crate) fn with(fill: impl FnOnce(&mut Store)) -> Self {
        let good = Good(tempfile::tempdir().unwrap());
        fill(&mut Store::open(resolve(&good.reference()), OpenOptions::default()).unwrap());
        good
    }

    pub(crate) fn reference(&self) -> StoreReference {
        StoreReference::local(self.0.path())
    }

    pub(crate) fn view(&self) -> StoreView {
        StoreView::open_verified(&resolve(&self.reference())).unwrap()
    }

    pub(crate) fn root(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(crate) fn object(&self, path: &StorePath) -> std::path::PathBuf {
        self.0.path().join("nix/store").join(path.base_name())
    }
}

pub(crate) const FILES: &[(&str, &str)] = &[("a", "1"), ("d/b", "2"), ("d/c", "3")];

fn fill(store: &mut Store) -> [StorePath; 4] {
    let library = add_tree(store, "library", FILES);
    let below = add_tree(store, "below", &[("x", "4")]);
    let program = add_text(store, "program", "5", &[&library, &below]);
    let alone = add_text(store, "alone", "6", &[]);
    [library, below, program, alone]
}

/// `library` and `below` in the lower store, `program` and `alone` above, and a store that has all of them.
pub(crate) fn layered() -> (Stage, Good, [StorePath; 4]) {
    let good = Good::with(|store| drop(fill(store)));
    let stage = Stage::over(|lower| {
        drop(add_tree(lower, "library", FILES));
        drop(add_tree(lower, "below", &[("x", "4")]));
    });
    let paths = fill(&mut stage.open());
    assert_eq!(stage.upper_names().len(), 2);
    (stage, good, paths)
}

pub(crate) fn spoil(path: &std::path::Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, "spoilt").unwrap();
}

/// A verification may be long ago when its report is acted on.
fn what_took_the_place_of_a_whiteout_stays() {
    let mut path = None;
    let stage = Stage::over(|lower| path = Some(add_tree(lower, "library", FILES)));
    let path = path.unwrap();
    fs::remove_dir_all(stage.merged_dir().join(path.base_name())).unwrap();
    let mut store = stage.open();
    let report = thorough(&mut store);
    assert!(
        matches!(&report.faults[..], [superpose_overlay::Fault::Hidden { .. }]),
        "{report:?}"
    );
    fs::remove_file(stage.upper_dir().join(path.base_name())).unwrap();
    lay_above(&stage, &path, FILES);
    let repaired = store.repair(&report, None).unwrap();
    assert!(repaired.uncovered.is_empty(), "{repaired:?}");
    assert_eq!(stage.upper_names(), [path.base_name()]);
    assert_eq!(
        fs::read_to_string(stage.upper_dir().join(path.base_name()).join("d/b")).unwrap(),
        "2"
    );
}

pub(crate) fn mend(store: &mut Store, good: &Good) -> Repaired {
    let report = thorough(store);
    store.repair(&report, Some(&good.view())).unwrap()
}

/// Nothing is wrong any more, in the view and in what is left behind.
pub(crate) fn assert_mended(stage: &Stage, good: &Good, paths: &[StorePath]) {
    let report = thorough(&mut stage.open());
    assert!(report.faults.is_empty(), "{report:?}");
    assert!(!is_interrupted(&stage.state_dir()).unwrap());
    let trash = stage.state_dir().join("superpose/trash");
    assert_eq!(fs::read_dir(trash).map_or(0, Iterator::count), 0);
    for path in paths {
        // Canonical metadata and contents, through the mount.
        assert_eq!(
            tree(&stage.merged_dir().join(path.base_name())),
            tree(&good.object(path)),
            "{path}"
        );
    }
    let scratch = stage
        .upper_names()
        .into_iter()
        .filter(|name| name.contains("superpose"));
    assert_eq!(scratch.count(), 0, "{:?}", stage.upper_names());
}

fn whatever_is_wrong_is_made_good() {
    let (stage, good, [library, below, program, alone]) = layered();
    // Modified above, missing above, modified below, missing below.
    spoil(&stage.upper_dir().join(alone.base_name()));
    spoil(&stage.lower_dir().join(library.base_name()).join("d/b"));
    fs::remove_file(stage.upper_dir().join(program.base_name())).unwrap();
    fs::remove_dir_all(stage.lower_dir().join(below.base_name())).unwrap();
    let before = stage.lower_tree();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    // Something must need the one that is missing, or its row goes.
    let user = add_text(&mut store, "user", "7", &[&program]);
    let rows = store
        .upper_metadata()
        .path_infos(&[library.clone(), program.clone()]);
    let rows = rows.unwrap();
    let report = thorough(&mut store);
    assert_eq!(report.faults.len(), 4, "{report:?}");
    let repaired = store.repair(&report, Some(&good.view())).unwrap();
    assert!(repaired.left.is_empty(), "{repaired:?}");
    let mut expected = vec![library.clone(), below.clone(), program.clone(), alone.clone()];
    expected.sort();
    assert_eq!(repaired.objects, expected);
    assert!(repaired.bytes > 1000);
    assert_eq!(
        store.upper_metadata().path_infos(&[library, program]).unwrap(),
        rows,
        "rows stay as they are"
    );
    drop(store);
    assert_mended(&stage, &good, &expected);
    assert_eq!(stage.lower_tree(), before);
    assert_eq!(stage.upper_names().len(), 5);
    assert!(is_valid(stage.open().upper_metadata(), &user));
    // Once more there is nothing to do.
    let repaired = mend(&mut stage.open(), &good);
    assert_eq!((repaired.objects.len(), repaired.left.len()), (0, 0));
}

fn nothing_of_a_bad_lower_object_shines_through() {
    let (stage, good, [library, ..]) = layered();
    let below = stage.lower_dir().join(library.base_name());
    fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(below.join("more"), "bad").unwrap();
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    // Remembered by the kernel, with a half copy above: whoever made that.
    lay_above(&stage, &library, &[("even-more", "bad")]);
    assert_eq!(
        fs::read_dir(stage.merged_dir().join(library.base_name()))
            .unwrap()
            .count(),
        4
    );
    let repaired = mend(&mut store, &good);
    assert_eq!(repaired.objects, std::slice::from_ref(&library));
    drop(store);
    assert_mended(&stage, &good, std::slice::from_ref(&library));
    let above = stage.upper_dir().join(library.base_name());
    let mut value = [0; 4];
    let length = getxattr(&above, attribute("opaque"), &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    // An object over nothing needs no mark.
    let (stage, good, [.., alone]) = layered();
    spoil(&stage.upper_dir().join(alone.base_name()));
    mend(&mut stage.open(), &good);
    getxattr(
        stage.upper_dir().join(alone.base_name()),
        attribute("opaque"),
        &mut value,
    )
    .unwrap_err();
}

fn the_mark_is_of_the_kind_of_the_mount() {
    let (stage, good, [library, ..]) = layered();
    unmount(&stage.merged_dir(), Detach::Lazily).unwrap();
    mount_overlay(&stage.plan().with_attributes(OverlayAttributes::User)).unwrap();
    spoil(&stage.lower_dir().join(library.base_name()).join("a"));
    let below = stage.lower_dir().join(library.base_name());
    fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(below.join("more"), "bad").unwrap();
    mend(&mut stage.open(), &good);
    assert_mended(&stage, &good, std::slice::from_ref(&library));
    let above = stage.upper_dir().join(library.base_name());
    getxattr(&above, "user.overlay.opaque", &mut [0; 4]).unwrap();
    assert_eq!(fs::metadata(above).unwrap().permissions().mode() & 0o777, 0o555);
    // Not examined, the mount is asked for it.
    let reference = stage.reference().with_param("check-mount", b"false");
    spoil(&stage.upper_dir().join(library.base_name()).join("a"));
    let mut store = Store::open(resolve(&reference), OpenOptions::default()).unwrap();
    mend(&mut store, &good);
    drop(store);
    assert_mended(&stage, &good, std::slice::from_ref(&library));
}

fn a_path_without_a_row_gets_one() {
    let mut path = None;
    let good = Good::with(|store| path = Some(add_tree(store, "tree", FILES)));
    let path = path.unwrap();
    let stage = Stage::over(|lower| drop(add_tree(lower, "tree", FILES)));
    lay_above(&stage, &path, &[("a", "another")]);
    let mut store = stage.open();
    assert!(!is_valid(store.upper_metadata(), &path));
    let repaired = mend(&mut store, &good);
    assert_eq!(repaired.objects, std::slice::from_ref(&path));
    assert!(is_valid(store.upper_metadata(), &path));
    drop(store);
    assert_mended(&stage, &good, &[path]);
}

fn a_user_of_the_bad_object_keeps_it() {
    let (stage, good, [library, ..]) = layered();
    lay_above(&stage, &library, &[("a", "bad"), ("d/b", "bad")]);
    let merged = stage.merged_dir().join(library.base_name());
    let held = File::open(merged.join("d/b")).unwrap();
    let mut store = stage.open();
    assert_eq!(mend(&mut store, &good).objects.len(), 1);
    assert_eq!(std::io::read_to_string(&held).unwrap(), "bad");
    // Who comes by the directory that is held may see the old tree, and then all of it; it is not unlinked.
    assert_eq!(fs::read_dir(merged.join("d")).unwrap().count(), 2);
    let trash = stage.state_dir().join("superpose/trash");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 1);
    drop(held);
    store.refresh_mount().unwrap();
    assert_eq!(fs::read_to_string(merged.join("d/b")).unwrap(), "2");
    // The next one that empties the trash finds it free.
    spoil(&stage.upper_dir().join(library.base_name()).join("a"));
    mend(&mut store, &good);
    drop(store);
    assert_mended(&stage, &good, &[library]);
}

/// Bad objects cannot leave the layer then, and wait in it until nobody uses them.
fn a_state_directory_elsewhere() {
    use rustix::mount::{MountFlags, UnmountFlags};
    let good = Good::with(|store| drop(fill(store)));
    let stage = Stage::unmounted(|lower| drop(add_tree(lower, "library", FILES)));
    fs::create_dir_all(stage.state_dir()).unwrap();
    rustix::mount::mount("tmpfs", stage.state_dir(), "tmpfs", MountFlags::empty(), None).unwrap();
    stage.mount();
    let [library, ..] = fill(&mut stage.open());
    spoil(&stage.lower_dir().join(library.base_name()).join("a"));
    stage.open().refresh_mount().unwrap();
    assert_eq!(mend(&mut stage.open(), &good).objects.len(), 1);
    spoil(&stage.upper_dir().join(library.base_name()).join("a"));
    assert_eq!(mend(&mut stage.open(), &good).objects.len(), 1);
    assert_mended(&stage, &good, &[library]);
    rustix::mount::unmount(stage.state_dir(), UnmountFlags::DETACH).unwrap();
}

fn an_overlay_store_is_a_source_too() {
    let (stage, good, paths) = layered();
    let (other, _, _) = layered();
    let [library, _, _, alone] = paths;
    spoil(&stage.upper_dir().join(alone.base_name()));
    spoil(&stage.lower_dir().join(library.base_name()).join("a"));
    let mut store = stage.open();
    store.refresh_mount().unwrap();
    let report = thorough(&mut store);
    let repaired = store.repair(&report, Some(&other.view())).unwrap();
    assert_eq!((repaired.objects.len(), repaired.left.len()), (2, 0));
    drop(store);
    assert_mended(&stage, &good, &[library, alone]);
}

fn a_local_store_is_repaired_in_place() {
    let (stage, good, [library, below, ..]) = layered();
    drop(stage.lower_store());
    unmount(&stage.merged_dir(), Detach::Lazily).unwrap();
    spoil(&stage.lower_dir().join(library.base_name()).join("d/b"));
    fs::remove_dir_all(stage.lower_dir().join(below.base_name())).unwrap();
    let mut store = stage.lower_store();
    let user = add_text(&mut store, "user", "7", &[&below]);
    let report = thorough(&mut store);
    assert_eq!(report.faults.len(), 2);
    let repaired = store.repair(&report, Some(&good.view())).unwrap();
    assert_eq!((repaired.objects.len(), repaired.left.len()), (2, 0));
    let report = thorough(&mut store);
    assert!(report.faults.is_empty() && report.notes.is_empty(), "{report:?}");
    drop(store);
    for path in [&library, &below] {
        assert_eq!(
            tree(&stage.lower_dir().join(path.base_name())),
            tree(&good.object(path))
        );
    }
    let mut names: Vec<_> = fs::read_dir(stage.lower_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    let mut expected: Vec<std::ffi::OsString> = [&library, &below, &user]
        .map(|path| path.base_name().into())
        .into();
    expected.push(".links".into());
    expected.sort();
    assert_eq!(names, expected);
}

fn good_objects_are_on_the_disk_first() {
    let (stage, good, [library, ..]) = layered();
    spoil(&stage.lower_dir().join(library.base_name()).join("a"));
    stage.open().refresh_mount().unwrap();
    let Some(trace) = crate::crashing::traced_repair(&stage, &good) else {
        assert!(
            std::env::var_os("SUPERPOSE_REQUIRE").is_none(),
            "strace is not installed"
        );
        return;
    };
    let position = |what: &str, line: &dyn Fn(&str) -> bool| {
        trace
            .iter()
            .position(|text| line(text))
            .unwrap_or_else(|| panic!("{what} in {trace:#?}"))
    };
    let object = position("the object", &|line| line.contains("syncfs("));
    let intent = position("the intent", &|line| {
        line.contains("sync(") && line.contains("/journal>")
    });
    let exchanged = position("the exchange", &|line| {
        line.contains("RENAME_EXCHANGE") || line.contains("RENAME_NOREPLACE")
    });
    let moved = position("the move", &|line| {
        line.contains("renameat") && line.contains("superpose-tmp") && line.contains("/trash>")
    });
    let remount = position("the remount", &|line| line.contains("FSCONFIG_CMD_RECONFIGURE"));
    assert!(
        object < intent && intent < exchanged && exchanged < moved && moved < remount,
        "{trace:#?}"
    );
}
