// SPDX-License-Identifier: MIT OR Apache-2.0
//! Peers: one that follows a script and notices when both sides would wait, and a real one at the other end of a socket.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use superpose_store_path::StoreDir;
use superpose_worker_protocol::{
    ClientOffer, Done, Feature, Features, Frame, FramedReader, FramedWriter, Limits, LogFrame, Operation,
    RemoteError, Request, ServerOffer, Trust, UnkeyedValidPathInfo, Version, WireReader, WireWriter, accept,
    admit, connect, read_reply, write_reply,
};

use crate::golden::golden;
use crate::sources::path;

/// What a scripted peer does next.
enum Step {
    /// Wait until exactly this has been written and flushed.
    Expect(Vec<u8>),
    /// Send this.
    Send(Vec<u8>),
}

#[derive(Default)]
struct State {
    script: VecDeque<Step>,
    /// Written, but not passed on.
    held: Vec<u8>,
    /// Passed on, and not yet expected.
    arrived: Vec<u8>,
    /// How much was passed on each time.
    flushes: Vec<usize>,
}

/// A peer that follows a script. Where a real one would wait for ever the test fails.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Rc<RefCell<State>>);

impl Scripted {
    pub(crate) fn expect(self, bytes: &[u8]) -> Self {
        self.0.borrow_mut().script.push_back(Step::Expect(bytes.to_vec()));
        self
    }

    pub(crate) fn send(self, bytes: &[u8]) -> Self {
        self.0.borrow_mut().script.push_back(Step::Send(bytes.to_vec()));
        self
    }

    pub(crate) fn ends(&self) -> (WireReader<Self>, WireWriter<Self>) {
        (
            WireReader::new(self.clone(), Limits::for_replies()),
            WireWriter::new(self.clone()),
        )
    }

    /// Everything was expected and sent, and nothing else was written; how much was passed on each time.
    pub(crate) fn finish(self) -> Vec<usize> {
        let mut state = self.0.borrow_mut();
        state.look();
        assert!(state.script.is_empty(), "the script is not at its end");
        assert_eq!(
            (state.arrived.len(), state.held.len()),
            (0, 0),
            "more was written than expected"
        );
        state.flushes.clone()
    }
}

impl State {
    /// Does what can be done without this side.
    fn look(&mut self) {
        while let Some(Step::Expect(bytes)) = self.script.front() {
            if self.arrived.len() < bytes.len() {
                assert!(
                    bytes.starts_with(&self.arrived),
                    "expected {bytes:x?}, found {:x?}",
                    self.arrived
                );
                return;
            }
            assert_eq!(self.arrived[..bytes.len()], bytes[..]);
            self.arrived.drain(..bytes.len());
            self.script.pop_front();
        }
    }
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.0.borrow_mut();
        state.look();
        match state.script.front_mut() {
            None => Ok(0),
            Some(Step::Expect(bytes)) => {
                panic!(
                    "both sides wait: the peer for {bytes:x?}, of which {:x?} came",
                    state.arrived
                )
            }
            Some(Step::Send(bytes)) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                bytes.drain(..length);
                if bytes.is_empty() {
                    state.script.pop_front();
                }
                Ok(length)
            }
        }
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let held = std::mem::take(&mut state.held);
        if !held.is_empty() {
            state.flushes.push(held.len());
        }
        state.arrived.extend(held);
        Ok(())
    }
}

/// The recorded session, with us as the client: the same bytes, passed on in the same pieces.
#[test]
fn a_recorded_session_as_client() {
    let (client, server) = (golden("session-client"), golden("session-server"));
    let peer = Scripted::default()
        .expect(&client[..16])
        .send(&server[..16])
        .expect(&client[16..24])
        .send(&server[16..24])
        .expect(&client[24..40])
        .send(&server[24..56])
        .expect(&client[40..152])
        .send(&server[56..64])
        .expect(&client[152..])
        .send(&server[64..]);
    let (mut input, mut out) = peer.ends();
    let session = connect(&mut input, &mut out, &ClientOffer::default(), |frame| {
        panic!("{frame:?}")
    })
    .unwrap();
    assert_eq!(
        (session.trust, &session.daemon_version[..]),
        (Trust::Trusted, &b"2.34.8"[..])
    );
    let dialect = session.dialect(StoreDir::default());

    Request::SetOptions(Default::default())
        .write(&mut out, &dialect)
        .unwrap();
    out.flush().unwrap();
    read_reply::<(), _>(&mut input, Operation::SetOptions, &dialect, |_| {})
        .unwrap()
        .unwrap();

    let request = Request::QueryPathInfo(path("0p6d6far7jx5ky739yfjf0d23nv1bbbm-c"));
    request.write(&mut out, &dialect).unwrap();
    out.flush().unwrap();
    let info: Option<UnkeyedValidPathInfo> = read_reply(&mut input, request.operation(), &dialect, |_| {})
        .unwrap()
        .unwrap();
    assert_eq!(info.unwrap().nar_size, 160);
    assert_eq!(peer.finish(), [16, 8, 16, 112, 64]);
}

/// The recorded session, with us as the server.
#[test]
fn a_recorded_session_as_server() {
    let (client, server) = (golden("session-client"), golden("session-server"));
    // The answers are known from reading them.
    let dialect = superpose_worker_protocol::Dialect::default();
    let mut known = WireReader::new(&server[64..], Limits::for_replies());
    let info: Option<UnkeyedValidPathInfo> =
        read_reply(&mut known, Operation::QueryPathInfo, &dialect, |_| {})
            .unwrap()
            .unwrap();

    let peer = Scripted::default()
        .send(&client[..16])
        .expect(&server[..16])
        .send(&client[16..24])
        .expect(&server[16..24])
        .send(&client[24..40])
        .expect(&server[24..56])
        .send(&client[40..152])
        .expect(&server[56..64])
        .send(&client[152..])
        .expect(&server[64..]);
    let (mut input, mut out) = peer.ends();
    let offer = ServerOffer {
        trust: Trust::Trusted,
        daemon_version: b"2.34.8".to_vec(),
        ..ServerOffer::default()
    };
    let session = accept(&mut input, &mut out, &offer).unwrap();
    admit(&mut out, &session).unwrap();
    let dialect = session.dialect(StoreDir::default());
    while let Some(request) = Request::read(&mut input, &dialect).unwrap() {
        match &request {
            Request::SetOptions(options) => {
                assert_eq!(*options, Default::default());
                write_reply(&mut out, request.operation(), &dialect, &()).unwrap();
            }
            Request::QueryPathInfo(asked) => {
                assert_eq!(*asked, path("0p6d6far7jx5ky739yfjf0d23nv1bbbm-c"));
                write_reply(&mut out, request.operation(), &dialect, &info).unwrap();
            }
            other => panic!("{other:?}"),
        }
        out.flush().unwrap();
    }
    assert_eq!(peer.finish(), [16, 8, 32, 8, 256]);
}

type Ends = (
    WireReader<BufReader<UnixStream>>,
    WireWriter<BufWriter<UnixStream>>,
);

/// Longer than any exchange here takes, shorter than a person waits.
const PATIENCE: Duration = Duration::from_secs(20);

fn ends(socket: UnixStream) -> Ends {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let reading = BufReader::new(socket.try_clone().unwrap());
    (
        WireReader::new(reading, Limits::for_requests()),
        WireWriter::new(BufWriter::new(socket)),
    )
}

/// A server that knows one path, and counts what it was sent.
fn serve(socket: UnixStream, offer: ServerOffer) {
    let (mut input, mut out) = ends(socket);
    let session = accept(&mut input, &mut out, &offer).unwrap();
    admit(&mut out, &session).unwrap();
    let dialect = session.dialect(StoreDir::default());
    while let Some(request) = Request::read(&mut input, &dialect).unwrap() {
        let operation = request.operation();
        LogFrame::Next(format!("{operation}\n").into_bytes())
            .write(&mut out, dialect.version)
            .unwrap();
        match request {
            Request::IsValidPath(asked) => {
                write_reply(&mut out, operation, &dialect, &(asked.name() == "c")).unwrap();
            }
            Request::AddBuildLog(_) => {
                let mut stream = FramedReader::new(&mut input);
                let mut head = [0; 4];
                stream.read_exact(&mut head).unwrap();
                if head == *b"good" {
                    stream.drain().unwrap();
                    write_reply(&mut out, operation, &dialect, &Done).unwrap();
                } else {
                    // The error goes out at once, and the rest of the upload is read all the same.
                    Frame::Error(RemoteError::new("a bad log"))
                        .write(&mut out, dialect.version)
                        .unwrap();
                    out.flush().unwrap();
                    stream.drain().unwrap();
                }
            }
            _ => {
                let report = RemoteError::new("no such thing");
                Frame::Error(report).write(&mut out, dialect.version).unwrap();
            }
        }
        out.flush().unwrap();
    }
}

/// Runs a client against a server at the other end of a socket.
fn converse(
    client: ClientOffer,
    server: ServerOffer,
    talk: impl FnOnce(&mut Ends, superpose_worker_protocol::Session),
) {
    let (near, far) = UnixStream::pair().unwrap();
    let serving = thread::spawn(move || serve(far, server));
    let mut ends = ends(near);
    let session = connect(&mut ends.0, &mut ends.1, &client, |_| {}).unwrap();
    talk(&mut ends, session);
    drop(ends);
    serving.join().unwrap();
}

#[test]
fn every_pair_of_versions_agrees_on_the_lower_one() {
    for client in 18..=38 {
        for server in [18, 19, 20, 25, 26, 27, 32, 33, 34, 35, 36, 37, 38] {
            let offered = Features::from_iter([Feature::RealisationWithPath, Feature::SubmitOutput]);
            let wanted = Features::from_iter([Feature::RealisationWithPath, Feature::DisableSetOptions]);
            let client_offer = ClientOffer {
                version: Version::new(1, client),
                features: wanted,
            };
            let server_offer = ServerOffer {
                version: Version::new(1, server),
                features: offered,
                trust: Trust::Trusted,
                daemon_version: b"7.8".to_vec(),
            };
            converse(client_offer, server_offer, |(input, out), session| {
                let agreed = client.min(server);
                assert_eq!(session.version, Version::new(1, agreed));
                assert_eq!(session.peer_version, Version::new(1, server));
                let has = |minor: u8| agreed >= minor;
                assert_eq!(session.trust == Trust::Trusted, has(35));
                assert_eq!(session.daemon_version == b"7.8", has(33));
                let both = Features::NONE.with(Feature::RealisationWithPath);
                assert_eq!(session.features, if has(38) { both } else { Features::NONE });

                let dialect = session.dialect(StoreDir::default());
                let request = Request::IsValidPath(path("0p6d6far7jx5ky739yfjf0d23nv1bbbm-c"));
                request.write(out, &dialect).unwrap();
                Request::FindRoots.write(out, &dialect).unwrap();
                out.flush().unwrap();
                assert_eq!(
                    read_reply(input, request.operation(), &dialect, |_| {}).unwrap(),
                    Ok(true)
                );
                let refused = read_reply::<Vec<superpose_worker_protocol::GcRoot>, _>(
                    input,
                    Operation::FindRoots,
                    &dialect,
                    |_| {},
                );
                assert_eq!(refused.unwrap().unwrap_err().message, b"no such thing");
            });
        }
    }
}

/// Ten thousand requests are encoded before the first is sent, and the replies come in their order.
#[test]
fn requests_are_pipelined() {
    const COUNT: usize = 10_000;
    converse(
        ClientOffer::default(),
        ServerOffer::default(),
        |(input, out), session| {
            let dialect = session.dialect(StoreDir::default());
            let name = |at: usize| if at.is_multiple_of(3) { "c" } else { "d" };
            let mut burst = WireWriter::new(Vec::new());
            for at in 0..COUNT {
                let path = path(&format!("0p6d6far7jx5ky739yfjf0d23nv1bbbm-{}", name(at)));
                Request::IsValidPath(path).write(&mut burst, &dialect).unwrap();
            }
            let burst = burst.into_inner();
            let mut sending = out.get_ref().get_ref().try_clone().unwrap();
            // Who writes and who reads may not be the same thread: all of this fits into no socket's buffer.
            let sender = thread::spawn(move || sending.write_all(&burst));
            let mut said = 0;
            for at in 0..COUNT {
                let valid = read_reply(input, Operation::IsValidPath, &dialect, |_| said += 1).unwrap();
                assert_eq!(valid, Ok(name(at) == "c"), "{at}");
            }
            assert_eq!(said, COUNT);
            sender.join().unwrap().unwrap();
        },
    );
}

/// An error in the middle of an upload: the client sees it before it has sent everything, and the connection goes on.
#[test]
fn an_upload_that_is_refused_leaves_the_connection_usable() {
    converse(
        ClientOffer::default(),
        ServerOffer::default(),
        |(input, out), session| {
            let dialect = session.dialect(StoreDir::default());
            let derivation = path("wbq4h7cc23rj88yb2ax7pksa3qy5cdn6-c.drv");
            for head in [b"good", b"evil", b"good"] {
                let is_good = head == b"good";
                Request::AddBuildLog(derivation.clone())
                    .write(out, &dialect)
                    .unwrap();
                let mut upload = FramedWriter::with_hook(out, || {
                    // Without waiting: whatever is there already stays in the reader's buffer.
                    let reading = input.get_mut();
                    reading.get_ref().set_nonblocking(true)?;
                    let found = reading.fill_buf().map(|bytes| !bytes.is_empty());
                    reading.get_ref().set_nonblocking(false)?;
                    let is_there = match found {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                        other => other?,
                    };
                    Ok(if is_there {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    })
                });
                upload.write_all(head).unwrap();
                upload.flush().unwrap();
                let mut stopped_at = None;
                for piece in 0..2000 {
                    if upload.write_all(&[7; 10_000]).is_err() {
                        stopped_at = Some(piece);
                        break;
                    }
                }
                assert_eq!((stopped_at.is_none(), upload.is_stopped()), (is_good, !is_good));
                upload.finish().unwrap();
                let reply = read_reply::<Done, _>(input, Operation::AddBuildLog, &dialect, |_| {}).unwrap();
                assert_eq!(
                    reply,
                    if is_good {
                        Ok(Done)
                    } else {
                        Err(RemoteError::new("a bad log"))
                    }
                );
            }
            Request::IsValidPath(path("0p6d6far7jx5ky739yfjf0d23nv1bbbm-c"))
                .write(out, &dialect)
                .unwrap();
            out.flush().unwrap();
            assert_eq!(
                read_reply(input, Operation::IsValidPath, &dialect, |_| {}).unwrap(),
                Ok(true)
            );
        },
    );
}
