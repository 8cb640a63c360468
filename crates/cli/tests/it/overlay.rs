// SPDX-License-Identifier: MIT OR Apache-2.0
//! Overlay stores that are not mounted: everything says so, and nothing is written.

use serde_json::json;

use crate::stand::{Stand, tree};

/// A lower store with one object, and the URL of an overlay store over it.
fn layered() -> (Stand, String, String) {
    let stand = Stand::new();
    let path = stand.add("a", "a", &[]);
    let [root, lower, upper] =
        ["merged", "store", "upper"].map(|name| stand.path(name).display().to_string());
    let url = format!("local-overlay://?root={root}&lower-store={lower}&upper-layer={upper}");
    (stand, url, path)
}

#[test]
fn nothing_is_answered_or_written_without_the_mount() {
    let (stand, url, path) = layered();
    let before = tree(&stand.path(""));
    for command in [
        &["path-info", &path][..],
        &["query", "--references", &path],
        &["check-validity", &path],
        &["ensure", &path],
        &["add", "a"],
        &["dump", &path],
        &["delete", &path],
        &["verify"],
        &["add-root", "link", &path],
        &["umount"],
        &["remount"],
    ] {
        let mut arguments = vec!["--store", &url];
        arguments.extend(command);
        let ended = stand.run(&arguments);
        assert_eq!(
            (ended.status, ended.stdout.len()),
            (1, 0),
            "{command:?}: {}",
            ended.stderr
        );
    }
    assert_eq!(tree(&stand.path("")), before);
    let ended = stand.run(&["--store", &url, "path-info", &path]);
    assert!(
        ended.stderr.contains("\nhint: `superpose mount` makes the mount"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_check_can_be_switched_off_for_questions() {
    let (stand, url, path) = layered();
    let url = format!("{url}&check-mount=false");
    assert_eq!(
        stand.lines(&["--store", &url, "path-info", "--layer", &path]),
        [format!("{path}\tlower")]
    );
    let info = stand.json(&["--store", &url, "path-info", "--json", &path]);
    assert_eq!(
        (&info[&path]["layer"], &info[&path]["metadata"]),
        (&json!("lower"), &json!("lower"))
    );
    assert!(!stand.path("merged").exists(), "a question made directories");
}

#[test]
fn status_works_before_anything_is_made() {
    let (stand, url, _) = layered();
    let before = tree(&stand.path(""));
    let ended = stand.run(&["--store", &url, "status", "--json", "--lower"]);
    let status: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!((ended.status, ended.stderr.as_str()), (1, ""));
    assert_eq!(
        (&status["kind"], &status["lower"]["rows"]),
        (&json!("local-overlay"), &json!(1))
    );
    assert_eq!(status["mount"]["outcome"], "different");
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(1));
    insta::assert_snapshot!("status_unmounted", stand.transcript(&["--store", &url, "status"]));
    assert_eq!(tree(&stand.path("")), before);
}

#[test]
fn the_mount_is_found_to_be_missing() {
    let (stand, url, _) = layered();
    std::fs::create_dir_all(stand.path("merged/nix/store")).expect("it is made");
    let ended = stand.run(&["--store", &url, "check-mount", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!((ended.status, &report["outcome"]), (1, &json!("different")));
    let [merged, lower, upper] =
        ["merged", "store", "upper"].map(|name| stand.path(name).display().to_string());
    std::fs::create_dir_all(&upper).expect("it is made");
    assert_eq!(
        stand
            .run(&["check-mount", "--upper", &upper, "--lower", &lower, &merged])
            .status,
        1
    );
    // A description is not a check.
    let description = stand.json(&["check-mount", "--json", &merged]);
    assert_eq!(description["isMountPoint"], false);
}
