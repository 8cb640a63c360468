// SPDX-License-Identifier: MIT OR Apache-2.0
//! What restored objects look like on disk.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use superpose_nar::{Error, RestoreOptions, SyncPolicy, Taps, restore, restore_hashed};

use crate::files::{Scratch, assert_canonical};
use crate::model::{Node, archive, directory, executable, file, link, make};

/// Whoever owns no files.
const NOBODY: u32 = 65534;

fn sample() -> Node {
    directory([
        ("executable", executable("run")),
        ("file", file("text")),
        ("link", link("file")),
        (
            "sub",
            directory([("empty", directory::<&str>([])), ("file", file(vec![3; 200_000]))]),
        ),
    ])
}

fn put(scratch: &Scratch, name: &str, node: &Node) {
    restore(
        &mut &archive(node)[..],
        &scratch.directory,
        name,
        &RestoreOptions::default(),
    )
    .unwrap();
}

#[test]
fn metadata_is_canonical() {
    let scratch = Scratch::new();
    for (name, node) in [
        ("tree", sample()),
        ("f", file("x")),
        ("e", executable("x")),
        ("l", link("x")),
    ] {
        put(&scratch, name, &node);
        assert_canonical(&scratch.path(name));
    }
    let mode = |name: &str| fs::symlink_metadata(scratch.path(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("f"), mode("e"), mode("l")), (0o444, 0o555, 0o777));
    assert_eq!(
        (mode("tree/file"), mode("tree/executable"), mode("tree/sub/empty")),
        (0o444, 0o555, 0o555)
    );
}

/// The mask belongs to the whole process, so the tests in question run again in processes that have another one.
#[test]
fn the_umask_does_not_matter() {
    let tests = [
        "restore::metadata_is_canonical",
        "copy::a_copy_has_canonical_metadata_whatever_the_source_has",
        "vectors::links_and_directories",
    ];
    for mask in ["0000", "0022", "0077", "0037"] {
        check_with_umask(mask, &tests);
    }
}

/// Not even if it takes the owner's right to fill what he makes. The privileged do not need that right.
#[test]
fn the_umask_does_not_matter_to_the_owner() {
    for mask in ["0200", "0300"] {
        check_with_umask(mask, &["restore::metadata_is_canonical"]);
    }
}

fn check_with_umask(mask: &str, tests: &[&str]) {
    let mut command = std::process::Command::new("sh");
    // The program may lie where others may not look, so it is handed over as a file.
    command
        .args([
            "-c",
            r#"umask "$1" && shift && exec /proc/self/fd/0 "$@""#,
            "sh",
            mask,
            "--exact",
        ])
        .args(tests)
        .current_dir("/")
        .stdin(fs::File::open(std::env::current_exe().unwrap()).unwrap());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains(&format!("{} passed", tests.len())),
        "{mask}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_access_time_is_not_touched() {
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
    let scratch = Scratch::new();
    put(&scratch, "x", &sample());
    for name in ["x", "x/file", "x/sub"] {
        assert!(
            fs::symlink_metadata(scratch.path(name))
                .unwrap()
                .accessed()
                .unwrap()
                > before,
            "{name}"
        );
    }
}

#[test]
fn a_group_of_the_parent_is_not_inherited() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("shared")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(scratch.path("shared"), None, Some(12345)).unwrap();
    }
    fs::set_permissions(scratch.path("shared"), fs::Permissions::from_mode(0o2775)).unwrap();
    let shared = fs::File::open(scratch.path("shared")).unwrap();
    for (name, node) in [("tree", sample()), ("f", file("x")), ("l", link("x"))] {
        restore(
            &mut &archive(&node)[..],
            &shared,
            name,
            &RestoreOptions::default(),
        )
        .unwrap();
        assert_canonical(&scratch.path("shared").join(name));
    }
}

#[test]
fn an_access_control_list_of_the_parent_is_not_inherited() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("shared")).unwrap();
    // Version 2; owner rwx, user 12345 rwx, group r-x, mask rwx, others none.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 7, 12345),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let set = rustix::fs::setxattr(
        scratch.path("shared"),
        "system.posix_acl_default",
        &list,
        rustix::fs::XattrFlags::empty(),
    );
    if set == Err(rustix::io::Errno::OPNOTSUPP) {
        return; // This file system has no such lists.
    }
    set.unwrap();
    // The list does what it is here for.
    fs::write(scratch.path("shared/ordinary"), "").unwrap();
    assert_ne!(attributes(&scratch.path("shared/ordinary")), [""; 0]);

    let shared = fs::File::open(scratch.path("shared")).unwrap();
    for (name, node) in [("tree", sample()), ("f", executable("x")), ("l", link("x"))] {
        restore(
            &mut &archive(&node)[..],
            &shared,
            name,
            &RestoreOptions::default(),
        )
        .unwrap();
        assert_canonical(&scratch.path("shared").join(name));
    }
    for name in [
        "f",
        "tree",
        "tree/file",
        "tree/executable",
        "tree/sub",
        "tree/sub/file",
    ] {
        assert_eq!(attributes(&scratch.path("shared").join(name)), [""; 0], "{name}");
    }
    let mode = fs::symlink_metadata(scratch.path("shared/tree/executable"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7777, 0o555);
}

/// The extended attributes of a file, but for those of security modules.
fn attributes(path: &std::path::Path) -> Vec<String> {
    let mut list = [0; 1024];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    list[..length]
        .split(|byte| *byte == 0)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| !name.is_empty() && !name.starts_with("security."))
        .collect()
}

#[test]
fn what_exists_is_left_alone() {
    let scratch = Scratch::new();
    make(&directory([("f", file("old"))]), &scratch.path("directory"));
    make(&file("old"), &scratch.path("file"));
    make(&link("nowhere"), &scratch.path("link"));
    make(&link("directory"), &scratch.path("to-directory"));
    let names = ["directory", "file", "link", "to-directory"];
    let before = names.map(|name| scratch.dump(name));
    for name in names {
        for node in [sample(), file("new"), link("new")] {
            let options = RestoreOptions::default();
            let found = restore(&mut &archive(&node)[..], &scratch.directory, name, &options).unwrap_err();
            assert_eq!(found.io_kind(), Some(io::ErrorKind::AlreadyExists), "{found:?}");
        }
    }
    assert_eq!(names.map(|name| scratch.dump(name)), before);
}

#[test]
fn a_tap_that_fails_leaves_nothing() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let scratch = Scratch::new();
    for size in [1, 5_000_000] {
        let bytes = archive(&directory([("f", file(vec![1; size]))]));
        let mut full = Full;
        let taps = Taps::none().archive(&mut full);
        let options = RestoreOptions::default();
        let found = restore_hashed(&mut &bytes[..], &scratch.directory, "x", &options, taps).unwrap_err();
        assert!(matches!(found, Error::Write { .. }), "{found:?}");
        assert_eq!(found.io_kind(), Some(io::ErrorKind::StorageFull));
        assert_eq!(scratch.names(), [""; 0]);
    }
}

#[test]
fn objects_can_be_made_durable() {
    let scratch = Scratch::new();
    let options = RestoreOptions::default().sync(SyncPolicy::WholeTree);
    for (name, node) in [("tree", sample()), ("f", file("x")), ("l", link("x"))] {
        let bytes = archive(&node);
        restore(&mut &bytes[..], &scratch.directory, name, &options).unwrap();
        restore_hashed(
            &mut &bytes[..],
            &scratch.directory,
            format!("{name}2"),
            &options,
            Taps::none(),
        )
        .unwrap();
        assert_eq!(scratch.dump(name), bytes);
        assert_canonical(&scratch.path(name));
    }
}
