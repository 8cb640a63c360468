// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to a daemon, one that listens or one that is a child: the handshake, requests and streams.

use std::io::{self, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use superpose_overlay::store_path::StoreDir;
use superpose_worker_protocol::{
    Body, ClientOffer, ClientOptions, Dialect, Ending, FramedWriter, Level, Limits, LogFrame, Operation,
    RemoteError, Reply, Request, Trust, WireReader, WireWriter, connect, plain, read_reply, read_until_end,
};

use super::error::{Error, Result};
use super::patience::Half;
use super::socket::reach;

/// How much is read or written at once, in bytes.
const BUFFER: usize = 64 << 10;

/// How long a child may take to show that it is a Nix daemon.
const GREETING: Duration = Duration::from_secs(60);

/// What the protocol says.
type Broken = superpose_worker_protocol::Error;

/// What comes from the daemon.
pub(crate) type Input = WireReader<BufReader<Half>>;

/// What goes to the daemon.
pub(crate) type Out = WireWriter<BufWriter<Half>>;

/// A connection that both sides agreed on. After [`Error::Broken`] it is of no use.
#[derive(Debug)]
pub(crate) struct Connection {
    input: Input,
    out: Out,
    dialect: Dialect,
    trust: Trust,
    /// What it is called in messages.
    peer: Peer,
}

/// Who is at the other end, as messages name it, and how long it is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    name: String,
    patience: Option<Duration>,
}

impl Peer {
    /// Makes the error of a connection that broke.
    pub(crate) fn broken(&self, source: Broken) -> Error {
        match self.patience {
            Some(waited) if source.io_kind() == Some(io::ErrorKind::TimedOut) => Error::Silent {
                peer: self.name.clone(),
                waited,
            },
            _ => Error::Broken {
                peer: self.name.clone(),
                source: Box::new(source),
            },
        }
    }
}

impl Connection {
    /// Connects to a socket, of which nothing is expected any more after some time in which it neither says nor takes
    /// anything.
    pub(crate) fn to_socket(socket: &Path, store_dir: StoreDir, patience: Duration) -> Result<Self> {
        let peer = socket.display().to_string();
        let unreachable = |source: io::Error| Error::Unreachable {
            peer: peer.clone(),
            source,
        };
        let stream = reach(socket).map_err(unreachable)?;
        let out = stream.try_clone().map_err(unreachable)?;
        let peer = Peer {
            name: peer.clone(),
            patience: Some(patience),
        };
        let mut connection = Self::introduce(stream, out, peer, store_dir)?;
        connection.set_options(&ClientOptions {
            verbosity: Level::Error,
            verbose_build: false,
            use_substitutes: false,
            ..ClientOptions::default()
        })?;
        Ok(connection)
    }

    /// Introduces itself to a child at the other end of a socket, of which there are two handles. What it is asked may take
    /// as long as it takes.
    pub(crate) fn to_child(
        input: UnixStream,
        out: UnixStream,
        name: String,
        store_dir: StoreDir,
    ) -> Result<Self> {
        let unreachable = |source: io::Error| Error::Unreachable {
            peer: name.clone(),
            source,
        };
        let socket = input.try_clone().map_err(unreachable)?;
        socket.set_read_timeout(Some(GREETING)).map_err(unreachable)?;
        let peer = Peer {
            name: name.clone(),
            patience: None,
        };
        let connection = Self::introduce(input, out, peer, store_dir)?;
        socket.set_read_timeout(None).map_err(unreachable)?;
        Ok(connection)
    }

    fn introduce(input: UnixStream, out: UnixStream, peer: Peer, store_dir: StoreDir) -> Result<Self> {
        let (input, out) =
            Half::pair(input.into(), out.into(), peer.patience).map_err(|source| Error::Unreachable {
                peer: peer.name.clone(),
                source,
            })?;
        let mut input = WireReader::new(BufReader::with_capacity(BUFFER, input), Limits::for_replies());
        let mut out = WireWriter::new(BufWriter::with_capacity(BUFFER, out));
        let session = connect(&mut input, &mut out, &ClientOffer::default(), say)
            .map_err(|source| peer.broken(source))?;
        out.get_mut().get_mut().end_greeting();
        Ok(Self {
            input,
            out,
            dialect: session.dialect(store_dir),
            trust: session.trust,
            peer,
        })
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    /// What the other end is called.
    pub(crate) fn peer(&self) -> &str {
        &self.peer.name
    }

    /// The other end, for errors that are made while the connection is in use.
    pub(crate) fn other_end(&self) -> Peer {
        self.peer.clone()
    }

    pub(crate) fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    pub(crate) fn broken(&self, source: Broken) -> Error {
        self.peer.broken(source)
    }

    /// The error of a daemon that was waited for in vain.
    pub(crate) fn silent(&self) -> Error {
        self.peer.broken(Broken::Write {
            source: io::ErrorKind::TimedOut.into(),
        })
    }

    /// What the daemon says of a request that failed, as an error.
    pub(crate) fn said(&self, report: &RemoteError) -> Error {
        Error::Refused {
            peer: self.peer.name.clone(),
            message: plain(&report.message),
        }
    }

    /// Says what is wanted of the daemon.
    pub(crate) fn set_options(&mut self, options: &ClientOptions) -> Result<()> {
        self.ask(&Request::SetOptions(options.clone()))
    }

    /// Asks one question.
    pub(crate) fn ask<T: Body>(&mut self, request: &Request) -> Result<T> {
        let answer = self.ask_listening(request, say)?;
        answer.map_err(|report| self.said(&report))
    }

    /// Asks one question, and hands over what the daemon says while it works. The inner error is the daemon's.
    pub(crate) fn ask_listening<T: Body>(
        &mut self,
        request: &Request,
        on_log: impl FnMut(LogFrame),
    ) -> Result<Result<T, RemoteError>> {
        let sent = request
            .write(&mut self.out, &self.dialect)
            .and_then(|()| self.out.flush());
        // A daemon that went away may have said why.
        let answer = match sent {
            Err(error) if error.io_kind() != Some(io::ErrorKind::BrokenPipe) => Err(error),
            _ => read_reply(&mut self.input, request.operation(), &self.dialect, on_log),
        };
        answer.map_err(|source| self.broken(source))
    }

    /// Passes a request of whatever kind on, and hands over what the daemon says while it works.
    pub(crate) fn forward(
        &mut self,
        request: &Request,
        on_log: impl FnMut(LogFrame),
    ) -> Result<Result<Reply, RemoteError>> {
        let (input, out, dialect) = (&mut self.input, &mut self.out, &self.dialect);
        let pass = || {
            request.write(out, dialect)?;
            out.flush()?;
            match read_until_end(input, dialect.version, on_log)? {
                Ending::Failure(report) => Ok(Err(report)),
                Ending::Success => Reply::read(input, request.operation(), dialect).map(Ok),
            }
        };
        pass().map_err(|source| self.broken(source))
    }

    /// Asks many questions at once; the answers are in their order. What is sent and what is answered may each be more than
    /// a socket holds, so that one thread writes while another reads.
    pub(crate) fn burst<T: Body>(&mut self, requests: &[Request]) -> Result<Vec<Result<T, RemoteError>>> {
        let (input, out, dialect) = (&mut self.input, &mut self.out, &self.dialect);
        let answers = thread::scope(|scope| {
            let writer = scope.spawn(|| write_all(out, requests, dialect));
            let mut answers = Vec::with_capacity(requests.len());
            for request in requests {
                match read_reply(input, request.operation(), dialect, say) {
                    Ok(answer) => answers.push(answer),
                    Err(error) => {
                        hang_up(input);
                        return Err(error);
                    }
                }
            }
            writer.join().expect("writing does not panic")?;
            Ok(answers)
        });
        answers.map_err(|source| self.broken(source))
    }

    /// Sends requests while `work` reads what they are answered with, which has to be all of it. If it fails the connection is
    /// hung up.
    pub(crate) fn while_sending<T, E>(
        &mut self,
        requests: &[Request],
        work: impl FnOnce(&mut Input, &Dialect) -> Result<T, E>,
    ) -> Result<T, E> {
        let (input, out, dialect) = (&mut self.input, &mut self.out, &self.dialect);
        thread::scope(|scope| {
            // A daemon that does not read any more is noticed by who reads its answers.
            scope.spawn(|| write_all(out, requests, dialect).ok());
            let result = work(input, dialect);
            if result.is_err() {
                hang_up(input);
            }
            result
        })
    }

    /// Sends a request with its stream, which `fill` writes, and reads the reply, which has no body. The daemon may answer
    /// early: then the stream takes no more.
    ///
    /// Of two errors the one is given that the other follows from.
    pub(crate) fn upload<E: From<Error>>(
        &mut self,
        request: &Request,
        fill: impl FnOnce(&mut (dyn Write + Send), &Dialect) -> Result<(), E>,
    ) -> Result<(), E> {
        let peer = self.peer.clone();
        let broken = |source| peer.broken(source);
        let (input, out, dialect) = (&mut self.input, &mut self.out, &self.dialect);
        let operation: Operation = request.operation();
        request.write(out, dialect).map_err(broken)?;
        let answered = AtomicBool::new(false);
        let (filled, was_refused, ending) = thread::scope(|scope| {
            // It listens all the time: a daemon that waits for somebody to hear it would not read on.
            let listener = scope.spawn(|| {
                let ending = read_until_end(input, dialect.version, say);
                answered.store(true, Ordering::Release);
                ending
            });
            let mut stream = FramedWriter::with_hook(out, || {
                Ok(if answered.load(Ordering::Acquire) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            });
            let filled = fill(&mut stream, dialect);
            let was_stopped = stream.is_stopped();
            let finished = stream.finish();
            let ending = listener.join().expect("reading does not panic");
            // Whether the rest of it was not wanted, or not taken.
            let was_refused = was_stopped || finished.is_err();
            let filled = filled.and(finished.map_err(|source| broken(source).into()));
            (filled, was_refused, ending)
        });
        tracing::trace!(%operation, "the upload has ended");
        match (ending, filled) {
            (Ok(Ending::Success), filled) => filled,
            // The daemon was sent less than was announced because this side could not go on.
            (Ok(Ending::Failure(_)), Err(error)) if !was_refused => Err(error),
            (Ok(Ending::Failure(report)), _) => Err(self.said(&report).into()),
            (Err(_), Err(error)) if !was_refused => Err(error),
            (Err(source), _) => Err(broken(source).into()),
        }
    }
}

fn write_all(out: &mut Out, requests: &[Request], dialect: &Dialect) -> Result<(), Broken> {
    for request in requests {
        request.write(out, dialect)?;
    }
    out.flush()
}

/// Ends the connection, so that nobody waits at its other direction.
fn hang_up(input: &Input) {
    shutdown(input.get_ref().get_ref().as_fd(), Shutdown::Both).ok();
}

/// Passes on what the daemon says while it works.
pub(crate) fn say(frame: LogFrame) {
    match frame {
        LogFrame::Next(text) => tracing::warn!("the Nix daemon says: {}", plain(&text)),
        other => tracing::trace!(?other, "the Nix daemon is at work"),
    }
}
