// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection, from its first byte to its last.

use std::error::Error as StdError;
use std::io::{BufReader, Write};
use std::sync::Arc;

use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{
    Cause, Error as WireError, Frame, FramedReader, Limits, Operation, Reply, Request, ServerOffer, Trust,
    WireReader, accept, admit,
};

use crate::ahead::{self, Ahead};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::logger::Logger;
use crate::operations::{self, Answer, Answers};
use crate::server::Shared;
use crate::stream::{self, BUFFER, Incoming, Input, Patience, SharedOut};

/// Most requests that are answered as one. More would make the first wait for the last.
const BATCH: usize = 512;

/// Bytes of a request before the text of its one path: the number of the operation, the length of the text.
const HEAD: usize = 16;

/// Most that one request may have, or what is known of one object of a list: enough for the paths of a large store, and for a
/// derivation with everything inside.
pub(crate) const LIMITS: Limits = Limits {
    message: 32 << 20,
    ..Limits::for_requests()
};

/// Serves a client until it goes, or has to.
pub(crate) fn serve(shared: &Arc<Shared>, link: &Arc<Link>, trust: Trust) -> Result<()> {
    let out = SharedOut::new(Arc::clone(link));
    let patience = Patience {
        greeting: shared.options.greeting_limit,
        request: shared.options.request_limit,
        stall: shared.options.stall_limit,
    };
    let incoming = Incoming::new(
        Arc::clone(link),
        out.clone(),
        Arc::clone(&shared.stopping),
        patience,
        Arc::clone(&shared.budget),
    );
    let mut input = WireReader::new(BufReader::with_capacity(BUFFER, incoming), LIMITS);
    let mut connection = greet(shared, link, trust, out, &mut input)?;
    loop {
        stream::end_message(&mut input);
        let request = match Request::read(&mut input, &connection.context.dialect) {
            Ok(Some(request)) => request,
            Ok(None) => return connection.flush(),
            Err(error) => return connection.give_up(error),
        };
        match request {
            Request::QueryPathInfo(path) => connection.batch(&mut input, Operation::QueryPathInfo, path)?,
            Request::IsValidPath(path) => connection.batch(&mut input, Operation::IsValidPath, path)?,
            request if request.operation().has_stream() => connection.upload(&mut input, request)?,
            request => {
                let operation = request.operation();
                let result = operations::handle(request, &mut connection.context);
                connection.answer(operation, result)?;
            }
        }
    }
}

/// The handshake.
fn greet(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    trust: Trust,
    out: SharedOut,
    input: &mut Input,
) -> Result<Connection> {
    let offer = ServerOffer {
        trust,
        daemon_version: concat!("superpose ", env!("CARGO_PKG_VERSION")).into(),
        ..ServerOffer::default()
    };
    let session = {
        // The input passes on what was written before it waits for more, so the lock must be free then.
        let mut direct = superpose_worker_protocol::WireWriter::new(Handed { out: &out });
        let session = accept(input, &mut direct, &offer)?;
        admit(&mut direct, &session)?;
        session
    };
    let dialect = session.dialect(shared.pool.layout().store_dir().clone());
    let logger = Logger::new(out.clone(), dialect.version);
    let context = Context::new(Arc::clone(shared), Arc::clone(link), dialect, trust, logger);
    Ok(Connection {
        context,
        out,
        ahead: Ahead::new(Arc::clone(&shared.ahead)),
    })
}

/// The way out, locked for each write only.
struct Handed<'o> {
    out: &'o SharedOut,
}

impl std::io::Write for Handed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.lock().get_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.lock().get_mut().flush()
    }
}

struct Connection {
    context: Context,
    out: SharedOut,
    ahead: Ahead,
}

impl Connection {
    /// Answers questions about single paths, as many as have arrived by now, with one question to the store.
    fn batch(&mut self, input: &mut Input, operation: Operation, first: StorePath) -> Result<()> {
        let mut paths = vec![first];
        let mut broken = None;
        while paths.len() < BATCH && next_has_arrived(input.get_ref().buffer(), operation) {
            match Request::read(input, &self.context.dialect) {
                Ok(Some(Request::QueryPathInfo(path) | Request::IsValidPath(path))) => paths.push(path),
                Ok(_) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        if let (Operation::QueryPathInfo, [path], None) = (operation, paths.as_slice(), &broken) {
            return self.answer_alone(path);
        }
        match operations::answer_batch(operation, &paths, &self.context) {
            Err(_) if paths.len() > 1 => self.answer_one_by_one(operation, &paths)?,
            answers => self.answer_all(operation, &answers)?,
        }
        match broken {
            Some(error) => self.give_up(error),
            None => Ok(()),
        }
    }

    /// Answers questions of which all together are too much, or one is spoiled by a bad row. Each answer is written before the
    /// next is asked for, and one that is wanted again at once is not asked for again.
    fn answer_one_by_one(&self, operation: Operation, paths: &[StorePath]) -> Result<()> {
        let mut last = None;
        for path in paths {
            let answers = match last.take() {
                Some((known, answers)) if known == path => answers,
                held => {
                    // It is given back before more is taken.
                    drop(held);
                    operations::answer_batch(operation, std::slice::from_ref(path), &self.context)
                }
            };
            self.answer_all(operation, &answers)?;
            last = Some((path, answers));
        }
        Ok(())
    }

    /// Says what the answers to a batch are, or that there are none.
    fn answer_all(&self, operation: Operation, answers: &Result<Answers>) -> Result<()> {
        match answers {
            Ok(answers) => answers.iter().try_for_each(|answer| match answer {
                Ok(reply) => self.reply(operation, reply),
                Err(error) => self.fail(operation, error),
            }),
            Err(error) => self.fail(operation, error),
        }
    }

    /// Answers a question about a path that came alone. If its client walks along references, answers go out at once, and
    /// what it will ask next is read while it thinks.
    fn answer_alone(&mut self, path: &StorePath) -> Result<()> {
        let operation = Operation::QueryPathInfo;
        let mut references = Vec::new();
        if let Some(ready) = self.ahead.take(path, &self.context) {
            let sent = self.out.lock().get_mut().write_all(&ready.bytes);
            sent.map_err(|source| WireError::Write { source })?;
            references = ready.references;
        } else {
            let paths = std::slice::from_ref(path);
            let answers = operations::answer_batch(operation, paths, &self.context);
            if let Ok(answers) = &answers {
                references = answers.iter().flatten().flat_map(ahead::references).collect();
            }
            self.answer_all(operation, &answers)?;
        }
        if self.ahead.note(path, references) {
            self.flush()?;
            self.ahead.read(&self.context);
        }
        Ok(())
    }

    /// Handles a request with a stream behind it. Whatever becomes of it, the stream is read to its end, so that what
    /// comes next is understood.
    fn upload(&mut self, input: &mut Input, request: Request) -> Result<()> {
        let operation = request.operation();
        stream::begin_stream(input);
        let mut upload = FramedReader::new(input);
        let result = operations::receive(request, &mut upload, &mut self.context);
        if let Err(error) = result {
            // At once: the client stops sending when it sees it.
            self.answer(operation, Err(error))?;
            self.flush()?;
            upload.drain()?;
            return Ok(());
        }
        // Clients abort when they are told of success before they have sent everything.
        upload.drain()?;
        self.answer(operation, result)
    }

    /// Says how a request ended.
    fn answer(&self, operation: Operation, result: Result<Answer>) -> Result<()> {
        match result {
            Ok(Answer::Reply(reply) | Answer::Large(reply, _)) => self.reply(operation, &reply),
            Ok(Answer::Archive(archive)) => {
                let mut out = self.out.lock();
                Frame::Last.write(&mut out, self.context.dialect.version)?;
                archive.write(out.get_mut())
            }
            Err(error) => self.fail(operation, &error),
        }
    }

    fn reply(&self, operation: Operation, reply: &Reply) -> Result<()> {
        debug_assert_eq!(reply.shape(), operation.shape(), "{operation}");
        let mut out = self.out.lock();
        Frame::Last.write(&mut out, self.context.dialect.version)?;
        Ok(reply.write(&mut out, &self.context.dialect)?)
    }

    fn fail(&self, operation: Operation, error: &Error) -> Result<()> {
        tracing::debug!(%operation, error = error as &dyn StdError, "a request failed");
        let mut out = self.out.lock();
        Ok(Frame::Error(error.report()).write(&mut out, self.context.dialect.version)?)
    }

    /// Tells the client what it did wrong, where it can still be told. Where its next request begins nobody knows.
    fn give_up(&mut self, error: WireError) -> Result<()> {
        let busy = match &error {
            WireError::Read { source, .. } => source.get_ref().is_some_and(|inner| inner.is::<Error>()),
            _ => false,
        };
        if error.cause() == Cause::Transport && !busy {
            return Err(error.into());
        }
        let error = Error::from(error);
        let report = Frame::Error(error.report());
        report.write(&mut self.out.lock(), self.context.dialect.version)?;
        self.flush()?;
        Err(error)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.out.lock().flush()?)
    }
}

/// Whether a whole request of this operation, which has one path, is there already.
fn next_has_arrived(buffer: &[u8], operation: Operation) -> bool {
    let word = |at: usize| {
        let bytes = buffer.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let (Some(number), Some(length)) = (word(0), word(8)) else {
        return false;
    };
    number == operation.number()
        && usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_next_multiple_of(8)?.checked_add(HEAD))
            .is_some_and(|all| all <= buffer.len())
}
