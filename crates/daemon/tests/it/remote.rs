// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our client, when what is between it and the server breaks: it says so, and how much is there; a second copy goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use superpose_daemon::remote::{Error, Remote, RemoteOptions};
use superpose_overlay::metadata::MetadataSource;
use superpose_overlay::store_path::{Name, StoreDir, StorePath};
use superpose_overlay::{
    AddOptions, Copied, CopyOptions, Durability, OpenOptions, SignatureCheck, Source, Store, StoreView, Watch,
};

use crate::served::{Served, layout, patient};

/// Longer than a batch takes, and shorter than a test may.
const SILENCE: Duration = Duration::from_secs(3);

/// How many objects are copied: more than a batch has.
const OBJECTS: usize = 700;

/// How long each of them is. All of them are more than sockets hold.
const LENGTH: usize = 8 << 10;

/// What happens when enough has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Cut,
    Stuck,
}

/// Stands between a client and a server, and lets so many bytes pass in one direction.
struct Between {
    _top: tempfile::TempDir,
    socket: PathBuf,
    ends: Arc<Mutex<Vec<UnixStream>>>,
    is_over: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    FromServer,
    ToServer,
}

impl Between {
    /// Only the first connection meets its fate.
    fn new(server: PathBuf, direction: Direction, room: u64, fate: Fate) -> Self {
        let top = tempfile::tempdir().unwrap();
        let socket = top.path().join("between");
        let listener = UnixListener::bind(&socket).unwrap();
        let (ends, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let between = Self {
            _top: top,
            socket,
            ends: Arc::clone(&ends),
            is_over: Arc::clone(&is_over),
        };
        thread::spawn(move || {
            let mut room = room;
            for client in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let client = client.unwrap();
                let server = UnixStream::connect(&server).unwrap();
                ends.lock().unwrap().push(client.try_clone().unwrap());
                ends.lock().unwrap().push(server.try_clone().unwrap());
                let (up, down) = match direction {
                    Direction::ToServer => (room, u64::MAX),
                    Direction::FromServer => (u64::MAX, room),
                };
                room = u64::MAX;
                pass(&client, &server, up, fate);
                pass(&server, &client, down, fate);
            }
        });
        between
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes who waits for the next one.
        UnixStream::connect(&self.socket).ok();
        for end in self.ends.lock().unwrap().drain(..) {
            end.shutdown(Shutdown::Both).ok();
        }
    }
}

fn pass(from: &UnixStream, to: &UnixStream, room: u64, fate: Fate) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let left = AtomicU64::new(room);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let left_now = left.load(Ordering::Relaxed);
            if left_now == 0 {
                if fate == Fate::Cut {
                    from.shutdown(Shutdown::Both).ok();
                    to.shutdown(Shutdown::Both).ok();
                }
                return;
            }
            let most = usize::try_from(left_now).unwrap_or(usize::MAX).min(buffer.len());
            match from.read(&mut buffer[..most]) {
                Ok(0) | Err(_) => {
                    to.shutdown(Shutdown::Write).ok();
                    return;
                }
                Ok(read) => {
                    left.store(left_now - read as u64, Ordering::Relaxed);
                    if to.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            }
        }
    });
}

fn unsynced() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.durability = Durability::Unsynced;
    options
}

fn open(top: &Path) -> Store {
    Store::open(layout(top), unsynced()).unwrap()
}

fn fill(store: &mut Store) -> Vec<StorePath> {
    let add = |number: usize| {
        let options = AddOptions::source(Name::new(format!("object-{number}").as_bytes()).unwrap());
        let mut bytes = vec![b'x'; LENGTH];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        store.add(Source::Bytes(&bytes), &options).unwrap().path
    };
    (0..OBJECTS).map(add).collect()
}

fn remote(socket: &Path) -> Remote {
    let mut options = RemoteOptions::new(socket, StoreDir::default());
    options.silence_limit = SILENCE;
    Remote::connect(options).unwrap()
}

fn trusting() -> CopyOptions {
    let mut options = CopyOptions::default();
    options.signatures = SignatureCheck::Skipped;
    options
}

/// How many are there, and why the rest is not.
fn broken_off(result: Result<Copied, Error>) -> (usize, Error) {
    match result.unwrap_err() {
        Error::BrokenOff {
            there: Some(there),
            all: OBJECTS,
            source,
            ..
        } => (there, *source),
        other => panic!("{other:?}"),
    }
}

fn valid(store: &Store, paths: &[StorePath]) -> usize {
    let valid = store.metadata().are_valid(paths).unwrap();
    valid.into_iter().filter(|valid| *valid).count()
}

#[test]
fn a_copy_from_a_server_that_breaks_off_goes_on_the_next_time() {
    let served = Served::start_with(patient());
    let paths = fill(&mut open(served.top.path()));
    // Enough for all answers and most archives, so that the first batch is whole.
    let room = (OBJECTS * LENGTH) as u64;
    for fate in [Fate::Cut, Fate::Stuck] {
        let top = tempfile::tempdir().unwrap();
        let mut store = open(top.path());
        let between = Between::new(served.socket(), Direction::FromServer, room, fate);
        let copied = remote(&between.socket).pull(&mut store, &paths, &trusting());
        let (there, why) = broken_off(copied);
        assert_eq!(
            matches!(why, Error::Silent { .. }),
            fate == Fate::Stuck,
            "{why:?}"
        );
        assert_eq!(there, valid(&store, &paths));
        assert!(there > 0 && there < OBJECTS, "{there}");
        let again = remote(&between.socket).pull(&mut store, &paths, &trusting());
        assert_eq!(again.unwrap().paths.len(), OBJECTS - there);
        assert_eq!(valid(&store, &paths), OBJECTS);
    }
}

#[test]
fn a_copy_to_a_server_that_breaks_off_goes_on_the_next_time() {
    let top = tempfile::tempdir().unwrap();
    let mut store = open(top.path());
    let paths = fill(&mut store);
    drop(store);
    let (view, watch) = (StoreView::open(&layout(top.path())).unwrap(), Watch::default());
    let room = (OBJECTS * LENGTH) as u64;
    for fate in [Fate::Cut, Fate::Stuck] {
        let served = Served::start_with(patient());
        let between = Between::new(served.socket(), Direction::ToServer, room, fate);
        let copied = remote(&between.socket).push(&view, &paths, &trusting(), &watch);
        let (there, why) = broken_off(copied);
        assert_eq!(
            matches!(why, Error::Silent { .. }),
            fate == Fate::Stuck,
            "{why:?}"
        );
        assert!(there < OBJECTS, "{there}");
        let again = remote(&between.socket).push(&view, &paths, &trusting(), &watch);
        let again = again.unwrap().paths.len();
        assert!(again > 0 && again <= OBJECTS - there, "{again}, {there}");
        assert_eq!(valid(&served.other_process(), &paths), OBJECTS);
    }
}

#[test]
fn a_server_that_is_silent_after_its_greeting_is_given_up() {
    let served = Served::start_with(patient());
    let (paths, top) = (served.paths.clone(), tempfile::tempdir().unwrap());
    let mut store = open(top.path());
    // What a server says before it is asked for anything that is to be copied.
    let greeting = 128;
    let between = Between::new(served.socket(), Direction::FromServer, greeting, Fate::Stuck);
    let mut options = RemoteOptions::new(&between.socket, StoreDir::default());
    options.silence_limit = Duration::from_millis(300);
    let failed = match Remote::connect(options) {
        Ok(mut remote) => remote.pull(&mut store, &paths, &trusting()).unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(failed, Error::Silent { .. }), "{failed:?}");
    assert!(failed.to_string().contains("between"), "{failed}");
}
