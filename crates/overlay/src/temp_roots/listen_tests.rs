// SPDX-License-Identifier: MIT OR Apache-2.0
//! The collector's ear, and clients of every kind.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use superpose_store_path::{HashPart, StoreDir, StorePath};

use super::{Listener, TempRoots, socket_path};
use crate::flock::LockWait;
use crate::gc_lock::CollectorLock;
use crate::state_dir::{GC_SOCKET, StateDir};

const LONG: LockWait = LockWait::AtMost(Duration::from_secs(60));

/// How long nothing is heard of what does not come.
const SILENCE: Duration = Duration::from_millis(50);

fn silent(_: &Path) {}

fn path(letter: char) -> StorePath {
    StorePath::from_base_name(format!("{}-x", letter.to_string().repeat(32)).as_bytes()).unwrap()
}

fn part(letter: char) -> HashPart {
    path(letter).hash_part()
}

struct Collector {
    top: tempfile::TempDir,
    state: StateDir,
    listener: Listener,
}

fn lock(state: &StateDir) -> CollectorLock {
    CollectorLock::acquire(state, LockWait::Never, &mut silent).unwrap()
}

impl Collector {
    fn start() -> Self {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(top.path()).unwrap();
        let listener = Listener::start(lock(&state), &state, &StoreDir::default()).unwrap();
        Self { top, state, listener }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.top.path().join(GC_SOCKET)).unwrap()
    }

    /// Sends text, and reads so many answers.
    fn say(&self, stream: &mut UnixStream, text: &[u8], answers: usize) {
        stream.write_all(text).unwrap();
        let mut answered = vec![0; answers];
        stream.read_exact(&mut answered).unwrap();
        assert_eq!(answered, vec![b'1'; answers]);
    }
}

/// Nothing more comes for a while.
fn expect_silence(stream: &mut UnixStream) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(None).unwrap();
}

#[test]
fn every_line_gets_one_byte_whatever_it_says() {
    let collector = Collector::start();
    let mut stream = collector.connect();
    let full = |letter| format!("/nix/store/{}\n", path(letter));
    collector.say(&mut stream, full('a').as_bytes(), 1);
    // Again, two at once, and in pieces.
    collector.say(&mut stream, (full('a') + &full('b')).as_bytes(), 2);
    let text = full('c');
    stream.write_all(&text.as_bytes()[..20]).unwrap();
    expect_silence(&mut stream);
    collector.say(&mut stream, &text.as_bytes()[20..], 1);
    assert_eq!(collector.listener.heard_since(0), ['a', 'b', 'c'].map(part));
    assert_eq!(collector.listener.heard_since(2), [part('c')]);
    // What is no path of this store.
    for text in [
        "\n".to_owned(),
        "rubbish\n".to_owned(),
        "/gnu/store/x\n".to_owned(),
        format!("{}\n", path('d')),
        format!("/nix/store/{}/bin\n", path('d')),
        "\0\n".to_owned(),
        format!("{}\n", "x".repeat(100_000)),
    ] {
        collector.say(&mut stream, text.as_bytes(), 1);
    }
    collector.say(&mut stream, b"\xff\xfe\n", 1);
    assert_eq!(collector.listener.heard_since(3), []);
    // A long line ends with its newline: what follows is understood.
    collector.say(
        &mut stream,
        format!("{}\n{}", "y".repeat(50_000), full('d')).as_bytes(),
        2,
    );
    assert_eq!(collector.listener.heard_since(3), [part('d')]);
}

#[test]
fn a_root_that_came_in_time_undoes_a_decision() {
    let collector = Collector::start();
    let mut stream = collector.connect();
    collector.say(&mut stream, format!("/nix/store/{}\n", path('a')).as_bytes(), 1);
    assert!(!collector.listener.seal(0, vec![part('b'), part('a')]));
    assert!(
        collector.listener.seal(1, vec![part('b'), part('a')]),
        "it was taken into account"
    );
    assert!(collector.listener.seal(0, vec![part('b')]), "it is not concerned");
}

#[test]
fn what_is_being_removed_is_acknowledged_when_it_is_gone() {
    let collector = Collector::start();
    assert!(collector.listener.seal(0, vec![part('b'), part('d')]));
    let (mut one, mut other) = (collector.connect(), collector.connect());
    let lines = format!(
        "/nix/store/{}\n/nix/store/{}\n/nix/store/{}\n",
        path('a'),
        path('b'),
        path('c')
    );
    collector.say(&mut one, lines.as_bytes(), 1);
    collector.say(&mut other, format!("/nix/store/{}\n", path('f')).as_bytes(), 1);
    other
        .write_all(format!("/nix/store/{}.lock\n", path('d')).as_bytes())
        .unwrap();
    expect_silence(&mut one);
    expect_silence(&mut other);
    collector.listener.let_go();
    collector.say(&mut one, b"", 2);
    collector.say(&mut other, b"", 1);
}

#[test]
fn a_client_that_goes_or_does_not_read_harms_nobody() {
    let collector = Collector::start();
    assert!(collector.listener.seal(0, vec![part('a')]));
    let mut waiting = collector.connect();
    waiting
        .write_all(format!("/nix/store/{}\n", path('a')).as_bytes())
        .unwrap();
    drop(waiting);
    let mut half = collector.connect();
    half.write_all(b"/nix/store/").unwrap();
    drop(half);
    let mut deaf = collector.connect();
    deaf.set_nonblocking(true).unwrap();
    let line = b"x\n".repeat(10_000);
    while deaf.write(&line).is_ok() {}
    collector.say(&mut collector.connect(), b"x\n", 1);
}

#[test]
fn our_adder_is_answered_and_the_end_of_the_collector_is_noticed() {
    let collector = Collector::start();
    let roots = TempRoots::new(&collector.state, &StoreDir::default());
    roots.add(&[path('a'), path('b')], LONG, &mut silent).unwrap();
    assert_eq!(collector.listener.heard_since(0), ['a', 'b'].map(part));
    assert!(collector.listener.seal(2, vec![part('c')]));
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            roots.add(&[path('c')], LONG, &mut silent).unwrap();
            done.send(()).unwrap();
        });
        assert!(is_done.recv_timeout(SILENCE).is_err(), "it waits");
        drop(collector.listener);
        is_done.recv().unwrap();
    });
}

#[test]
fn the_socket_is_for_everybody_and_one_that_was_left_is_replaced() {
    let collector = Collector::start();
    let socket = collector.top.path().join(GC_SOCKET);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&socket), 0o666);
    assert_eq!(mode(socket.parent().unwrap()), 0o755);
    let Collector {
        top, state, listener, ..
    } = collector;
    drop(listener);
    assert!(UnixStream::connect(&socket).is_err(), "nobody listens");
    for make in [
        (|_: &Path| {}) as fn(&Path),
        |socket| fs::write(socket, "rubbish").unwrap(),
        |socket| std::os::unix::fs::symlink("/nowhere", socket).unwrap(),
    ] {
        fs::remove_file(&socket).unwrap();
        make(&socket);
        let _listener = Listener::start(lock(&state), &state, &StoreDir::default()).unwrap();
        UnixStream::connect(&socket).unwrap();
    }
    drop(top);
}

#[test]
fn it_listens_however_long_its_path_is() {
    let top = tempfile::tempdir().unwrap();
    let long = top.path().join("x".repeat(120));
    let state = StateDir::open(&long).unwrap();
    let listener = Listener::start(lock(&state), &state, &StoreDir::default()).unwrap();
    assert!(long.join(GC_SOCKET).exists());
    let mut stream = UnixStream::connect(socket_path(&state)).unwrap();
    stream
        .write_all(format!("/nix/store/{}\n", path('a')).as_bytes())
        .unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(listener.heard_since(0), [part('a')]);
}

#[test]
fn nobody_is_answered_any_more_when_the_next_collector_can_begin() {
    let collector = Collector::start();
    let mut stream = collector.connect();
    collector.say(&mut stream, format!("/nix/store/{}\n", path('a')).as_bytes(), 1);
    let busy = CollectorLock::acquire(&collector.state, LockWait::Never, &mut silent);
    assert!(busy.is_err(), "the listener has the lock");

    drop(collector.listener);
    drop(lock(&collector.state));
    // Whether it is sent at all, nothing comes back.
    stream
        .write_all(format!("/nix/store/{}\n", path('b')).as_bytes())
        .ok();
    assert!(stream.read_exact(&mut [0]).is_err());
}

#[test]
fn a_store_that_is_only_read_is_not_listened_for() {
    let top = tempfile::tempdir().unwrap();
    let lock = lock(&StateDir::open(top.path()).unwrap());
    let state = StateDir::open_read_only(top.path()).unwrap();
    assert!(Listener::start(lock, &state, &StoreDir::default()).is_err());
    assert!(!top.path().join("gc-socket").exists());
}
