// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of a local store: `add`, `add-root`, `delete`, `verify`, `status`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::stand::Stand;

/// What `nix-store --add hello.txt` of Nix 2.34 prints.
const HELLO: &str = "/nix/store/i9pmrzmpshapij2kin22pff6fc2adavx-hello.txt";

#[test]
fn what_is_added_is_valid_and_there() {
    let stand = Stand::new();
    let path = stand.add("hello.txt", "hello\n", &[]);
    assert_eq!(path, HELLO);
    let base = path.strip_prefix("/nix/store/").expect("it is in the store");
    let real = stand.path("store/nix/store").join(base);
    assert_eq!(fs::read(&real).expect("it is there"), b"hello\n");
    assert_eq!(
        fs::metadata(&real).expect("it is there").permissions().mode() & 0o777,
        0o444
    );
    // By every name.
    std::os::unix::fs::symlink(&path, stand.path("result")).expect("the link is made");
    for name in [
        path.as_str(),
        base,
        real.to_str().expect("it is text"),
        "./result",
        "result",
    ] {
        assert_eq!(stand.lines(&["path-info", name]), [HELLO], "{name}");
    }
}

#[test]
fn adding_again_writes_nothing_and_says_so() {
    let stand = Stand::new();
    stand.file("a", "a");
    let outcome = || stand.json(&["add", "--json", "a"])[0]["outcome"].clone();
    assert_eq!((outcome(), outcome()), (json!("stored"), json!("already-valid")));
}

#[test]
fn methods_and_hashes_give_the_paths_of_nix() {
    let stand = Stand::new();
    stand.file("abc", "abc");
    let check = |arguments: &[&str], expected: &str| {
        let mut all = vec!["add", "abc"];
        all.extend(arguments);
        assert_eq!(
            stand.text(&all).trim_end(),
            format!("/nix/store/{expected}"),
            "{arguments:?}"
        );
    };
    // As `nix-store --add-fixed sha256` and `nix store add --mode text` of Nix 2.34 print them.
    check(&["--method", "flat"], "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc");
    check(&["--method", "text"], "26nci8mz5f9aldbsgmalpkj20xyqqd5c-abc");
    for algorithm in ["md5", "sha1", "sha512"] {
        stand.text(&["add", "abc", "--method", "flat", "--hash-algo", algorithm]);
    }
    assert_eq!(stand.run(&["add", "abc", "--hash-algo", "crc32"]).status, 2);
    assert_eq!(stand.run(&["add", "abc", "--method", "git"]).status, 2);
}

#[test]
fn references_are_recorded_and_must_be_valid() {
    let stand = Stand::new();
    let library = stand.add("library", "l", &[]);
    let program = stand.add("program", "p", &[&library]);
    assert_eq!(
        stand.lines(&["query", "--references", &program]),
        [library.as_str()]
    );
    let unknown = "/nix/store/0g1savw1cf7pji42hasyx0smc4aw15nw-unknown";
    let ended = stand.run(&["add", "program", "--name", "other", "--reference", unknown]);
    assert_eq!((ended.status, ended.stdout.len()), (1, 0));
    assert!(ended.stderr.contains(unknown), "{}", ended.stderr);
    assert_eq!(stand.lines(&["path-info", "--all"]).len(), 2);
    assert_eq!(stand.text(&["verify", "--check-contents"]).lines().count(), 1);
}

#[test]
fn a_root_protects_until_its_link_is_gone() {
    let stand = Stand::new();
    let path = stand.add("kept", "k", &[]);
    assert_eq!(stand.text(&["add-root", "keep/result", &path]), "");
    let link = stand.path("keep/result");
    assert_eq!(
        fs::read_link(&link).expect("it is a link").to_str(),
        Some(path.as_str())
    );
    let roots = stand.json(&["query", "--roots", "--json", &path]);
    assert_eq!(roots, json!([{ "link": link.to_str(), "path": path }]));
    assert_eq!(
        stand.lines(&["query", "--roots", &path]),
        [format!("{} -> {path}", link.display())]
    );
    let refused = stand.run(&["delete", &path]);
    assert_eq!((refused.status, refused.stdout.len()), (1, 0));
    assert!(
        refused.stderr.contains(link.to_str().expect("it is text")),
        "{}",
        refused.stderr
    );
    fs::remove_file(link).expect("it can be removed");
    assert!(
        stand
            .text(&["delete", &path])
            .starts_with("1 store paths deleted, ")
    );
    assert_eq!(stand.run(&["path-info", &path]).status, 1);
}

#[test]
fn a_root_can_be_made_while_adding() {
    let stand = Stand::new();
    stand.file("a", "a");
    let path = stand.text(&["add", "a", "--add-root", "result"]);
    assert_eq!(stand.lines(&["path-info", "./result"]), [path.trim_end()]);
    assert_eq!(stand.run(&["add", "a", "a", "--add-root", "result"]).status, 2);
    assert_eq!(stand.run(&["add", "a", "a", "--name", "b"]).status, 2);
    // Something that is not a link into the store is not replaced.
    stand.file("precious", "p");
    assert_eq!(stand.run(&["add-root", "precious", path.trim_end()]).status, 1);
    assert_eq!(fs::read(stand.path("precious")).expect("it is there"), b"p");
    let unknown = "0g1savw1cf7pji42hasyx0smc4aw15nw-unknown";
    assert_eq!(stand.run(&["add-root", "other", unknown]).status, 1);
    assert!(!stand.path("other").is_symlink());
}

#[test]
fn deletion_is_all_or_nothing() {
    let stand = Stand::new();
    let library = stand.add("library", "l", &[]);
    let program = stand.add("program", "p", &[&library]);
    let single = stand.add("single", "s", &[]);
    assert_eq!(stand.run(&["delete", &single, &library]).status, 1);
    assert_eq!(stand.lines(&["path-info", "--all"]).len(), 3);
    let deleted = stand.json(&["delete", "--json", &library, &program]);
    assert_eq!(deleted["deleted"].as_array().map(Vec::len), Some(2));
    assert_eq!(stand.lines(&["path-info", "--all"]), [single]);
    assert!(
        stand
            .text(&["delete", &library])
            .starts_with("0 store paths deleted, 0.0 KiB freed")
    );
}

#[test]
fn verification_finds_what_was_changed_and_what_is_missing() {
    let stand = Stand::new();
    let library = stand.add("library", "library", &[]);
    stand.add("program", "program", &[&library]);
    let modified = stand.add("modified", "modified", &[]);
    let real = |path: &str| stand.path("store").join(path.trim_start_matches('/'));
    fs::set_permissions(real(&modified), fs::Permissions::from_mode(0o644)).expect("the mode is changed");
    fs::write(real(&modified), "MODIFIED").expect("it is overwritten");
    assert_eq!(stand.run(&["verify"]).status, 0);
    let ended = stand.run(&["verify", "--check-contents", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!(
        (ended.status, report["faults"].as_array().map(Vec::len)),
        (1, Some(1))
    );
    assert_eq!(
        (&report["faults"][0]["fault"], &report["faults"][0]["path"]),
        (&json!("modified"), &json!(modified))
    );
    fs::remove_file(real(&library)).expect("it is removed");
    let ended = stand.run(&["verify"]);
    let text = String::from_utf8(ended.stdout).expect("it is text");
    assert_eq!(ended.status, 1);
    assert!(
        text.contains(&format!("'{library}' is missing, and 1 valid paths need it")),
        "{text}"
    );
}

#[test]
fn status_tells_what_there_is_and_what_is_wrong() {
    let stand = Stand::new();
    let fresh = stand.json(&["status", "--json"]);
    assert_eq!(
        (&fresh["upper"]["rows"], &fresh["problems"]),
        (&json!(0), &json!([]))
    );
    stand.add("a", "a", &[]);
    let status = stand.json(&["status", "--json"]);
    assert_eq!(status["kind"], "local");
    assert_eq!(
        (&status["upper"]["rows"], &status["upper"]["objects"]),
        (&json!(1), &json!(1))
    );
    fs::write(stand.path("store/nix/var/nix/db/schema"), "11").expect("it is overwritten");
    let ended = stand.run(&["status"]);
    let text = String::from_utf8(ended.stdout).expect("it is text");
    assert_eq!((ended.status, ended.stderr.as_str()), (1, ""));
    assert!(
        text.contains("\nproblem") && text.contains("says 11: expected 10"),
        "{text}"
    );
}
