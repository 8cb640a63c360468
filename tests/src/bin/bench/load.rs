// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients of one server at once, each with a connection and a thread, asking what is known of paths.
//!
//! They are paced in one of two ways. *Closed*: each asks as soon as it has an answer, which finds the rate that client and
//! server together reach on this machine; with more clients than processors each answer then waits for those of all
//! others, however quick the server is. *Open*: all together ask at a given rate, and an answer is late from the moment at
//! which its question was due, whether it could be asked then or not.

use std::io::{BufReader, BufWriter};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use superpose_store_path::StorePath;
use superpose_worker_protocol::{
    ClientOffer, Dialect, Limits, Request, UnkeyedValidPathInfo, WireReader, WireWriter, connect, read_reply,
};

/// How clients are paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as answers come.
    Closed,
    /// So many questions a second, of all clients together.
    Open(f64),
}

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    /// Questions of each.
    pub(crate) questions: u32,
    pub(crate) pace: Pace,
}

/// What came of it. There is none unless each question was answered rightly.
#[derive(Debug)]
pub(crate) struct Answered {
    /// From the first question to the last answer.
    pub(crate) wall: Duration,
    /// Of each answer, sorted.
    latencies: Vec<Duration>,
}

impl Answered {
    /// How long the given share of answers took at most.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        // Truncated: an index.
        let at = (last as f64 * share) as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }

    /// Answers in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.wall.as_secs_f64().max(f64::EPSILON)
    }
}

impl Load {
    /// Lets all clients connect, then ask at once.
    pub(crate) fn put_on(self, socket: &Path, paths: &[StorePath]) -> Result<Answered> {
        let count = self.clients as usize;
        let clients: Vec<Client> = (0..count)
            .map(|_| Client::connect(socket))
            .collect::<Result<_>>()?;
        let ready = Barrier::new(count + 1);
        let (begun, results) = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients)
                .zip(clients)
                .map(|(number, client)| {
                    let ready = &ready;
                    scope.spawn(move || {
                        ready.wait();
                        self.ask(number, client, paths)
                    })
                })
                .collect();
            ready.wait();
            let begun = Instant::now();
            let results: Vec<_> = threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(anyhow!("a client panicked")))
                })
                .collect();
            (begun, results)
        });
        let wall = begun.elapsed();
        let latencies: Result<Vec<Vec<Duration>>> = results.into_iter().collect();
        let mut latencies = latencies?.concat();
        latencies.sort_unstable();
        Ok(Answered { wall, latencies })
    }

    fn ask(self, number: u32, mut client: Client, paths: &[StorePath]) -> Result<Vec<Duration>> {
        let interval = match self.pace {
            Pace::Closed => Duration::ZERO,
            Pace::Open(rate) => Duration::from_secs_f64(f64::from(self.clients) / rate),
        };
        let mut due = Instant::now() + interval * number / self.clients;
        let mut latencies = Vec::with_capacity(self.questions as usize);
        for question in 0..self.questions {
            if interval.is_zero() {
                due = Instant::now();
            } else {
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let at = (number + question * 31) as usize % paths.len();
            client.ask(&paths[at])?;
            latencies.push(due.elapsed());
            due += interval;
        }
        Ok(latencies)
    }
}

struct Client {
    input: WireReader<BufReader<UnixStream>>,
    out: WireWriter<BufWriter<UnixStream>>,
    dialect: Dialect,
}

impl Client {
    fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        let mut input = WireReader::new(BufReader::new(stream.try_clone()?), Limits::for_replies());
        let mut out = WireWriter::new(BufWriter::new(stream));
        let session = connect(&mut input, &mut out, &ClientOffer::default(), |_| {})?;
        Ok(Self {
            input,
            out,
            dialect: session.dialect(Default::default()),
        })
    }

    fn ask(&mut self, path: &StorePath) -> Result<()> {
        let request = Request::QueryPathInfo(path.clone());
        request.write(&mut self.out, &self.dialect)?;
        self.out.flush()?;
        let answer: Option<UnkeyedValidPathInfo> =
            read_reply(&mut self.input, request.operation(), &self.dialect, |_| {})?
                .map_err(|report| anyhow!("{}", report.message.escape_ascii()))?;
        ensure!(answer.is_some(), "{path} is not valid");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_answers() {
        let answered = Answered {
            wall: Duration::from_secs(2),
            latencies: (1..=100).map(Duration::from_millis).collect(),
        };
        assert_eq!(answered.quantile(0.5), Duration::from_millis(50));
        assert_eq!(answered.quantile(0.99), Duration::from_millis(99));
        assert_eq!(answered.quantile(1.0), Duration::from_millis(100));
        assert!((answered.rate() - 50.0).abs() < 1e-9);
    }
}
