// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon within the test: it serves a store in memory, and has the habits that a test wants.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::sockopt::set_socket_send_buffer_size;
use superpose_metadata::{DaemonSource, MemorySource, MetadataSource, OpenDaemon};
use superpose_store_path::{Name, StoreDir, StorePath};
use superpose_worker_protocol::{
    Activity, ActivityType, Dialect, Frame, GcRoot, Level, Limits, LogFrame, Operation, RemoteError, Request,
    ServerOffer, UnkeyedValidPathInfo, Version, WireReader, WireWriter, accept, admit, write_reply,
};
use tempfile::TempDir;

/// What a daemon does that others do not.
#[derive(Clone)]
pub(crate) struct Habits {
    pub(crate) version: Version,
    /// After how many questions each connection ends without an answer, in their order; later ones do not.
    pub(crate) ends_after: Vec<usize>,
    /// How it says that a path is not valid, if it says so with an error.
    pub(crate) invalid: Option<&'static str>,
    /// Whether it talks before each answer.
    pub(crate) talks: bool,
    /// The path about which it answers with an error.
    pub(crate) fails_on: Option<StorePath>,
    /// Whether it reads all that a client sends before it answers anything.
    pub(crate) reads_first: Option<usize>,
    /// Whether the socket takes as little as can be.
    pub(crate) is_narrow: bool,
    /// Whether it never answers.
    pub(crate) is_silent: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            version: Version::CURRENT,
            ends_after: Vec::new(),
            invalid: None,
            talks: false,
            fails_on: None,
            reads_first: None,
            is_narrow: false,
            is_silent: false,
        }
    }
}

/// A daemon that runs until the test ends.
pub(crate) struct Peer {
    _temp: TempDir,
    pub(crate) socket: PathBuf,
    /// What was asked, by connection.
    asked: Arc<Mutex<Vec<Vec<Operation>>>>,
}

impl Peer {
    pub(crate) fn start(source: MemorySource, habits: Habits) -> Self {
        let temp = TempDir::new().unwrap();
        let socket = temp.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked: Arc<Mutex<Vec<Vec<Operation>>>> = Arc::default();
        let list = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = {
                    let mut asked = list.lock().unwrap();
                    asked.push(Vec::new());
                    asked.len() - 1
                };
                let (list, source, habits) = (Arc::clone(&list), source.clone(), habits.clone());
                thread::spawn(move || {
                    let heard = |operation| list.lock().unwrap()[number].push(operation);
                    serve(&stream.unwrap(), &source, &habits, number, heard);
                });
            }
        });
        Self {
            _temp: temp,
            socket,
            asked,
        }
    }

    pub(crate) fn options(&self) -> OpenDaemon {
        OpenDaemon::new(&self.socket, StoreDir::default())
    }

    pub(crate) fn source(&self) -> DaemonSource {
        DaemonSource::new(self.options())
    }

    /// What was asked on each connection, without the options that come first.
    pub(crate) fn asked(&self) -> Vec<Vec<Operation>> {
        let mut asked = self.asked.lock().unwrap().clone();
        for connection in &mut asked {
            if !connection.is_empty() {
                assert_eq!(connection.remove(0), Operation::SetOptions);
            }
        }
        asked
    }
}

type Output<'a> = WireWriter<BufWriter<&'a UnixStream>>;

fn serve(
    stream: &UnixStream,
    source: &MemorySource,
    habits: &Habits,
    number: usize,
    heard: impl Fn(Operation),
) {
    if habits.is_narrow {
        set_socket_send_buffer_size(stream, 1).unwrap();
    }
    let mut input = WireReader::new(BufReader::new(stream), Limits::for_requests());
    let mut out = WireWriter::new(BufWriter::new(stream));
    let offer = ServerOffer {
        version: habits.version,
        ..ServerOffer::default()
    };
    let session = accept(&mut input, &mut out, &offer).unwrap();
    admit(&mut out, &session).unwrap();
    out.flush().unwrap();
    let dialect = session.dialect(StoreDir::default());
    if habits.is_silent {
        std::io::copy(&mut BufReader::new(stream), &mut std::io::sink()).ok();
        return;
    }
    let ends_after = habits.ends_after.get(number).copied();
    let mut requests = 0;
    let mut early = Vec::new().into_iter();
    loop {
        // A client that gives a burst up is no fault of ours.
        let Some(request) = early
            .next()
            .or_else(|| Request::read(&mut input, &dialect).ok().flatten())
        else {
            return;
        };
        if let (Some(count), 1) = (habits.reads_first, requests) {
            let more = (1..count).map(|_| Request::read(&mut input, &dialect).unwrap().unwrap());
            early = more.collect::<Vec<_>>().into_iter();
        }
        heard(request.operation());
        if ends_after.is_some_and(|count| requests > count) {
            return;
        }
        requests += 1;
        if habits.talks {
            talk(&mut out, &dialect);
        }
        answer(&request, source, habits, &mut out, &dialect);
        if out.flush().is_err() {
            return;
        }
    }
}

fn talk(out: &mut Output<'_>, dialect: &Dialect) {
    let activity = Activity {
        id: 1,
        level: Level::Debug,
        kind: ActivityType::Unknown,
        text: b"looking".to_vec(),
        fields: Vec::new(),
        parent: 0,
    };
    for frame in [
        LogFrame::Next(b"a line\n".to_vec()),
        LogFrame::StartActivity(activity),
        LogFrame::StopActivity(1),
    ] {
        frame.write(out, dialect.version).unwrap();
    }
}

fn answer(
    request: &Request,
    source: &MemorySource,
    habits: &Habits,
    out: &mut Output<'_>,
    dialect: &Dialect,
) {
    let one = std::slice::from_ref::<StorePath>;
    let operation = request.operation();
    let set = |paths: Vec<Vec<StorePath>>| paths.into_iter().flatten().collect::<BTreeSet<_>>();
    let failed = |out: &mut Output<'_>, text: &str| {
        Frame::Error(RemoteError::new(text))
            .write(out, dialect.version)
            .ok();
    };
    let written = match request {
        Request::SetOptions(options) => {
            assert!(options.overrides.is_empty() && !options.use_substitutes);
            write_reply(out, operation, dialect, &())
        }
        Request::QueryPathInfo(path) if habits.fails_on.as_ref() == Some(path) => {
            failed(out, "\x1b[31mthe disk\x1b[0m is on fire");
            Ok(())
        }
        Request::QueryPathInfo(path) => match (&source.path_infos(one(path)).unwrap()[0], habits.invalid) {
            (None, Some(text)) => {
                failed(out, text);
                Ok(())
            }
            (info, _) => {
                let info = info.as_ref().map(|info| UnkeyedValidPathInfo {
                    deriver: info.deriver.clone(),
                    references: info.references.iter().cloned().collect(),
                    registration_time: info.registration_time,
                    ultimate: info.ultimate,
                    signatures: info.signatures.iter().cloned().collect(),
                    content_address: info.content_address,
                    ..UnkeyedValidPathInfo::new(info.nar_hash, info.nar_size)
                });
                write_reply(out, operation, dialect, &info)
            }
        },
        Request::QueryValidPaths { paths, substitute } => {
            assert!(!substitute, "nothing is fetched because somebody asks");
            let asked: Vec<StorePath> = paths.iter().cloned().collect();
            let valid = source.are_valid(&asked).unwrap();
            let valid = asked.into_iter().zip(valid).filter(|(_, valid)| *valid);
            let valid: BTreeSet<StorePath> = valid.map(|(path, _)| path).collect();
            write_reply(out, operation, dialect, &valid)
        }
        Request::QueryReferrers(path) => write_reply(
            out,
            operation,
            dialect,
            &set(source.referrers(one(path)).unwrap()),
        ),
        Request::QueryValidDerivers(path) => write_reply(
            out,
            operation,
            dialect,
            &set(source.valid_derivers(one(path)).unwrap()),
        ),
        Request::QueryDerivationOutputMap(path) => {
            match source.derivation_outputs(one(path)).unwrap().remove(0) {
                None => {
                    failed(out, "not a valid derivation");
                    Ok(())
                }
                Some(outputs) => {
                    let outputs = outputs.into_iter();
                    let map: std::collections::BTreeMap<Name, Option<StorePath>> = outputs
                        .map(|(name, path)| (Name::new(name.as_bytes()).unwrap(), Some(path)))
                        .collect();
                    write_reply(out, operation, dialect, &map)
                }
            }
        }
        Request::QueryPathFromHashPart(part) => {
            let found = source.path_from_hash_part(&[*part]).unwrap().remove(0);
            write_reply(out, operation, dialect, &found)
        }
        Request::QueryAllValidPaths => {
            let mut all = BTreeSet::new();
            let mut keep = |path| {
                all.insert(path);
                Ok(())
            };
            source.for_each_valid_path(&mut keep).unwrap();
            write_reply(out, operation, dialect, &all)
        }
        Request::FindRoots => {
            let roots = vec![GcRoot {
                link: b"/link".to_vec(),
                path: crate::fixture::path("app"),
            }];
            write_reply(out, operation, dialect, &roots)
        }
        other => panic!("a reader asks for {other:?}"),
    };
    // A client may leave in the middle.
    written.ok();
}

/// Something at the end of a socket that is no daemon: it says something and ends.
pub(crate) fn something_else(says: &'static [u8]) -> (TempDir, OpenDaemon) {
    let temp = TempDir::new().unwrap();
    let socket = temp.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut greeting = [0; 16];
            match stream.read_exact(&mut greeting) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
                other => other.unwrap(),
            }
            stream.write_all(says).ok();
        }
    });
    (temp, OpenDaemon::new(socket, StoreDir::default()))
}
