// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is refused at opening, and what opening leaves alone.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use superpose_overlay::mounting::{Detach, MountPlan, OverlayAttributes, mount_overlay, unmount};
use superpose_overlay::store_path::{Defaults, StoreReference};
use superpose_overlay::{Error, Layout, Leftovers, OpenOptions, Store, StoreView};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, resolve};

pub(crate) const TRIALS: &[Named] = &[
    (
        "opening::an_unmounted_store_is_refused_and_nothing_is_made",
        an_unmounted_store_is_refused_and_nothing_is_made,
    ),
    (
        "opening::another_upper_layer_is_refused",
        another_upper_layer_is_refused,
    ),
    (
        "opening::another_lower_store_is_refused",
        another_lower_store_is_refused,
    ),
    (
        "opening::check_mount_false_opens_anything",
        check_mount_false_opens_anything,
    ),
    (
        "opening::a_symbolic_link_to_the_store_is_refused",
        a_symbolic_link_to_the_store_is_refused,
    ),
    (
        "opening::shared_directories_are_refused",
        shared_directories_are_refused,
    ),
    (
        "opening::a_store_below_without_a_database_is_refused",
        a_store_below_without_a_database_is_refused,
    ),
    (
        "opening::a_damaged_journal_is_refused",
        a_damaged_journal_is_refused,
    ),
    (
        "opening::a_mount_of_the_merged_view_below_is_right_too",
        a_mount_of_the_merged_view_below_is_right_too,
    ),
    (
        "opening::a_daemons_store_has_directories_and_is_not_written",
        a_daemons_store_has_directories_and_is_not_written,
    ),
    ("opening::auto_is_whatever_is_there", auto_is_whatever_is_there),
    (
        "opening::what_a_dead_process_has_only_protected_stays",
        what_a_dead_process_has_only_protected_stays,
    ),
    (
        "opening::what_is_about_to_be_registered_stays",
        what_is_about_to_be_registered_stays,
    ),
];

const BY_HAND: &str = "x6xcakh6pmsprh9372j47cndyciwzqqy-by-hand";
const SCRATCH: &str = "00000000000000000000000000000000-superpose-tmp";

/// A store in which somebody has put an object that is not registered, and which a process that is gone had protected,
/// together with `others`.
fn protected_by_the_dead(others: &[&str]) -> Stage {
    let stage = Stage::over(|_| {});
    drop(stage.open());
    for name in [&[BY_HAND], others].concat() {
        fs::write(stage.merged_dir().join(name), "precious").unwrap();
    }
    let roots: String = [&[BY_HAND], others]
        .concat()
        .iter()
        .map(|name| format!("/nix/store/{name}\0"))
        .collect();
    fs::write(dead_roots(&stage), roots).unwrap();
    stage
}

/// A file of temporary roots as this program makes them: no process has that number.
fn dead_roots(stage: &Stage) -> std::path::PathBuf {
    stage
        .state_dir()
        .join("temproots")
        .join(((1 << 22) + 7).to_string())
}

/// Who registers an object protects it, and has not made it.
fn what_a_dead_process_has_only_protected_stays() {
    let stage = protected_by_the_dead(&[]);
    drop(stage.open());
    assert_eq!(stage.upper_names(), [BY_HAND]);
    assert!(!dead_roots(&stage).exists());
}

fn what_is_about_to_be_registered_stays() {
    let stage = protected_by_the_dead(&[SCRATCH]);
    let mut options = OpenOptions::default();
    options.leftovers = Leftovers::KeepObjects;
    drop(stage.open_with(options));
    assert_eq!(stage.upper_names(), [BY_HAND]);
    let stage = protected_by_the_dead(&[SCRATCH]);
    drop(stage.open());
    assert_eq!(stage.upper_names(), [""; 0], "it is the rest of an addition");
}

fn an_unmounted_store_is_refused_and_nothing_is_made() {
    let stage = Stage::unmounted(|_| {});
    let error = Store::open(stage.layout(), OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::WrongMount { .. }), "{error}");
    let text = error.to_string();
    for part in ["local-overlay://", "merged-store/nix/store", "superpose mount"] {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
    StoreView::open_verified(&stage.layout()).unwrap_err();
    assert!(!stage.path("merged-store/nix/var").exists());
}

fn another_upper_layer_is_refused() {
    let stage = Stage::over(|_| {});
    fs::create_dir(stage.path("store-x")).unwrap();
    let reference = StoreReference::overlay(
        &StoreReference::local(stage.path("store-a")),
        stage.path("store-x"),
        stage.path("merged-store"),
    );
    let error = Store::open(resolve(&reference), OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::WrongMount { .. }), "{error}");
}

fn another_lower_store_is_refused() {
    let stage = Stage::over(|_| {});
    let other = StoreReference::local(stage.path("store-x"));
    drop(add_text(
        &mut Store::open(resolve(&other), OpenOptions::default()).unwrap(),
        "other",
        "1",
        &[],
    ));
    let reference = StoreReference::overlay(&other, stage.upper_dir(), stage.path("merged-store"));
    let error = Store::open(resolve(&reference), OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::WrongMount { .. }), "{error}");
}

fn check_mount_false_opens_anything() {
    let stage = Stage::unmounted(|_| {});
    let reference = stage.reference().with_param("check-mount", b"false");
    Store::open(resolve(&reference), OpenOptions::default()).unwrap();
}

fn a_symbolic_link_to_the_store_is_refused() {
    let stage = Stage::over(|_| {});
    symlink(stage.path("merged-store"), stage.path("link")).unwrap();
    let reference = StoreReference::overlay(
        &StoreReference::local(stage.path("store-a")),
        stage.upper_dir(),
        stage.path("link"),
    );
    let error = Store::open(resolve(&reference), OpenOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::SymlinkedStore { link, .. } if *link == stage.path("link")),
        "{error}"
    );
}

fn shared_directories_are_refused() {
    let stage = Stage::unmounted(|_| {});
    let lower = StoreReference::local(stage.path("store-a"));
    let layout = |reference: &StoreReference| Layout::resolve(reference, &Defaults::default());
    let overlay = StoreReference::overlay(&lower, stage.upper_dir(), stage.path("merged-store"));
    // By another text, the same directory.
    symlink(stage.path("store-a"), stage.path("alias")).unwrap();
    for state in ["store-a/nix/var/nix", "alias/nix/var/nix"] {
        let shared = overlay
            .clone()
            .with_param("state", stage.path(state).as_os_str().as_bytes());
        let error = layout(&shared).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::SharedDirectory {
                    what: "state directory",
                    ..
                }
            ),
            "{state}: {error}"
        );
    }
    let shared = StoreReference::overlay(&lower, stage.lower_dir(), stage.path("merged-store"));
    assert!(matches!(
        layout(&shared).unwrap_err(),
        Error::SharedDirectory {
            what: "upper layer",
            ..
        }
    ));
    let other_dir = overlay.with_param("store", b"/other/store");
    assert!(matches!(
        layout(&other_dir).unwrap_err(),
        Error::StoreDirsDiffer { .. }
    ));
}

fn a_store_below_without_a_database_is_refused() {
    let stage = Stage::over(|_| {});
    fs::rename(stage.path("store-a/nix/var/nix/db"), stage.path("db-away")).unwrap();
    let error = Store::open(stage.layout(), OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("store-a"), "{error}");
    assert!(
        !stage.path("store-a/nix/var/nix/db").exists(),
        "nothing is made below"
    );
}

fn a_damaged_journal_is_refused() {
    let stage = Stage::over(|_| {});
    drop(stage.open());
    let own = stage.state_dir().join("superpose");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("journal"), "this was never written by us").unwrap();
    let error = Store::open(stage.layout(), OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::JournalDamaged { .. }), "{error}");
    assert_eq!(
        fs::read(own.join("journal")).unwrap(),
        b"this was never written by us"
    );
}

/// Stock Nix wants an overlay over an overlay to be mounted over the merged view of the lower one.
fn a_mount_of_the_merged_view_below_is_right_too() {
    let stage = Stage::over(|lower| drop(add_text(lower, "below", "1", &[])));
    drop(add_text(&mut stage.open(), "middle", "2", &[]));
    let (upper, root, work) = (
        stage.path("store-c"),
        stage.path("merged-again"),
        stage.path("work-c"),
    );
    for directory in [&upper, &root.join("nix/store"), &work] {
        fs::create_dir_all(directory).unwrap();
    }
    mount_overlay(
        &MountPlan::new(vec![stage.merged_dir()], &upper, &work, root.join("nix/store"))
            .with_attributes(OverlayAttributes::for_this_process().unwrap()),
    )
    .unwrap();
    let reference = StoreReference::overlay(&stage.reference(), &upper, &root);
    drop(Store::open(resolve(&reference), OpenOptions::default()).unwrap());
    unmount(&root.join("nix/store"), Detach::Lazily).unwrap();
}

fn a_daemons_store_has_directories_and_is_not_written() {
    let socket = std::path::Path::new("/no/such/socket");
    let below = StoreReference::daemon(Some(socket)).with_path("root", "/mnt");
    let layout = resolve(&below);
    assert!(matches!(&layout, Layout::Daemon(daemon) if daemon.socket == socket));
    let error = Store::open(layout, OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::DaemonStore { .. }), "{error}");
    assert!(
        error.to_string().contains("unix:///no/such/socket?root=/mnt"),
        "{error}"
    );
    let above = resolve(&StoreReference::overlay(&below, "/upper", "/root"));
    assert_eq!(
        above.layers(),
        ["/upper", "/mnt/nix/store"].map(std::path::PathBuf::from)
    );
    // The daemon's own state directory is as little to be shared as that of a local store.
    let shared = StoreReference::overlay(&below, "/upper", "/other").with_path("state", "/mnt/nix/var/nix");
    let error = Layout::resolve(&shared, &Defaults::default()).unwrap_err();
    assert!(matches!(error, Error::SharedDirectory { .. }), "{error}");
    let gnu = below.with_param("store", "/gnu/store");
    let error = Layout::resolve(
        &StoreReference::overlay(&gnu, "/upper", "/root"),
        &Defaults::default(),
    );
    assert!(matches!(error, Err(Error::StoreDirsDiffer { .. })));
}

fn auto_is_whatever_is_there() {
    let top = tempfile::tempdir().unwrap();
    let there = |name: &str| {
        fs::write(top.path().join(name), "").unwrap();
        top.path().join(name)
    };
    let is_daemon = |state, socket| {
        let defaults = Defaults {
            state_dir: state,
            daemon_socket: Some(socket),
            ..Defaults::default()
        };
        let (layout, _) = Layout::resolve(&StoreReference::auto(), &defaults).unwrap();
        match layout {
            Layout::Daemon(_) => true,
            Layout::Local(_) => false,
            Layout::Overlay(_) => panic!("nothing names an overlay"),
        }
    };
    let (state, socket, nothing) = (top.path().to_owned(), there("socket"), top.path().join("nothing"));
    assert!(!is_daemon(state, socket.clone()));
    assert!(is_daemon(nothing.clone(), socket));
    assert!(!is_daemon(nothing.clone(), nothing));
}
