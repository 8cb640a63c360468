// SPDX-License-Identifier: MIT OR Apache-2.0
//! Served stores: the stock client through our server and through the stock daemon, each client with its own server, and many
//! clients at once.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use superpose_store_path::StoreDir;

use crate::Options;
use crate::cases::{Lower, SERVE_CLOSURE, SERVE_COPY, SERVE_LOAD, SERVE_OWN, SERVE_START};
use crate::load::{Answered, Load, Pace};
use crate::measure::{self, Program};
use crate::runs::{Bench, Compared, RUNS, SHORT_RUNS};
use crate::serving_copy;

/// Clients that ask at once.
pub(crate) const CLIENTS: u32 = 256;

/// Which part of the rate that is reached is asked for when answers are timed: the clients, each a thread that sleeps and
/// wakes, share the processors with the server.
const SHARE: f64 = 0.1;

/// For how long, in seconds.
const TIMED: f64 = 10.0;

/// What the servers did.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// A stock client that asks for a closure: through the stock daemon, and through ours.
    pub(crate) closure: Option<Compared>,
    /// Each client of its own server: a closure.
    pub(crate) own: Option<Compared>,
    /// A new process that asks one question, each of its own server.
    pub(crate) start: Option<Compared>,
    /// Each client to its own server: copies of a closure.
    pub(crate) copy: Option<Compared>,
    pub(crate) load: Option<Loaded>,
}

/// How our server bore many clients.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) single: Answered,
    pub(crate) closed: Answered,
    pub(crate) open: Answered,
    /// The rate that was asked for, in questions a second.
    pub(crate) asked: f64,
    /// The most memory that the server held, in bytes.
    pub(crate) memory: u64,
}

/// A server that is ended when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has no state that a sudden end could hurt, and nobody waits for its answer.
        self.child.kill().ok();
        self.child.wait().ok();
        // The next one listens at the same place.
        fs::remove_file(&self.socket).ok();
    }
}

impl Served {
    pub(crate) fn measure(bench: &Bench, options: &Options) -> Result<Self> {
        let mut served = Self::default();
        let closure = options.sizes().closure();
        let recursive = |name, clients| Question {
            name,
            clients,
            closure: Some(closure),
            runs: RUNS,
        };
        if options.wants(SERVE_CLOSURE) {
            served.closure = Some(recursive(SERVE_CLOSURE, Clients::Stock).ask(bench)?);
        }
        if options.wants(SERVE_OWN) {
            served.own = Some(recursive(SERVE_OWN, Clients::Own).ask(bench)?);
        }
        if options.wants(SERVE_START) {
            let question = Question {
                name: SERVE_START,
                clients: Clients::Own,
                closure: None,
                runs: SHORT_RUNS,
            };
            served.start = Some(question.ask(bench)?);
        }
        if options.wants(SERVE_COPY) {
            served.copy = Some(serving_copy::measure(bench, options.sizes())?);
        }
        if options.wants(SERVE_LOAD) {
            served.load = Some(load(bench, options)?);
        }
        Ok(served)
    }
}

/// Who asks the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// The stock client, both of them.
    Stock,
    /// The client that goes with each.
    Own,
}

/// What both servers are asked.
#[derive(Debug)]
struct Question {
    name: &'static str,
    clients: Clients,
    /// The closure of so many objects; otherwise one path.
    closure: Option<u32>,
    runs: usize,
}

impl Question {
    /// The arguments of a client, behind the store.
    fn words(&self, bench: &Bench) -> Vec<OsString> {
        let store = bench.stage.store(Lower::Large);
        let path = match self.closure {
            Some(size) => store.root_of(size),
            None => store.library(),
        };
        let mut words = vec![OsString::from("path-info")];
        words.extend(self.closure.map(|_| "--recursive".into()));
        words.push(StoreDir::default().join(&path).into());
        words
    }

    fn ask(&self, bench: &Bench) -> Result<Compared> {
        let store = bench.stage.store(Lower::Large);
        let words = self.words(bench);
        let (ours, theirs) = (start_ours(bench, &store.root)?, start_theirs(bench, &store.root)?);
        let client = |server: &Server, program: Program| {
            let url = format!("unix://{}?root={}", server.socket.display(), store.root.display());
            program.with(&["--store".into(), url.into()]).with(&words)
        };
        let stock = bench.stock.program("nix");
        let own = match self.clients {
            Clients::Stock => stock.clone(),
            Clients::Own => bench.superpose.clone(),
        };
        let clients = [
            ("stock", client(&theirs, stock)),
            ("superpose", client(&ours, own)),
        ];
        let output = |name: &str| bench.stage.work.join(format!("{name}.served.out"));
        let mut compared = Compared::default();
        // The first round does not count.
        for round in 0..=bench.runs.unwrap_or(self.runs) {
            for ((name, client), samples) in clients.iter().zip([&mut compared.base, &mut compared.ours]) {
                let sample = measure::run(client, &output(name))?;
                if round > 0 {
                    eprintln!("{:<14} {name:<10} {:>10.1?}", self.name, sample.wall);
                    samples.0.push(sample);
                }
            }
        }
        let mut said = Vec::new();
        for (name, _) in &clients {
            let text = fs::read_to_string(output(name))?;
            // Paths that do not need each other come in whichever order.
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            said.push(lines);
        }
        ensure!(said[0] == said[1], "the servers do not agree");
        let expected = self.closure.unwrap_or(1) as usize;
        ensure!(said[0].len() == expected, "{} paths of {expected}", said[0].len());
        Ok(compared)
    }
}

fn load(bench: &Bench, options: &Options) -> Result<Loaded> {
    let questions = if options.quick { 200 } else { 10_000 };
    let store = bench.stage.store(Lower::Large);
    let paths = store.first(options.sizes().closure());
    let server = start_ours(bench, &store.root)?;
    let put_on = |clients, questions, pace| {
        let load = Load {
            clients,
            questions,
            pace,
        };
        load.put_on(&server.socket, &paths)
    };
    let single = put_on(1, questions, Pace::Closed)?;
    let closed = put_on(CLIENTS, questions, Pace::Closed)?;
    let asked = closed.rate() * SHARE;
    // Truncated: a number of questions.
    let each = (asked * TIMED / f64::from(CLIENTS)) as u32;
    let open = put_on(CLIENTS, each.clamp(10, questions), Pace::Open(asked))?;
    let memory = peak(&server.child)?;
    Ok(Loaded {
        single,
        closed,
        open,
        asked,
        memory,
    })
}

/// Our server of the store below a directory, once it listens.
pub(crate) fn start_ours(bench: &Bench, root: &Path) -> Result<Server> {
    let socket = bench.stage.memory.join("ours.socket");
    let program = bench.superpose.with(&[
        "--quiet".into(),
        "--store".into(),
        root.into(),
        "serve".into(),
        "--max-connections".into(),
        (CLIENTS + 8).to_string().into(),
        "--socket".into(),
        socket.clone().into(),
    ]);
    let child = command(&program)
        .stdin(Stdio::null())
        .spawn()
        .context("starting a server")?;
    let server = Server { child, socket };
    let begun = Instant::now();
    while UnixStream::connect(&server.socket).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            bail!("superpose does not serve at {}", server.socket.display());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}

/// The daemon of stock Nix, with a socket that is handed over as service managers do.
pub(crate) fn start_theirs(bench: &Bench, root: &Path) -> Result<Server> {
    let socket = bench.stage.memory.join("theirs.socket");
    let listener = UnixListener::bind(&socket)?;
    let url = format!("local?root={}", root.display());
    let program = bench
        .stock
        .program("nix-daemon")
        .with(&["--store".into(), url.into()]);
    let mut shell = Program::new(Path::new("/bin/sh"));
    shell.env = program.env.clone();
    let hand_over =
        r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=nix-daemon.socket; exec "$@" 3<&0 </dev/null"#;
    shell.args = ["-c", hand_over, "sh"].map(OsString::from).to_vec();
    shell.args.push(program.path.into());
    shell.args.extend(program.args);
    let child = command(&shell)
        .stdin(OwnedFd::from(listener))
        .spawn()
        .context("starting the stock daemon")?;
    Ok(Server { child, socket })
}

fn command(program: &Program) -> Command {
    let mut command = Command::new(&program.path);
    command
        .args(&program.args)
        .envs(program.env.clone())
        .env_remove("NIX_REMOTE")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The most memory that a process held, in bytes.
fn peak(child: &Child) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("VmHWM in kB")?.parse()?;
    Ok(kibibytes << 10)
}
