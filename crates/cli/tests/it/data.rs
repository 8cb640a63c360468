// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects in and out as archives: `dump`, `restore`, `add-nar`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::stand::{Stand, tree};

/// A tree with one of everything.
fn made(stand: &Stand) -> String {
    let program = stand.file("tree/bin/program", "#!/bin/sh\n");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("the mode is changed");
    stand.file("tree/share/a b+c,d:e\\f", "text");
    symlink("program", stand.path("tree/bin/link")).expect("the link is made");
    fs::create_dir(stand.path("tree/empty")).expect("the directory is made");
    let path = stand.text(&["add", "tree"]);
    path.trim_end().to_owned()
}

#[test]
fn an_object_comes_out_as_it_went_in() {
    let stand = Stand::new();
    let path = made(&stand);
    let archive = stand.run(&["dump", &path]).stdout;
    assert_eq!(stand.feed(&["restore", "copy"], &archive).fine(), "");
    assert_eq!(tree(&stand.path("copy")), tree(&stand.path("tree")));
    let mode = |path: &str| {
        fs::metadata(stand.path(path))
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("copy/bin/program"), mode("copy/share/a b+c,d:e\\f")),
        (0o555, 0o444)
    );
    let again = stand.feed(&["add-nar", "--name", "tree"], &archive).fine();
    assert_eq!(again.trim_end(), path);
    let other = stand
        .feed(&["add-nar", "--name", "other", "--json", "-"], &archive)
        .fine();
    let other: serde_json::Value = serde_json::from_str(&other).expect("it is JSON");
    assert_eq!(
        (&other[0]["outcome"], other[0]["narSize"].as_u64()),
        (&"stored".into(), Some(archive.len() as u64))
    );
}

#[test]
fn a_part_of_an_object_can_be_dumped_but_not_through_a_link() {
    let stand = Stand::new();
    let path = made(&stand);
    let archive = stand.run(&["dump", &format!("{path}/bin")]).stdout;
    assert_eq!(stand.feed(&["restore", "bin"], &archive).fine(), "");
    assert_eq!(tree(&stand.path("bin")), tree(&stand.path("tree/bin")));
    let link = stand.run(&["dump", &format!("{path}/bin/link")]).stdout;
    stand.feed(&["restore", "link"], &link).fine();
    assert_eq!(
        fs::read_link(stand.path("link")).expect("it is a link"),
        Path::new("program")
    );

    symlink("/", stand.path("tree/root")).expect("the link is made");
    let path = stand.text(&["add", "--name", "leads-out", "tree"]);
    let ended = stand.run(&["dump", &format!("{}/root/etc/passwd", path.trim_end())]);
    assert_eq!((ended.status, ended.stdout.len()), (1, 0));
    assert!(
        ended.stderr.contains("leads through a symbolic link"),
        "{}",
        ended.stderr
    );
}

#[test]
fn restore_makes_only_what_is_new_and_whole() {
    let stand = Stand::new();
    let archive = stand.run(&["dump", &made(&stand)]).stdout;
    stand.file("there", "precious");
    let check = |destination: &str, input: &[u8], expected: &str| {
        let ended = stand.feed(&["restore", destination], input);
        assert_eq!((ended.status, ended.stdout.len()), (1, 0), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    };
    check("there", &archive, "there");
    assert_eq!(fs::read(stand.path("there")).expect("it is there"), b"precious");
    check("no/such/parent", &archive, "cannot open the directory");
    check("cut", &archive[..archive.len() - 8], "");
    check("empty", b"", "");
    check("rubbish", &[0xff; 4096], "");
    for gone in ["cut", "empty", "rubbish"] {
        assert!(!stand.path(gone).exists(), "{gone} was left behind");
    }
    let ended = stand.feed(&["add-nar", "--name", "x"], b"rubbish");
    assert_eq!((ended.status, ended.stdout.len()), (1, 0));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let stand = Stand::new();
    let path = stand.add("large", &"x".repeat(4 << 20), &[]);
    let mut child = stand
        .command()
        .args(["dump", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_full_disk_is_an_error() {
    let stand = Stand::new();
    let path = stand.add("small", "x", &[]);
    for arguments in [["dump", &path], ["path-info", &path]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("it can be opened");
        let output = stand
            .command()
            .args(arguments)
            .stdout(full)
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).expect("messages are text");
        assert!(
            stderr.starts_with("error: cannot write to standard output\n  caused by: No space left"),
            "{stderr}"
        );
    }
}
