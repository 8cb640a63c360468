// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose serve` as a process: what it holds, how it ends, how it is started.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use superpose_tests::{Invocation, Layers, Running, Suite, program_path, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        a_signal_ends_it_and_takes_the_socket_away,
        an_idle_connection_costs_little_and_leaves_nothing,
        hostile_clients_leave_nothing,
        a_collection_beside_idle_clients_waits_for_nobody,
        sockets_are_taken_over_from_a_service_manager,
        what_cannot_be_served_is_said,
        a_store_that_is_only_read_has_nobody_build_into_it,
        units_name_what_there_is
    );
}

/// How many clients come and go, or stay.
const MANY: usize = 100;

/// What one idle connection may cost, in bytes.
const IDLE_COST: usize = 256 << 10;

/// What a client of protocol version 1.37 says before its first request.
const GREETING: [u64; 4] = [0x6e69_7863, 0x125, 0, 0];

/// The shell hands its standard input over as service managers do.
const HAND_OVER: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null"#;

/// A served store.
struct Serving {
    layers: Layers,
    running: Running,
    socket: PathBuf,
    path: String,
}

impl Serving {
    fn start(options: &[&str]) -> Result<Self> {
        let layers = Layers::new()?;
        let path = layers.add_below("object", "object\n", &[])?;
        let socket = layers.join("socket");
        let serve = layers
            .below()?
            .args(["serve", "--socket"])
            .arg(&socket)
            .args(options);
        let mut running = serve.start()?;
        running.wait_until("serving", || Ok(UnixStream::connect(&socket).is_ok()))?;
        Ok(Self {
            layers,
            running,
            socket,
            path,
        })
    }

    /// A client that was admitted, and has asked one question.
    fn client(&self) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(&words(&GREETING))?;
        // Magic and version; the release, of up to 24 bytes with its length; trust; the end.
        let mut head = [0; 24];
        stream.read_exact(&mut head)?;
        let release = u64::from_le_bytes(head[16..].try_into()?);
        let mut rest = vec![0; usize::try_from(release)?.next_multiple_of(8) + 16];
        stream.read_exact(&mut rest)?;
        ensure!(is_valid(&mut stream, &self.path)?, "{} is not valid", self.path);
        Ok(stream)
    }

    /// How many descriptors it has open, and how many threads.
    fn counts(&self) -> Result<(usize, usize)> {
        let count = |what: &str| -> Result<usize> {
            Ok(fs::read_dir(format!("/proc/{}/{what}", self.pid()))?.count())
        };
        Ok((count("fd")?, count("task")?))
    }

    fn resident(&self) -> Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: usize = kibibytes.context("RssAnon in kB")?.parse()?;
        Ok(kibibytes << 10)
    }

    fn pid(&self) -> i32 {
        self.running.pid().as_raw_nonzero().get()
    }

    /// Waits until it has no more open than then.
    fn wait_for(&mut self, counts: (usize, usize)) -> Result<()> {
        let directory = PathBuf::from(format!("/proc/{}", self.pid()));
        self.running
            .wait_until("everything that clients needed was given back", || {
                let fds = fs::read_dir(directory.join("fd"))?.count();
                let tasks = fs::read_dir(directory.join("task"))?.count();
                Ok(fds <= counts.0 && tasks <= counts.1)
            })
    }

    fn stop(self) -> Result<()> {
        self.running.signal(Signal::TERM)?;
        let finished = self.running.finish()?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure!(!self.socket.exists(), "the socket is still there");
        Ok(())
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn is_valid(stream: &mut UnixStream, path: &str) -> Result<bool> {
    let mut request = words(&[1, path.len() as u64]);
    request.extend(path.as_bytes());
    request.resize(request.len().next_multiple_of(8), 0);
    stream.write_all(&request)?;
    let mut reply = [0; 16];
    stream.read_exact(&mut reply)?;
    Ok(reply == *words(&[0x616c_7473, 1]))
}

fn a_signal_ends_it_and_takes_the_socket_away() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Serving::start(&[])?;
        let mut idle = serving.client()?;
        serving.running.signal(signal)?;
        let finished = serving.running.finish()?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure!(!serving.socket.exists(), "the socket is still there");
        ensure!(idle.read(&mut [0])? == 0, "an idle connection was not closed");
    }
    Ok(())
}

fn an_idle_connection_costs_little_and_leaves_nothing() -> Result<()> {
    let mut serving = Serving::start(&[])?;
    drop(serving.client()?);
    // Until the opened store is closed again.
    let mut before = serving.counts()?;
    serving.running.wait_until("the store is closed", || Ok(true))?;
    let closed = |serving: &Serving| -> Result<bool> {
        let fds = fs::read_dir(format!("/proc/{}/fd", serving.pid()))?;
        let mut targets = fds.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Ok(!targets.any(|target| target.ends_with("db.sqlite")))
    };
    while !closed(&serving)? {
        std::thread::sleep(Duration::from_millis(50));
        before = serving.counts()?;
    }
    before = before.min(serving.counts()?);
    let clients: Vec<UnixStream> = (0..MANY).map(|_| serving.client()).collect::<Result<_>>()?;
    while !closed(&serving)? {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (fds, tasks) = serving.counts()?;
    ensure!(
        fds <= before.0 + MANY,
        "{fds} descriptors for {MANY} idle clients, {} before",
        before.0
    );
    ensure!(tasks <= before.1 + MANY, "{tasks} threads");
    // All of it, not only what came with the clients.
    let resident = serving.resident()?;
    ensure!(
        resident <= (16 << 20) + MANY * IDLE_COST,
        "{resident} bytes for {MANY} idle clients"
    );
    drop(clients);
    serving.wait_for(before)?;
    serving.stop()
}

fn hostile_clients_leave_nothing() -> Result<()> {
    let mut serving = Serving::start(&[])?;
    let mut witness = serving.client()?;
    let before = serving.counts()?;
    let noise: Vec<u8> = (0..64_u32 << 10)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for round in 0..MANY {
        let mut stream = match round % 3 {
            0 => UnixStream::connect(&serving.socket)?,
            _ => serving.client()?,
        };
        // The end of a connection that was given up is no fault of the trial's.
        match round % 4 {
            0 => stream.write_all(&noise[round..]).unwrap_or_default(),
            1 => stream.write_all(&words(&[26, u64::MAX])).unwrap_or_default(),
            2 => stream.write_all(&words(&[31, 1 << 40])[..12]).unwrap_or_default(),
            _ => {}
        }
        drop(stream);
        ensure!(is_valid(&mut witness, &serving.path)?, "round {round}");
    }
    serving.wait_for(before)?;
    serving.stop()
}

fn a_collection_beside_idle_clients_waits_for_nobody() -> Result<()> {
    let serving = Serving::start(&[])?;
    let mut clients = [serving.client()?, serving.client()?];
    serving.layers.below()?.args(["--wait", "0", "gc"]).succeed()?;
    ensure!(!is_valid(&mut clients[0], &serving.path)?, "it was not collected");
    serving.stop()
}

fn sockets_are_taken_over_from_a_service_manager() -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let socket = layers.join("socket");
    let listener = UnixListener::bind(&socket)?;
    let serving = Invocation::new("sh")
        .args(["-c", HAND_OVER, "sh"])
        .arg(program_path()?);
    let serving = serving.arg("--store").arg(layers.lower()).arg("serve");
    // Clients wait in the queue until it serves.
    let running = serving.start_with_input(OwnedFd::from(listener).into())?;
    let serving = Serving {
        layers,
        running,
        socket: socket.clone(),
        path,
    };
    drop(serving.client()?);
    serving.running.signal(Signal::TERM)?;
    let finished = serving.running.finish()?;
    ensure!(finished.code() == Some(0), "{finished}");
    // It is the service manager's.
    ensure!(socket.exists(), "a socket that was handed over was removed");
    Ok(())
}

fn what_cannot_be_served_is_said() -> Result<()> {
    let serving = Serving::start(&[])?;
    let serve = |socket: &Path| {
        Ok::<_, anyhow::Error>(serving.layers.below()?.args(["serve", "--socket"]).arg(socket))
    };
    let taken = serve(&serving.socket)?.exit_with(1)?;
    ensure!(taken.errors().contains("a server that listens there"), "{taken}");
    // The first one is not disturbed.
    drop(serving.client()?);
    let none = serving.layers.below()?.arg("serve").exit_with(2)?;
    ensure!(none.errors().contains("--socket"), "{none}");
    for bad in ["0", "501", "many"] {
        let refused = serve(Path::new("socket"))?.args(["--max-connections", bad]);
        refused.exit_with(2)?;
    }
    let nothing = serving.layers.join("nothing");
    let missing = superpose()?
        .arg("--store")
        .arg(&nothing)
        .args(["serve", "--read-only", "--socket"]);
    let missing = missing.arg(serving.layers.join("other")).exit_with(1)?;
    ensure!(missing.errors().contains("database"), "{missing}");
    ensure!(!nothing.exists(), "a server that only asks has made a store");
    serving.stop()
}

/// The option would have no effect, and who gives it counts on one.
fn a_store_that_is_only_read_has_nobody_build_into_it() -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("object", "object\n", &[])?;
    let socket = layers.join("socket");
    let url = format!("{}?read-only=true", layers.lower().display());
    for (options, named) in [
        (&["--delegate", "nix-daemon"][..], "read-only=true"),
        (&["--delegate", "nix-daemon", "--read-only"], "--read-only"),
    ] {
        let serve = superpose()?.arg("--store").arg(&url).args(["serve", "--socket"]);
        let refused = serve.arg(&socket).args(options).exit_with(2)?;
        for part in ["--delegate", named] {
            ensure!(refused.errors().contains(part), "{refused}");
        }
        ensure!(!socket.exists(), "a socket was made");
    }
    Ok(())
}

/// The units start the program with options that it has, and systemd understands them where it is there.
fn units_name_what_there_is() -> Result<()> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd");
    let service = fs::read_to_string(units.join("superpose.service"))?;
    let line = service
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/superpose "));
    let words: Vec<&str> = line.context("a line that starts it")?.split(' ').collect();
    // Understood, but for the socket that nobody handed over.
    let layers = Layers::new()?;
    let started = layers.below()?.args(&words).exit_with(2)?;
    ensure!(started.errors().contains("no socket"), "{started}");
    let help = superpose()?.args(["serve", "--help"]).succeed()?;
    for option in service
        .split([' ', '`', '\n'])
        .filter(|word| word.starts_with("--"))
    {
        ensure!(help.text()?.contains(option), "{option}");
    }
    for unit in ["superpose.socket", "superpose.service"] {
        let text = fs::read_to_string(units.join(unit))?;
        ensure!(
            text.starts_with("# SPDX-License-Identifier: MIT OR Apache-2.0\n"),
            "{unit}"
        );
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let is_section = line.starts_with('[') && line.ends_with(']');
            ensure!(is_section || line.contains('='), "{unit}: {line}");
        }
    }
    let files = ["superpose.service", "superpose.socket"].map(|unit| layers.join(unit));
    // The program is not installed here.
    let here = program_path()?.display().to_string();
    fs::write(
        &files[0],
        service.replace("/usr/bin/superpose ", &format!("{here} ")),
    )?;
    fs::copy(units.join("superpose.socket"), &files[1])?;
    if Path::new("/usr/bin/systemd-analyze").exists() {
        let verified = Invocation::new("systemd-analyze")
            .arg("verify")
            .args(files)
            .succeed()?;
        ensure!(!verified.errors().contains("Unknown"), "{verified}");
    }
    Ok(())
}
