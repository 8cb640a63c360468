// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: the handshake, and bursts of requests.

use std::io::{BufReader, BufWriter};
use std::sync::Arc;

use superpose_worker_protocol::{
    Body, ClientOffer, ClientOptions, Dialect, Level, Limits, LogFrame, Operation, RemoteError, Request,
    WireReader, WireWriter, connect, plain, read_reply,
};

use super::OpenDaemon;
use super::link::{Link, Sender};
use super::socket::{Absent, reach};
use crate::{Error, Result};

/// How much is read from the socket at once, in bytes: some hundred replies.
const BUFFER: usize = 64 << 10;

/// How many questions in a row go to one of several connections: fewer answers than a socket holds.
const SLICE: usize = 64;

/// What the daemon answers: the body of a reply, or its error, after which the connection goes on.
pub(super) type Answer<T> = Result<T, RemoteError>;

/// What went wrong with a connection. Nothing can be said on it any more.
pub(super) type Broken = superpose_worker_protocol::Error;

/// A connection that both sides agreed on. After an error of one of its methods it is of no use.
#[derive(Debug)]
pub(super) struct Connection {
    input: WireReader<BufReader<Link>>,
    dialect: Dialect,
    /// Whether the reply to our options is still to come.
    owes_options: bool,
}

impl Connection {
    /// Connects, and goes through the handshake.
    pub(super) fn open(options: &OpenDaemon, absent: Absent) -> Result<Self> {
        let unreachable = |source| Error::DaemonUnreachable {
            socket: options.socket.clone(),
            source,
        };
        let stream = Arc::new(reach(&options.socket, options.connect_limit, absent).map_err(unreachable)?);
        let link = Link::new(Arc::clone(&stream), options.reply_limit);
        let mut input = WireReader::new(BufReader::with_capacity(BUFFER, link), Limits::for_replies());
        let mut out = WireWriter::new(BufWriter::new(Sender::new(stream, options.reply_limit)));
        let session = connect(&mut input, &mut out, &ClientOffer::default(), say)
            .map_err(|error| options.broken(error))?;
        let mut connection = Self {
            input,
            dialect: session.dialect(options.store_dir.clone()),
            owes_options: true,
        };
        connection
            .send(&[Request::SetOptions(options_of_a_reader())])
            .map_err(|error| options.broken(error))?;
        Ok(connection)
    }

    /// Adds the answers to requests that were sent, in their order. Those that came before something broke are right.
    fn receive<T: Body>(&mut self, requests: &[Request], answers: &mut Vec<Answer<T>>) -> Result<(), Broken> {
        if self.owes_options {
            // A daemon that does not like them would be no worse to ask.
            let set: Answer<()> = read_reply(&mut self.input, Operation::SetOptions, &self.dialect, say)?;
            if let Err(report) = set {
                tracing::debug!(report = %plain(&report.message), "the Nix daemon does not take options");
            }
            self.owes_options = false;
        }
        for request in requests {
            answers.push(read_reply(
                &mut self.input,
                request.operation(),
                &self.dialect,
                say,
            )?);
        }
        Ok(())
    }

    /// Has requests sent while replies are read.
    fn send(&mut self, requests: &[Request]) -> Result<(), Broken> {
        let mut bytes = WireWriter::new(Vec::new());
        for request in requests {
            request.write(&mut bytes, &self.dialect)?;
        }
        self.input.get_mut().get_mut().queue(bytes.into_inner());
        Ok(())
    }
}

/// Asks many questions at once, spread over connections, and adds the answers in the order of the questions. Those that
/// came before something broke are right.
///
/// A daemon serves each connection by a process of its own. While the answers of one are read, the others go on as far as
/// their sockets hold what they say.
pub(super) fn burst<T: Body>(
    connections: &mut [Connection],
    requests: &[Request],
    answers: &mut Vec<Answer<T>>,
) -> Result<(), Broken> {
    let count = connections.len();
    let slice = if count == 1 { requests.len() } else { SLICE };
    for (number, slice) in requests.chunks(slice).enumerate() {
        connections[number % count].send(slice)?;
    }
    for connection in connections.iter_mut().skip(1) {
        connection.input.get_mut().get_mut().begin();
    }
    for (number, slice) in requests.chunks(slice).enumerate() {
        connections[number % count].receive(slice, answers)?;
    }
    Ok(())
}

/// Errors alone are to be told, and nothing is to be fetched because somebody asks.
fn options_of_a_reader() -> ClientOptions {
    ClientOptions {
        verbosity: Level::Error,
        verbose_build: false,
        use_substitutes: false,
        ..ClientOptions::default()
    }
}

/// Passes on what the daemon says while it works.
fn say(frame: LogFrame) {
    match frame {
        LogFrame::Next(text) => tracing::warn!("the Nix daemon says: {}", plain(&text)),
        other => tracing::trace!(?other, "the Nix daemon is at work"),
    }
}
