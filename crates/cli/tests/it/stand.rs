// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scratch directory with a store in it, and runs of the program there.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests: what fails here fails the test"
)]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A scratch directory, gone when this is dropped.
pub(crate) struct Stand {
    top: tempfile::TempDir,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Stand {
    pub(crate) fn new() -> Self {
        Stand {
            top: tempfile::tempdir().unwrap(),
        }
    }

    /// A path below the scratch directory.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.top.path().join(below)
    }

    /// Writes a file below the scratch directory.
    pub(crate) fn file(&self, below: &str, contents: &str) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// The program, with `store` as its store and nothing of the tester's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_superpose"));
        command
            .env_clear()
            .current_dir(self.top.path())
            .env("SUPERPOSE_STORE", self.path("store"));
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        ended(
            self.command()
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
        )
    }

    /// A run that reads `input`.
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Ended {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end before it has read everything.
        stdin.write_all(input).ok();
        drop(stdin);
        ended(child.wait_with_output().unwrap())
    }

    /// What a run prints that has to succeed without a word on standard error.
    pub(crate) fn text<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        self.run(arguments).fine()
    }

    /// The same, as lines.
    pub(crate) fn lines<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Vec<String> {
        self.text(arguments).lines().map(str::to_owned).collect()
    }

    /// The same, as JSON.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        serde_json::from_str(&self.text(arguments)).unwrap()
    }

    /// Adds a file to the store, and gives its store path.
    pub(crate) fn add(&self, name: &str, contents: &str, references: &[&str]) -> String {
        let mut arguments = vec![
            "add".to_owned(),
            self.file(name, contents).to_str().unwrap().to_owned(),
        ];
        for reference in references {
            arguments.extend(["--reference".to_owned(), (*reference).to_owned()]);
        }
        self.text(&arguments).trim_end().to_owned()
    }

    /// Status, standard output and standard error as one text, without what differs from run to run.
    pub(crate) fn transcript<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let ended = self.run(arguments);
        let stdout = String::from_utf8(ended.stdout).unwrap();
        let text = format!("{}{stdout}status {}\n", ended.stderr, ended.status);
        text.replace(self.top.path().to_str().unwrap(), "$TOP")
    }
}

impl Ended {
    /// What was printed, if all went well.
    pub(crate) fn fine(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""));
        String::from_utf8(self.stdout).unwrap()
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        status: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Every file below a directory with its contents: two equal trees give equal lists.
pub(crate) fn tree(top: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        let contents = if kind.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            Vec::new()
        } else if kind.is_symlink() {
            std::fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            std::fs::read(&path).unwrap()
        };
        found.push((path.strip_prefix(top).unwrap().to_owned(), contents));
    }
    found.sort();
    found
}
