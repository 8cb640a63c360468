// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small store, served, and clients of it.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use superpose_daemon::{Result, ServeOptions, Server, Socket, StopHandle, UserList};
use superpose_overlay::store_path::{
    ContentMethod, Defaults, HashAlgorithm, Name, Signature, StorePath, StoreReference,
};
use superpose_overlay::{AddOptions, Layout, OpenOptions, Source, Store};
use superpose_worker_protocol::{
    Body, ClientOffer, Dialect, Limits, RemoteError, Request, Trust, WireReader, WireWriter, connect,
    read_reply,
};

/// Nothing in these tests takes longer.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A served store. Stopped when dropped.
pub(crate) struct Served {
    pub(crate) top: tempfile::TempDir,
    pub(crate) server: Arc<Server>,
    pub(crate) paths: Vec<StorePath>,
    stop: StopHandle,
    running: Option<JoinHandle<Result<()>>>,
}

impl Served {
    /// With short limits, so that what is waited for comes.
    pub(crate) fn start() -> Self {
        Self::start_with(short())
    }

    pub(crate) fn start_with(options: ServeOptions) -> Self {
        Self::open_with(OpenOptions::default(), options)
    }

    pub(crate) fn open_with(open: OpenOptions, options: ServeOptions) -> Self {
        let top = tempfile::tempdir().unwrap();
        let mut store = Store::open(layout(top.path()), OpenOptions::default()).unwrap();
        let paths = ["one", "two", "three"].map(|name| {
            let options = AddOptions::source(Name::new(name.as_bytes()).unwrap());
            store.add(Source::Bytes(name.as_bytes()), &options).unwrap().path
        });
        drop(store);
        let server = Server::new(layout(top.path()), open, options).unwrap();
        let server = Arc::new(server);
        let sockets = [Socket::bind(&socket(top.path())).unwrap()];
        let stop = server.stop_handle();
        let running = {
            let server = Arc::clone(&server);
            thread::spawn(move || server.run(&sockets))
        };
        Self {
            top,
            server,
            paths: paths.into(),
            stop,
            running: Some(running),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.top.path())
    }

    /// A connection of which nothing was said yet.
    pub(crate) fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream
    }

    pub(crate) fn client(&self) -> Client {
        Client::greet(self.stream()).unwrap()
    }

    /// Adds a derivation whose output follows from its content: only it itself says how that is called.
    pub(crate) fn add_derivation(&self) -> StorePath {
        self.add_derivation_of(0)
    }

    /// The same, with a script of so many bytes.
    pub(crate) fn add_derivation_of(&self, length: usize) -> StorePath {
        let before = r#"Derive([("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",[],[("name","floating"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("script",""#;
        let text = format!("{before}{}\")])", "x".repeat(length));
        let options = AddOptions::source(Name::new(b"floating.drv").unwrap())
            .with_method(ContentMethod::Text, HashAlgorithm::Sha256);
        let added = self.other_process().add(Source::Bytes(text.as_bytes()), &options);
        added.unwrap().path
    }

    /// Adds so many signatures to a path, of so many bytes or little more.
    pub(crate) fn sign(&self, path: &StorePath, count: usize, length: usize) {
        let signatures = signatures(0..count, length);
        let mut store = self.other_process();
        store.add_signatures(path, &signatures, count).unwrap();
    }

    /// Makes the row of a path one that cannot be read.
    pub(crate) fn damage(&self, path: &StorePath) {
        let database = self.top.path().join("store/nix/var/nix/db/db.sqlite");
        let changed = rusqlite::Connection::open(database).unwrap().execute(
            "UPDATE ValidPaths SET hash = 'none' WHERE path = ?1",
            [format!("/nix/store/{path}")],
        );
        assert_eq!(changed.unwrap(), 1);
    }

    /// What a collector holds while it collects. Until this is dropped every temporary root waits for its end.
    pub(crate) fn collector_lock(&self) -> File {
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.top.path().join("store/nix/var/nix/gc.lock"))
            .unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        lock
    }

    /// Where the files of an object are.
    pub(crate) fn object(&self, path: &StorePath) -> PathBuf {
        self.top.path().join("store/nix/store").join(path.base_name())
    }

    /// The store, opened by somebody else who waits for nobody.
    pub(crate) fn other_process(&self) -> Store {
        let mut options = OpenOptions::default();
        options.wait_limit = Some(Duration::ZERO);
        Store::open(layout(self.top.path()), options).unwrap()
    }

    pub(crate) fn begin_to_stop(&self) {
        self.stop.stop();
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end.
    pub(crate) fn stop(&mut self) {
        self.stop.stop();
        if let Some(running) = self.running.take() {
            running.join().unwrap().unwrap();
        }
    }

    pub(crate) fn wait_for_connections(&self, count: usize) {
        eventually(|| self.server.connections() == count);
    }

    /// It serves somebody who does nothing wrong.
    pub(crate) fn expect_alive(&self) {
        let mut client = self.client();
        let valid = client.ask::<bool>(Request::IsValidPath(self.paths[0].clone()));
        assert_eq!(valid, Ok(true));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

pub(crate) fn short() -> ServeOptions {
    let mut options = ServeOptions::default();
    options.greeting_limit = Duration::from_millis(300);
    options.request_limit = Duration::from_millis(300);
    options.stall_limit = Duration::from_millis(600);
    options.grace = Duration::from_secs(5);
    options
}

/// With limits that are never reached.
pub(crate) fn patient() -> ServeOptions {
    ServeOptions::default()
}

/// Nobody is trusted.
pub(crate) fn trusting_nobody() -> ServeOptions {
    let mut options = short();
    options.trusted_users = UserList::default();
    options
}

pub(crate) fn eventually(is_true: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < LONG, "what was waited for did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Signatures with these numbers, each of so many bytes or little more.
pub(crate) fn signatures(numbers: Range<usize>, length: usize) -> Vec<Signature> {
    let value = "A".repeat(length.next_multiple_of(4));
    numbers
        .map(|number| Signature::parse(format!("key-{number:04}:{value}").as_bytes()).unwrap())
        .collect()
}

pub(crate) fn layout(top: &Path) -> Layout {
    let reference = StoreReference::local(top.join("store"));
    Layout::resolve(&reference, &Defaults::default()).unwrap().0
}

fn socket(top: &Path) -> PathBuf {
    top.join("run/socket")
}

/// A client as any.
pub(crate) struct Client {
    pub(crate) input: WireReader<BufReader<UnixStream>>,
    pub(crate) out: WireWriter<BufWriter<UnixStream>>,
    pub(crate) dialect: Dialect,
    pub(crate) trust: Trust,
}

impl Client {
    pub(crate) fn greet(stream: UnixStream) -> superpose_worker_protocol::Result<Self> {
        let mut input = WireReader::new(BufReader::new(stream.try_clone().unwrap()), Limits::for_replies());
        let mut out = WireWriter::new(BufWriter::new(stream));
        let session = connect(&mut input, &mut out, &ClientOffer::default(), |_| {})?;
        Ok(Self {
            input,
            out,
            trust: session.trust,
            dialect: session.dialect(Default::default()),
        })
    }

    pub(crate) fn send(&mut self, request: &Request) {
        request.write(&mut self.out, &self.dialect).unwrap();
    }

    pub(crate) fn ask<T: Body>(&mut self, request: Request) -> Result<T, RemoteError> {
        self.send(&request);
        self.out.flush().unwrap();
        read_reply(&mut self.input, request.operation(), &self.dialect, |_| {}).unwrap()
    }

    pub(crate) fn fail<T: Body + std::fmt::Debug>(&mut self, request: Request) -> String {
        let report = self.ask::<T>(request).unwrap_err();
        String::from_utf8(report.message).unwrap()
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        use std::io::Read;
        matches!(self.input.get_mut().read(&mut [0]), Ok(0))
    }
}
