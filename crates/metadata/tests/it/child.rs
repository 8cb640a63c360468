// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work done in a process of its own: as another user, or as a peer that writes while we read.
//!
//! The child is this program, asked to run the one test below, with its task in a variable of the environment.
//! Locks of SQLite belong to processes, so a peer in the same one would not do.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use superpose_metadata::{Database, MetadataSource, OpenDatabase};
use superpose_store_path::StoreDir;

use crate::fixture::{chain, info, path, read_sample};

const TASK: &str = "SUPERPOSE_TEST_CHILD";

/// Whoever owns no files.
const NOBODY: u32 = 65534;

#[test]
fn entry() {
    #[allow(clippy::disallowed_methods, reason = "tests may read the environment")]
    let Some(task) = std::env::var_os(TASK) else {
        return;
    };
    let task = task.into_string().unwrap();
    let (task, dir) = task.split_once(':').unwrap();
    match task {
        "read" => answer(&read(Path::new(dir))),
        "write" => write(Path::new(dir)),
        "write-alone" => write_alone(Path::new(dir)),
        other => panic!("no task {other}"),
    }
}

/// Says something to the parent. The test harness keeps standard output to itself.
fn answer(text: &str) {
    std::io::stderr()
        .write_all(format!("{text}\n").as_bytes())
        .unwrap();
}

/// Opens a database and tells what it holds.
fn read(dir: &Path) -> String {
    let database = match Database::open(&OpenDatabase::read_only(dir, StoreDir::default())) {
        Ok(database) => database,
        Err(error) => return format!("error {}", chain(&error)),
    };
    let in_log = database.are_valid(&[path("in-log")]).unwrap()[0];
    format!("{:?} {} {in_log}", database.access(), database.count().unwrap())
}

/// Registers one path for each line of standard input, whose name it is, and says when it is done.
fn write(dir: &Path) {
    let mut database = Database::open(&OpenDatabase::read_write(dir, StoreDir::default())).unwrap();
    answer("open");
    for name in std::io::stdin().lines() {
        database
            .register(&[info(&name.unwrap(), &[])], &mut read_sample)
            .unwrap();
        answer("done");
    }
}

/// Keeps a database to itself, something in its log, until standard input ends.
fn write_alone(dir: &Path) {
    let connection = rusqlite::Connection::open(dir.join("db.sqlite")).unwrap();
    connection
        .execute_batch(
            "PRAGMA locking_mode = exclusive; INSERT INTO SchemaMigrations VALUES ('of somebody else')",
        )
        .unwrap();
    answer("open");
    assert_eq!(std::io::stdin().lines().count(), 0);
}

fn command(program: &Path, task: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "child::entry", "--nocapture"]);
    command.env(TASK, format!("{task}:{}", dir.display()));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Reads a database in a process without privileges, and returns what it says. As root that is another user;
/// else it is ourselves, which is just as good where permissions are taken away.
pub(crate) fn read_without_privileges(dir: &Path) -> String {
    // This name leads to the program even where its directory is closed to the user.
    let mut command = command(Path::new("/proc/self/exe"), "read", dir);
    command.current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    String::from_utf8(output.stderr).unwrap().trim_end().to_owned()
}

/// A process that has a database open for writing.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStderr>,
}

impl Peer {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with("write", dir)
    }

    /// Starts one that lets nobody else use the database.
    pub(crate) fn start_alone(dir: &Path) -> Self {
        Self::start_with("write-alone", dir)
    }

    fn start_with(task: &str, dir: &Path) -> Self {
        let mut child = command(&std::env::current_exe().unwrap(), task, dir)
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stderr.take().unwrap());
        let mut peer = Self { child, input, output };
        peer.expect("open");
        peer
    }

    fn expect(&mut self, expected: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), expected);
    }

    pub(crate) fn register(&mut self, name: &str) {
        writeln!(self.input.as_mut().unwrap(), "{name}").unwrap();
        self.expect("done");
    }

    /// Ends the process in the middle, so that it cannot put anything in order.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn finish(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}
