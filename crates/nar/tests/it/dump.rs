// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing archives of what a file system may hold.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use superpose_nar::{CountingWriter, Error, RestoreOptions, Taps, copy_tree, dump, dump_path, hash_object};

use crate::files::{Scratch, nar_hash};
use crate::model::{archive, directory, executable, file, link, make, nested};

#[test]
fn only_the_owner_makes_a_file_executable() {
    for (mode, node) in [
        (0o611, file("x")),
        (0o700, executable("x")),
        (0o644, file("x")),
        (0o755, executable("x")),
        (0o4755, executable("x")),
        (0o500, executable("x")),
        (0o477, file("x")),
    ] {
        let scratch = Scratch::new();
        make(&file("x"), &scratch.path("x"));
        fs::set_permissions(scratch.path("x"), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(scratch.dump("x"), archive(&node), "{mode:o}");
    }
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new();
    make(&directory([("f", file("secret"))]), &scratch.path("elsewhere"));
    let tree = directory([
        ("absolute", link(scratch.path("elsewhere").as_os_str().as_bytes())),
        ("dangling", link("nowhere")),
        ("relative", link("../elsewhere")),
        ("self", link("self")),
    ]);
    make(&tree, &scratch.path("x"));
    assert_eq!(scratch.dump("x"), archive(&tree));
    symlink("x", scratch.path("link")).unwrap();
    assert_eq!(scratch.dump("link"), archive(&link("x")));
    let mut out = Vec::new();
    dump_path(scratch.path("link"), &mut out).unwrap();
    assert_eq!(out, archive(&link("x")));
}

#[test]
fn hard_links_are_files_of_their_own() {
    let scratch = Scratch::new();
    make(&directory([("a", file("same"))]), &scratch.path("x"));
    fs::hard_link(scratch.path("x/a"), scratch.path("x/b")).unwrap();
    assert_eq!(
        scratch.dump("x"),
        archive(&directory([("a", file("same")), ("b", file("same"))]))
    );
}

#[test]
fn special_files_have_no_archive() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("fifo")).unwrap();
    mknodat(CWD, scratch.path("fifo/special"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::create_dir(scratch.path("socket")).unwrap();
    let listener = UnixListener::bind(scratch.path("socket/special")).unwrap();
    for kind in ["fifo", "socket"] {
        let found = dump(&scratch.directory, kind, &mut io::sink()).unwrap_err();
        let expected = format!(
            "\"{kind}/special\" has an unsupported type: expected a file, directory or symbolic link, found a {kind}"
        );
        assert_eq!(found.to_string(), expected);
        let alone = dump_path(scratch.path(kind).join("special"), &mut io::sink()).unwrap_err();
        assert!(
            matches!(alone, Error::UnsupportedType { found, .. } if found == kind),
            "{alone:?}"
        );
        let to = (&scratch.directory, "copy");
        let from = (&scratch.directory, kind);
        let found = copy_tree(from, to, &RestoreOptions::default(), Taps::none()).unwrap_err();
        assert!(matches!(found, Error::UnsupportedType { .. }), "{found:?}");
    }
    assert_eq!(scratch.names(), ["fifo", "socket"]);
    drop(listener);
    let device = dump_path("/dev/null", &mut io::sink()).unwrap_err();
    assert!(
        matches!(
            device,
            Error::UnsupportedType {
                found: "character device",
                ..
            }
        ),
        "{device:?}"
    );
}

#[test]
fn depth_is_limited() {
    let scratch = Scratch::new();
    make(&nested(63, file("x")), &scratch.path("deep"));
    assert_eq!(scratch.dump("deep"), archive(&nested(63, file("x"))));
    make(&nested(64, file("x")), &scratch.path("deeper"));
    let found = dump(&scratch.directory, "deeper", &mut io::sink()).unwrap_err();
    let Error::TooDeep { path } = &found else {
        panic!("{found:?}")
    };
    assert_eq!(path, &Path::new("deeper").join("d/".repeat(64)));
    let to = (&scratch.directory, "copy");
    copy_tree(
        (&scratch.directory, "deeper"),
        to,
        &RestoreOptions::default(),
        Taps::none(),
    )
    .unwrap_err();
    assert_eq!(scratch.names(), ["deep", "deeper"]);
}

#[test]
fn names_have_to_be_names() {
    let scratch = Scratch::new();
    make(&file("x"), &scratch.path("x"));
    for name in ["", ".", "..", "a/b", "/", "/x", "x/", "a\0b"] {
        let found = dump(&scratch.directory, name, &mut io::sink()).unwrap_err();
        assert!(matches!(found, Error::ObjectName { .. }), "{name:?}: {found:?}");
    }
    let missing = dump(&scratch.directory, "missing", &mut io::sink()).unwrap_err();
    assert_eq!(missing.io_kind(), Some(io::ErrorKind::NotFound));
    assert_eq!(missing.to_string(), r#"cannot examine "missing""#);
}

#[test]
fn paths_without_a_last_name_are_directories() {
    let scratch = Scratch::new();
    let tree = directory([("f", file("x"))]);
    make(&tree, &scratch.path("x"));
    for path in ["x", "x/", "x/.", "./x", "x/../x"] {
        let mut out = Vec::new();
        dump_path(scratch.path(path), &mut out).unwrap();
        assert_eq!(out, archive(&tree), "{path}");
    }
    let mut out = Vec::new();
    fs::create_dir(scratch.path("x/sub")).unwrap();
    dump_path(scratch.path("x/sub/.."), &mut out).unwrap();
    assert_eq!(
        out,
        archive(&directory([("f", file("x")), ("sub", directory::<&str>([]))]))
    );
}

/// Changes the size of a file when the archive gets there.
struct Meddler<'a> {
    victim: &'a File,
    size: Option<u64>,
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(size) = self.size.take() {
            self.victim.set_len(size)?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_its_size_is_an_error() {
    let size = 2_000_000;
    for (new, found) in [
        (size - 500_000, "1500000".to_owned()),
        (size + 1, format!("at least {}", size + 1)),
    ] {
        let scratch = Scratch::new();
        make(&directory([("f", file(vec![1; 2_000_000]))]), &scratch.path("x"));
        let victim = File::options().write(true).open(scratch.path("x/f")).unwrap();
        let mut out = Meddler {
            victim: &victim,
            size: Some(new),
        };
        let error = dump(&scratch.directory, "x", &mut out).unwrap_err();
        let Error::Changed {
            path,
            expected,
            found: was,
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(
            (path.as_path(), *expected, was.as_str()),
            (Path::new("x/f"), size, found.as_str())
        );
    }
}

#[test]
fn a_receiver_that_fails() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let scratch = Scratch::new();
    for size in [0, 100, 10_000_000] {
        make(&file(vec![1; size]), &scratch.path("x"));
        let found = dump(&scratch.directory, "x", &mut Full).unwrap_err();
        assert!(
            matches!(&found, Error::Write { path, .. } if path == Path::new("x")),
            "{found:?}"
        );
        assert_eq!(found.io_kind(), Some(io::ErrorKind::StorageFull));
        // As a tap, on the other thread.
        for taps in [
            Taps::none().archive(&mut Full),
            Taps::none().archive(&mut io::sink()).archive(&mut Full),
        ] {
            let to = (&scratch.directory, "copy");
            let options = RestoreOptions::default();
            let found = copy_tree((&scratch.directory, "x"), to, &options, taps).unwrap_err();
            assert_eq!(found.io_kind(), Some(io::ErrorKind::StorageFull), "{found:?}");
            assert_eq!(scratch.names(), ["x"]);
        }
    }
}

#[test]
fn files_of_more_than_four_gibibytes() {
    let scratch = Scratch::new();
    let size = (4 << 30) + 1;
    let sparse = File::create(scratch.path("x")).unwrap();
    sparse.set_len(size).unwrap();
    let mut out = CountingWriter::new(io::sink());
    let tree = dump(&scratch.directory, "x", &mut out).unwrap();
    assert_eq!(
        (tree.content_bytes, tree.nar_size, out.size()),
        (size, 112 + size + 7, 112 + size + 7)
    );
}

#[test]
fn holes_are_zeros() {
    let scratch = Scratch::new();
    let sparse = File::create(scratch.path("x")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    let expected = nar_hash(&archive(&file(vec![0; 40 << 20])));
    assert_eq!(hash_object(&scratch.directory, "x").unwrap(), expected);
}

#[test]
fn names_are_bytes() {
    let long = [b"\xff".repeat(254), b"x".to_vec()].concat();
    let tree = directory([
        (b"\x01\n\x1b".to_vec(), file("a")),
        (b"not utf-8 \xff\xfe".to_vec(), link(*b"\xc3\x28")),
        (long.clone(), directory([(b"\x80".to_vec(), file("b"))])),
    ]);
    let scratch = Scratch::new();
    make(&tree, &scratch.path("x"));
    assert_eq!(scratch.dump("x"), archive(&tree));
    let parent = File::open(scratch.path("x")).unwrap();
    let mut out = Vec::new();
    dump(&parent, std::ffi::OsStr::from_bytes(&long), &mut out).unwrap();
    assert_eq!(out, archive(&directory([(b"\x80".to_vec(), file("b"))])));
}
