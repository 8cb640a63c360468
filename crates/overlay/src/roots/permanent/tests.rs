// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links of every kind, and where they lead.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

const A: &str = "x6xcakh6pmsprh9372j47cndyciwzqqy-a";
const B: &str = "00000000000000000000000000000000-b";

/// A state directory and a home directory.
struct Fixture {
    top: tempfile::TempDir,
    state: StateDir,
}

impl Fixture {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        fs::create_dir_all(top.path().join("state/gcroots/auto")).unwrap();
        fs::create_dir_all(top.path().join("home")).unwrap();
        Self { top, state }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        symlink(target, self.path(name)).unwrap();
    }

    fn scan(&self, stale: Stale) -> PermanentRoots {
        scan(&self.state, &StoreDir::default(), stale).unwrap()
    }

    /// The roots as pairs of relative link and base name.
    fn roots(&self) -> Vec<(String, String)> {
        self.scan(Stale::Report)
            .roots
            .into_iter()
            .map(|root| {
                let link = root.link.strip_prefix(self.top.path()).unwrap();
                (link.to_str().unwrap().to_owned(), root.path.to_string())
            })
            .collect()
    }
}

/// Makes one link below `gcroots`, and expects these roots.
fn check(name: &str, target: &str, expected: &[(&str, &str)]) {
    let fixture = Fixture::new();
    let target = target.replace("$TOP", fixture.top.path().to_str().unwrap());
    fixture.link("home/result", format!("/nix/store/{A}"));
    fixture.link("home/relative", format!("../../../../../../../nix/store/{A}/lib"));
    fixture.link("home/chain", "result");
    fixture.link("home/loop", "loop");
    fixture.link("home/outside", "/etc/passwd");
    fs::write(fixture.path("home/file"), "").unwrap();
    fixture.link(name, &target);
    let expected: Vec<_> = expected
        .iter()
        .map(|(link, path)| ((*link).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(fixture.roots(), expected, "{name} -> {target}");
    assert!(fixture.scan(Stale::Report).stale.is_empty(), "{name} -> {target}");
}

#[test]
fn links_into_the_store_are_roots() {
    for name in [
        "state/gcroots/x",
        "state/gcroots/deep/er/x",
        "state/gcroots/auto/x",
        "state/profiles/x",
    ] {
        check(name, &format!("/nix/store/{A}"), &[(name, A)]);
        check(name, &format!("/nix/store/{A}/bin/sh"), &[(name, A)]);
        check(name, &format!("/nix/../nix//store/{A}/."), &[(name, A)]);
    }
    check(
        "state/gcroots/x",
        &format!("../../../../../../../../nix/store/{B}"),
        &[("state/gcroots/x", B)],
    );
    for not in [
        "/nix/store",
        "/nix/store/.links/x",
        "/nix/store/x",
        "/nix/storefront/",
        "$TOP/nix/store",
        "/",
    ] {
        check("state/gcroots/x", not, &[]);
    }
    check("state/gcroots/x", &format!("/nix/storefront/{A}"), &[]);
}

#[test]
fn links_to_links_into_the_store_are_roots_under_the_name_of_the_second() {
    for (target, expected) in [
        ("$TOP/home/result", Some("home/result")),
        ("../../home/result", Some("home/result")),
        ("../../home/./../home//result", Some("home/result")),
        ("$TOP/home/relative", Some("home/relative")),
        ("$TOP/home/chain", None),
        ("$TOP/home/loop", None),
        ("$TOP/home/outside", None),
        ("$TOP/home/file", None),
        ("$TOP/home", None),
        ("x", None),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|link| (link, A)).collect();
        check("state/gcroots/x", target, &expected);
    }
}

#[test]
fn regular_files_are_roots_by_their_name() {
    let fixture = Fixture::new();
    for name in [A, "not-a-store-path"] {
        fs::write(fixture.path("state/gcroots").join(name), "").unwrap();
    }
    fs::create_dir(fixture.path("state/gcroots").join(B)).unwrap();
    assert_eq!(fixture.roots(), [(format!("state/gcroots/{A}"), A.to_owned())]);
}

#[test]
fn a_profile_is_found_once_and_links_to_directories_are_not_followed() {
    let fixture = Fixture::new();
    fixture.link("state/profiles/default", "default-1-link");
    fixture.link("state/profiles/default-1-link", format!("/nix/store/{A}"));
    // As Nix before 2.34 makes it.
    fixture.link("state/gcroots/profiles", fixture.path("state/profiles"));
    fixture.link("other/x", format!("/nix/store/{B}"));
    fixture.link("state/gcroots/other", fixture.path("other"));
    assert_eq!(
        fixture.roots(),
        [("state/profiles/default-1-link".to_owned(), A.to_owned())]
    );
}

#[test]
fn stale_links_are_reported_and_removed_only_when_asked_for() {
    let fixture = Fixture::new();
    fixture.link("state/gcroots/auto/stale", fixture.path("home/gone"));
    fixture.link(
        "state/gcroots/auto/below-a-file",
        fixture.path("state/gcroots/auto/file/x"),
    );
    fs::write(fixture.path("state/gcroots/auto/file"), "").unwrap();
    fixture.link("state/gcroots/auto/alive", fixture.path("home/result"));
    fixture.link("home/result", format!("/nix/store/{A}"));
    fixture.link("state/gcroots/auto/dangling-in-store", format!("/nix/store/{B}"));
    fixture.link("state/gcroots/by-hand", fixture.path("home/gone"));
    let stale = ["below-a-file", "stale"].map(|name| fixture.path("state/gcroots/auto").join(name));
    for (mode, stays) in [
        (Stale::Report, true),
        (Stale::Report, true),
        (Stale::Remove, false),
    ] {
        let found = fixture.scan(mode);
        assert_eq!(found.stale, stale);
        assert_eq!(found.roots.len(), 2);
        for path in &stale {
            assert_eq!(path.is_symlink(), stays, "{}", path.display());
        }
    }
    assert!(fixture.scan(Stale::Remove).stale.is_empty());
    for name in ["auto/alive", "auto/dangling-in-store", "by-hand"] {
        assert!(fixture.path("state/gcroots").join(name).is_symlink(), "{name}");
    }
}

#[test]
fn a_target_that_comes_back_during_the_removal_keeps_its_link() {
    let fixture = Fixture::new();
    let user = fixture.path("home/result");
    fixture.link("home/result", format!("/nix/store/{A}"));
    fixture.link("state/gcroots/auto/x", &user);
    let store_dir = StoreDir::default();
    let mut scan = Scan {
        store_dir: &store_dir,
        auto: fixture.state.auto_roots_path(),
        stale: Stale::Remove,
        roots: BTreeSet::new(),
        found: PermanentRoots::default(),
        pending: Vec::new(),
    };
    // The moment after the target was found missing, and before the link is removed.
    let directory = fs::File::open(fixture.path("state/gcroots/auto")).unwrap();
    let text = std::ffi::CString::new(user.as_os_str().as_bytes()).unwrap();
    scan.stale_link(
        directory.as_fd(),
        c"x",
        fixture.path("state/gcroots/auto/x"),
        &text,
        &user,
    )
    .unwrap();
    assert_eq!(fs::read_link(fixture.path("state/gcroots/auto/x")).unwrap(), user);
    assert!(scan.found.stale.is_empty());
    assert_eq!(scan.roots.len(), 1);
}

#[test]
fn what_cannot_be_read_is_reported_and_nothing_is_removed_for_it() {
    let fixture = Fixture::new();
    // Looping directories and overlong names fail for root as well.
    fixture.link("home/loop", "loop");
    fixture.link("state/gcroots/auto/loop", fixture.path("home/loop/x"));
    fixture.link("state/gcroots/auto/long", fixture.path(&"x".repeat(300)));
    fixture.link("home/result", format!("/nix/store/{A}"));
    fixture.link("state/gcroots/auto/x", fixture.path("home/result"));
    let found = fixture.scan(Stale::Remove);
    let mut unreadable: Vec<_> = found
        .unreadable
        .iter()
        .map(|unreadable| unreadable.path.clone())
        .collect();
    unreadable.sort();
    assert_eq!(
        unreadable,
        [fixture.path("home/loop/x"), fixture.path(&"x".repeat(300))]
    );
    assert_eq!(found.roots.len(), 1);
    assert!(found.stale.is_empty());
    assert!(fixture.path("state/gcroots/auto/loop").is_symlink());

    if !rustix::process::geteuid().is_root() {
        let locked = fixture.path("state/gcroots/locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        let found = fixture.scan(Stale::Report);
        assert!(
            found
                .unreadable
                .iter()
                .any(|unreadable| unreadable.path == locked)
        );
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn only_what_concerns_the_file_itself_is_reported_and_passed_over() {
    for (errno, expected) in [
        (Errno::ACCESS, true),
        (Errno::NOENT, true),
        (Errno::NOTDIR, true),
        (Errno::LOOP, true),
        (Errno::MFILE, false),
        (Errno::IO, false),
        (Errno::NOMEM, false),
        (Errno::STALE, false),
    ] {
        assert_eq!(is_unreadable(&errno.into()), expected, "{errno}");
    }
}

#[test]
fn names_are_bytes_and_deep_trees_are_no_matter() {
    let fixture = Fixture::new();
    let mut deep = fixture.path("state/gcroots");
    deep.push(OsStr::from_bytes(b"\xff\n"));
    for _ in 0..100 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    symlink(format!("/nix/store/{A}"), deep.join("x")).unwrap();
    let found = fixture.scan(Stale::Report);
    assert_eq!(found.roots.len(), 1);
    assert_eq!(found.roots[0].link, deep.join("x"));
}

#[test]
fn a_store_without_roots_has_none_and_one_that_is_only_read_keeps_its_links() {
    let empty = tempfile::tempdir().unwrap();
    let state = StateDir::open_read_only(empty.path()).unwrap();
    assert!(
        scan(&state, &StoreDir::default(), Stale::Report)
            .unwrap()
            .roots
            .is_empty()
    );
    let refused = scan(&state, &StoreDir::default(), Stale::Remove);
    assert!(matches!(refused, Err(Error::ReadOnlyState { .. })));
}
