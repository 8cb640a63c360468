// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said when something is wrong, and the exit status.

use crate::stand::Stand;

#[test]
fn arguments_that_are_no_store_paths() {
    let stand = Stand::new();
    stand.add("a", "a", &[]);
    let argument = |text: &str| stand.transcript(&["path-info", text]);
    insta::assert_snapshot!("not_a_store_path", argument("rubbish"));
    insta::assert_snapshot!("not_in_the_store", argument("/etc/passwd"));
    insta::assert_snapshot!(
        "wrong_store_directory",
        argument("/gnu/store/0g1savw1cf7pji42hasyx0smc4aw15nw-x")
    );
    insta::assert_snapshot!(
        "wrong_digits",
        argument("/nix/store/0e1savw1cf7pji42hasyx0smc4aw15nw-x")
    );
    insta::assert_snapshot!(
        "not_valid",
        argument("/nix/store/0g1savw1cf7pji42hasyx0smc4aw15nw-x")
    );
    insta::assert_snapshot!("wrong_name", stand.transcript(&["add", "a", "--name", "a/b"]));
    insta::assert_snapshot!("name_of_the_file", stand.transcript(&["add", "/"]));
}

#[test]
fn urls_that_cannot_be_used() {
    let stand = Stand::new();
    let check = |name: &str, url: &str| {
        let text = stand.transcript(&["--store", url, "path-info", "0g1savw1cf7pji42hasyx0smc4aw15nw-x"]);
        insta::assert_snapshot!(name, text);
    };
    check("url_unknown_kind", "ftp://host/store");
    check("url_rubbish", "rubbish");
    check("url_of_a_daemon", "unix:///no/such/socket");
    check("url_bad_encoding", "local://?root=%zz");
    check("url_relative_root", "local://?root=relative");
    check("url_bad_boolean", "local://?root=/x&read-only=perhaps");
    check(
        "url_without_upper_layer",
        "local-overlay://?root=/m&lower-store=/l",
    );
    check(
        "url_without_state",
        "local-overlay://?lower-store=/l&upper-layer=/u",
    );
    check(
        "url_shared_state",
        "local-overlay://?root=/l&lower-store=/l&upper-layer=/u",
    );
    check(
        "url_other_store_directory",
        "local-overlay://?root=/m&lower-store=/l%3Fstore=/gnu/store&upper-layer=/u",
    );
    check("no_database", "local://?root=/no/such/store");
    let change = stand.transcript(&["--store", "daemon", "gc"]);
    insta::assert_snapshot!("change_of_a_daemon", change);
}

#[test]
fn odd_urls_are_used_with_a_warning() {
    let stand = Stand::new();
    let path = stand.add("a", "a", &[]);
    let root = stand.path("store");
    let url = format!(
        "local://?root={0}&root=/other&colour=blue&lonely#end",
        root.display()
    );
    insta::assert_snapshot!(
        "url_warnings",
        stand.transcript(&["--store", &url, "path-info", &path])
    );
    let ended = stand.run(&["--store", &url, "--quiet", "path-info", &path]);
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
}

#[test]
fn the_store_is_taken_from_the_environment() {
    let stand = Stand::new();
    let path = stand.add("a", "a", &[]);
    let check = |superpose: &str, remote: &str, expected| {
        let mut command = stand.command();
        command
            .args(["path-info", &path])
            .env("SUPERPOSE_STORE", superpose)
            .env("NIX_REMOTE", remote);
        assert_eq!(
            command.output().expect("the program starts").status.code(),
            Some(expected)
        );
    };
    let store = stand.path("store");
    let store = store.to_str().expect("it is text");
    check(store, "", 0);
    check(store, "/no/such/store", 0);
    check("", store, 0);
    check("./store", "", 0);
    check("/no/such/store", store, 1);
}

#[test]
fn the_defaults_of_nix_are_taken_from_the_environment() {
    let stand = Stand::new();
    stand.file("a", "a");
    let run = |state: &str, arguments: &[&str]| {
        let mut command = stand.command();
        command.env_clear().args(["--store", "local"]).args(arguments);
        command
            .env("NIX_STORE_DIR", stand.path("objects"))
            .env("NIX_STATE_DIR", state);
        let output = command.output().expect("the program starts");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("it is text"),
        )
    };
    let state = stand.path("state");
    let state = state.to_str().expect("it is text");
    let (status, path) = run(state, &["add", "a"]);
    assert_eq!(status, Some(0));
    assert!(
        path.starts_with(stand.path("objects").to_str().expect("it is text")),
        "{path}"
    );
    assert_eq!(
        run(state, &["path-info", path.trim_end()]),
        (Some(0), path.clone())
    );
    assert_eq!(run("relative", &["path-info", path.trim_end()]).0, Some(2));
}

#[test]
fn a_database_that_is_none() {
    let stand = Stand::new();
    let path = stand.add("a", "a", &[]);
    let database = stand.path("store/nix/var/nix/db/db.sqlite");
    std::fs::write(database, "rubbish".repeat(1000)).expect("it is overwritten");
    insta::assert_snapshot!("corrupt_database", stand.transcript(&["path-info", &path]));
}

#[test]
fn commands_about_mounts_need_an_overlay_store() {
    let stand = Stand::new();
    insta::assert_snapshot!("mount_of_a_local_store", stand.transcript(&["mount"]));
    for command in [
        &["check-mount"][..],
        &["umount"],
        &["remount"],
        &["run", "--", "true"],
    ] {
        assert_eq!(stand.run(command).status, 2, "{command:?}");
    }
}
