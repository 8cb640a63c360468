// SPDX-License-Identifier: MIT OR Apache-2.0
//! Owners of temporary roots and collectors against each other.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use rustix::fs::{MemfdFlags, SealFlags};

use super::scan::{TempRoot, TempRootScan};
use super::*;
use crate::gc_lock::CollectorLock;
use crate::roots::Stale;

const NEVER: LockWait = LockWait::Never;
const LONG: LockWait = LockWait::AtMost(Duration::from_secs(60));

fn silent(_: &Path) {}

fn path(name: &str) -> StorePath {
    StorePath::from_base_name(format!("x6xcakh6pmsprh9372j47cndyciwzqqy-{name}").as_bytes()).unwrap()
}

/// A state directory, and the stores on it.
struct State {
    top: tempfile::TempDir,
    state: StateDir,
}

impl State {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(top.path()).unwrap();
        Self { top, state }
    }

    fn roots(&self) -> TempRoots {
        TempRoots::new(&self.state, &StoreDir::default())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    fn dir(&self) -> PathBuf {
        self.top.path().join("temproots")
    }

    fn scan(&self, stale: Stale) -> Result<TempRootScan> {
        scan(&self.state, &StoreDir::default(), stale)
    }

    /// The names of the objects that a scan finds.
    fn found(&self) -> Vec<String> {
        self.scan(Stale::Report)
            .unwrap()
            .roots
            .iter()
            .map(|root| root.path.name().to_owned())
            .collect()
    }

    fn collect(&self) -> CollectorLock {
        CollectorLock::acquire(&self.state, NEVER, &mut silent).unwrap()
    }

    fn listen(&self) -> UnixListener {
        fs::create_dir_all(self.top.path().join("gc-socket")).unwrap();
        UnixListener::bind(self.top.path().join(GC_SOCKET)).unwrap()
    }
}

#[test]
fn the_file_is_made_late_written_as_nix_writes_it_and_removed_in_the_end() {
    let state = State::new();
    let roots = state.roots();
    roots.add(&[], NEVER, &mut silent).unwrap();
    assert!(state.files().is_empty());

    roots
        .add(&[path("a"), path("b"), path("a")], NEVER, &mut silent)
        .unwrap();
    roots.add(&[path("b"), path("c")], NEVER, &mut silent).unwrap();
    let [file] = &state.files()[..] else {
        panic!("one file expected: {:?}", state.files())
    };
    let expected: String = ["a", "b", "c"]
        .map(|name| format!("/nix/store/{}\0", path(name)))
        .concat();
    assert_eq!(fs::read_to_string(file).unwrap(), expected);
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    let number: i32 = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert!(number >= 1 << 22, "{number} could be a process id");
    assert_eq!(number as u32 % PID_LIMIT, std::process::id());

    drop(roots);
    assert!(state.files().is_empty());
}

#[test]
fn one_user_keeps_no_more_than_he_may() {
    let state = State::new();
    let roots = TempRoots::of_at_most(2, &state.state, &StoreDir::default());
    roots.add(&[path("a")], NEVER, &mut silent).unwrap();
    let error = roots
        .add(&[path("b"), path("c")], NEVER, &mut silent)
        .unwrap_err();
    assert!(
        matches!(error, Error::TooManyTempRoots { limit: 2, found: 3 }),
        "{error:?}"
    );
    // None of them was added, and what is kept already counts once.
    assert_eq!(state.found(), ["a"]);
    roots
        .add(&[path("a"), path("b"), path("b")], NEVER, &mut silent)
        .unwrap();
    assert_eq!(state.found(), ["a", "b"]);
    roots.add(&[path("c")], NEVER, &mut silent).unwrap_err();
    // What was written counts although nobody has answered for it: it is in the file.
    let hasty = TempRoots::of_at_most(2, &state.state, &StoreDir::default());
    let collector = state.collect();
    for _ in 0..2 {
        let error = hasty.add(&[path("d")], NEVER, &mut silent).unwrap_err();
        assert!(matches!(error, Error::LockHeld { .. }), "{error}");
    }
    let error = hasty.add(&[path("d")], NEVER, &mut silent).unwrap_err();
    assert!(matches!(error, Error::TooManyTempRoots { .. }), "{error}");
    drop(collector);
    // Another user has his own.
    let other = TempRoots::of_at_most(1, &state.state, &StoreDir::default());
    other.add(&[path("c")], NEVER, &mut silent).unwrap();
}

#[test]
fn two_stores_of_one_process_keep_their_roots_apart() {
    let state = State::new();
    let (one, other) = (state.roots(), state.roots());
    one.add(&[path("one")], NEVER, &mut silent).unwrap();
    other.add(&[path("other")], NEVER, &mut silent).unwrap();
    assert_eq!(state.files().len(), 2);
    assert_eq!(state.found(), ["one", "other"]);
    drop(one);
    assert_eq!(state.found(), ["other"]);
}

#[test]
fn a_file_without_an_owner_is_replaced() {
    let state = State::new();
    let name = state.dir().join((std::process::id() + PID_LIMIT).to_string());
    fs::write(&name, "/nix/store/leftover\0").unwrap();
    let old = File::open(&name).unwrap();
    let roots = state.roots();
    roots.add(&[path("a")], NEVER, &mut silent).unwrap();
    assert_eq!(state.files(), [name]);
    assert_eq!(state.found(), ["a"]);
    let mut text = Vec::new();
    (&old).read_to_end(&mut text).unwrap();
    assert_eq!(text[0], b'd', "a waiting owner must notice");
}

#[test]
fn a_new_file_that_a_collector_took_for_abandoned_is_made_again() {
    let state = State::new();
    let directory = state.state.temp_roots().unwrap().unwrap();
    // The collector opens and locks the file before its new owner does.
    fs::write(state.dir().join("7"), "").unwrap();
    let collector = File::options()
        .read(true)
        .write(true)
        .open(state.dir().join("7"))
        .unwrap();
    assert!(flock::try_acquire(collector.as_fd(), LockMode::Exclusive).unwrap());
    assert!(
        claim(&directory, "7").unwrap().is_none(),
        "as long as it is locked it is somebody's"
    );
    remove_if_current(&directory, "7", collector.as_fd()).unwrap();
    let ours = claim(&directory, "7").unwrap().unwrap();
    // A second removal by the one that still has the old file open leaves the new one alone.
    remove_if_current(&directory, "7", collector.as_fd()).unwrap();
    assert!(is_current(directory.fd(), "7", ours.as_fd()).unwrap());
}

#[test]
fn owners_and_collectors_in_many_threads_lose_no_root() {
    let state = State::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let roots = state.roots();
                    roots.add(&[path("a")], LONG, &mut silent).unwrap();
                    let own = roots.own.lock().unwrap();
                    let own = own.as_ref().unwrap();
                    assert!(is_current(own.directory.fd(), &own.name, own.file.as_fd()).unwrap());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..100 {
                state.scan(Stale::Remove).unwrap();
            }
        });
    });
    assert!(state.files().is_empty());
}

#[test]
fn without_a_listening_collector_its_end_is_waited_for() {
    let state = State::new();
    let roots = state.roots();
    let collector = state.collect();
    assert!(matches!(
        roots.add(&[path("a")], NEVER, &mut silent),
        Err(Error::LockHeld { .. })
    ));
    let limit = LockWait::AtMost(Duration::from_millis(20));
    assert!(matches!(
        roots.add(&[path("a")], limit, &mut silent),
        Err(Error::LockHeld { .. })
    ));

    let (waits, waiting) = mpsc::channel();
    thread::scope(|scope| {
        let adding = scope.spawn(|| {
            roots.add(&[path("a")], LONG, &mut |path| {
                waits.send(path.to_owned()).unwrap()
            })
        });
        assert_eq!(waiting.recv().unwrap(), state.state.gc_lock_path());
        assert!(!adding.is_finished());
        drop(collector);
        adding.join().unwrap().unwrap();
    });
    assert_eq!(waiting.try_iter().count(), 0, "said once");
    assert_eq!(state.found(), ["a"]);
}

#[test]
fn a_listening_collector_gets_the_roots_that_are_already_written() {
    let state = State::new();
    let roots = state.roots();
    let listener = state.listen();
    let _collector = state.collect();
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            // The first connection ends before the answer, as when that collector is done; then another one listens.
            let (first, _) = listener.accept().unwrap();
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            let mut input = BufReader::new(second.try_clone().unwrap());
            let mut lines = Vec::new();
            let mut line = String::new();
            while input.read_line(&mut line).unwrap() > 0 {
                assert_eq!(state.found(), ["a", "b"], "written before the collector is asked");
                lines.push(std::mem::take(&mut line));
                second.write_all(b"1").unwrap();
            }
            lines
        });
        roots.add(&[path("a"), path("b")], LONG, &mut silent).unwrap();
        // This question needs no collector: it is in force.
        roots.add(&[path("a")], NEVER, &mut silent).unwrap();
        // This one comes on the same connection.
        roots.confirm(&[path("b")], LONG, &mut silent).unwrap();
        drop(roots);
        let expected = ["a", "b", "b"].map(|name| format!("/nix/store/{}\n", path(name)));
        assert_eq!(collector.join().unwrap(), expected);
    });
}

#[test]
fn a_collector_that_has_ended_is_not_asked_again() {
    let state = State::new();
    let roots = state.roots();
    let hear = |listener: UnixListener| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        stream.write_all(b"1").unwrap();
        line
    };
    for name in ["a", "b"] {
        let listener = state.listen();
        let _collector = state.collect();
        thread::scope(|scope| {
            let heard = scope.spawn(|| hear(listener));
            roots.add(&[path(name)], LONG, &mut silent).unwrap();
            assert_eq!(heard.join().unwrap(), format!("/nix/store/{}\n", path(name)));
        });
        fs::remove_file(state.top.path().join(GC_SOCKET)).unwrap();
    }
}

#[test]
fn a_collector_that_does_not_answer_is_not_waited_for_longer_than_wanted() {
    let state = State::new();
    let listener = state.listen();
    let _collector = state.collect();
    let limit = LockWait::AtMost(Duration::from_millis(30));
    let error = state.roots().add(&[path("a")], limit, &mut silent).unwrap_err();
    assert!(matches!(error, Error::LockHeld { .. }), "{error:?}");

    thread::scope(|scope| {
        scope.spawn(|| {
            // The attempt above is still in the queue, if there was time to make one.
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                match stream.write_all(b"0") {
                    Ok(()) => return,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::BrokenPipe),
                }
            }
        });
        let error = state.roots().add(&[path("a")], LONG, &mut silent).unwrap_err();
        assert!(matches!(error, Error::Io { path, .. } if path == state.top.path().join(GC_SOCKET)));
    });
}

#[test]
fn the_socket_is_reached_however_long_its_path_is() {
    let top = tempfile::tempdir().unwrap();
    let long = top.path().join("x".repeat(120));
    fs::create_dir(&long).unwrap();
    let state = StateDir::open(&long).unwrap();
    let path = socket_path(&state);
    assert!(path.as_os_str().len() <= SOCKET_PATH_MAX);
    fs::create_dir(long.join("gc-socket")).unwrap();
    let _listener = UnixListener::bind(&path).unwrap();
    assert!(long.join(GC_SOCKET).exists());
}

#[test]
fn of_a_failed_write_nothing_stays() {
    let state = State::new();
    let roots = state.roots();
    roots.add(&[path("a")], NEVER, &mut silent).unwrap();
    let mut own = roots.own.lock().unwrap();
    let own = own.as_mut().unwrap();
    // A file that cannot grow takes the beginning of what is too long for it, as a full disk does.
    let full = rustix::fs::memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&full, 4096).unwrap();
    rustix::fs::fcntl_add_seals(&full, SealFlags::GROW).unwrap();
    let before = own.size;
    let file = std::mem::replace(&mut own.file, full);
    let many: Vec<_> = (0..100).map(|number| path(&format!("b{number}"))).collect();
    assert!(own.write(&StoreDir::default(), &many).is_err());
    let full = std::mem::replace(&mut own.file, file);
    assert_eq!(own.size, before);
    assert_eq!(rustix::fs::fstat(full).unwrap().st_size as u64, before);
    own.write(&StoreDir::default(), &[path("c")]).unwrap();
    assert_eq!(state.found(), ["a", "c"]);
}

#[test]
fn files_of_the_dead_are_reported_and_removed_only_when_asked_for() {
    let state = State::new();
    let alive = state.roots();
    alive.add(&[path("alive")], NEVER, &mut silent).unwrap();
    let dead = state.dir().join("4711");
    fs::write(&dead, format!("/nix/store/{}\0", path("dead"))).unwrap();
    let open = File::open(&dead).unwrap();
    for (stale, stays) in [
        (Stale::Report, true),
        (Stale::Report, true),
        (Stale::Remove, false),
    ] {
        let found = state.scan(stale).unwrap();
        assert_eq!(found.stale, std::slice::from_ref(&dead));
        assert_eq!(found.roots.len(), 1);
        assert_eq!(found.roots[0].path, path("alive"));
        assert_eq!(dead.exists(), stays, "{stale:?}");
    }
    let mut text = Vec::new();
    (&open).read_to_end(&mut text).unwrap();
    assert_eq!(text[0], b'd');
    assert!(state.scan(Stale::Remove).unwrap().stale.is_empty());
}

/// Writes a file that looks as if its owner lived.
fn owned(state: &State, name: &str, text: &[u8]) -> File {
    let file = File::create(state.dir().join(name)).unwrap();
    (&file).write_all(text).unwrap();
    assert!(flock::try_acquire(file.as_fd(), LockMode::Exclusive).unwrap());
    file
}

#[test]
fn names_need_not_be_numbers_and_hidden_files_are_left_alone() {
    let state = State::new();
    let text = format!("/nix/store/{}\0/nix/store/unfinis", path("a"));
    let _files = [
        owned(&state, "builder-7", text.as_bytes()),
        owned(&state, ".hidden", b"rubbish\0"),
    ];
    let found = state.scan(Stale::Remove).unwrap();
    assert_eq!(
        found.roots,
        [TempRoot {
            owner: "builder-7".to_owned(),
            path: path("a")
        }]
    );
    assert!(found.stale.is_empty());
}

#[test]
fn what_cannot_be_understood_stops_the_collector() {
    let state = State::new();
    let first = format!("/nix/store/{}\0", path("a"));
    let file = owned(&state, "1", format!("{first}rubbish\0").as_bytes());
    match state.scan(Stale::Report).unwrap_err() {
        Error::TempRootRecord { path, offset, .. } => {
            assert_eq!((path, offset), (state.dir().join("1"), first.len() as u64));
        }
        other => panic!("{other:?}"),
    }
    drop(file);
    fs::remove_file(state.dir().join("1")).unwrap();

    for (found, make) in [
        (
            "a symbolic link",
            (|path: &Path| symlink("/dev/null", path).unwrap()) as fn(&Path),
        ),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("a named pipe", |path| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        }),
    ] {
        for stale in [Stale::Report, Stale::Remove] {
            let state = State::new();
            let path = state.dir().join("1");
            make(&path);
            match state.scan(stale).unwrap_err() {
                Error::WrongFileType {
                    path: named,
                    expected: "a regular file",
                    found: said,
                } => {
                    assert_eq!((named, said), (path, found));
                }
                other => panic!("{found}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_store_that_is_only_read_gets_no_file_and_loses_none() {
    let state = State::new();
    fs::write(state.dir().join("1"), "").unwrap();
    let reader = StateDir::open_read_only(state.top.path()).unwrap();
    let roots = TempRoots::new(&reader, &StoreDir::default());
    assert!(matches!(
        roots.add(&[path("a")], NEVER, &mut silent),
        Err(Error::ReadOnlyState { .. })
    ));
    assert!(matches!(
        scan(&reader, &StoreDir::default(), Stale::Remove),
        Err(Error::ReadOnlyState { .. })
    ));
    assert_eq!(
        scan(&reader, &StoreDir::default(), Stale::Report).unwrap().stale,
        state.files()
    );
    let empty = tempfile::tempdir().unwrap();
    let empty = StateDir::open_read_only(empty.path()).unwrap();
    assert!(
        scan(&empty, &StoreDir::default(), Stale::Remove)
            .unwrap()
            .roots
            .is_empty()
    );
}
