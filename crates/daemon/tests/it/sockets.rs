// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a server listens.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{FlockOperation, flock};
use superpose_daemon::{Error, Socket};

#[test]
fn a_socket_is_for_everybody_and_goes_when_it_is_closed() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("not/yet/there/socket");
    let socket = Socket::bind(&path).unwrap();
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o666);
    UnixStream::connect(&path).unwrap();
    assert_eq!(socket.path(), Some(&*path));
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn what_nobody_listens_at_is_replaced_and_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("socket");
    let taken = |expected: &str| match Socket::bind(&path).unwrap_err() {
        Error::SocketTaken { found, .. } => assert_eq!(found, expected),
        other => panic!("{other:?}"),
    };
    drop(UnixListener::bind(&path).unwrap());
    drop(Socket::bind(&path).unwrap());

    let listening = UnixListener::bind(&path).unwrap();
    taken("a server that listens there");
    drop(listening);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    taken("a file");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    taken("a symbolic link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    taken("a directory");
}

#[test]
fn the_name_of_another_server_stays() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("socket");
    let socket = Socket::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
}

/// Anybody may lock a directory that he may open: a server waits for its turn, but not for ever.
#[test]
fn a_directory_that_stays_locked_is_told() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("socket");
    let lock = fs::File::open(top.path()).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let binding = std::thread::spawn({
        let path = path.clone();
        move || Socket::bind(&path)
    });
    let error = binding.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::DirectoryLocked { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(top.path().to_str().unwrap()), "{text}");
    assert!(!path.exists());
    // Another server that starts has it for a moment.
    let binding = std::thread::spawn(move || Socket::bind(&path));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!binding.is_finished());
    drop(lock);
    binding.join().unwrap().unwrap();
}

#[test]
fn a_path_may_be_longer_than_an_address() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("d".repeat(120)).join("socket");
    let socket = Socket::bind(&path).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert!(matches!(Socket::bind(&path), Err(Error::SocketTaken { .. })));
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn what_a_service_manager_says_is_looked_at() {
    let check = |pid: &str, count: &str| Socket::activated(Some(OsStr::new(pid)), Some(OsStr::new(count)));
    let own = std::process::id().to_string();
    // Meant for somebody else, or for nobody.
    assert!(check("1", "1").unwrap().is_empty());
    assert!(Socket::activated(None, Some(OsStr::new("1"))).unwrap().is_empty());
    assert!(
        Socket::activated(Some(OsStr::new(&own)), None)
            .unwrap()
            .is_empty()
    );
    for (pid, count) in [
        (&*own, "0"),
        (&own, "-1"),
        (&own, "17"),
        (&own, "many"),
        ("x", "1"),
    ] {
        assert!(
            matches!(check(pid, count), Err(Error::Activation { .. })),
            "{pid} {count}"
        );
    }
}
