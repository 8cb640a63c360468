// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that shares a directory with one guest over virtiofs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// Where packages put it: beside the emulator, or in a package of its own.
const PLACES: [&str; 3] = [
    "/usr/libexec/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/lib/virtiofsd",
];

/// How long it may take to listen.
const START: Duration = Duration::from_secs(30);

/// Finds the program, or says why there is no use of it.
pub(crate) fn find() -> Result<PathBuf, String> {
    let program = workspace::program("virtiofsd")
        .or_else(|| PLACES.iter().map(PathBuf::from).find(|place| place.is_file()));
    let Some(program) = program else {
        return Err("virtiofsd is not installed (package qemu-system-common or virtiofsd)".to_owned());
    };
    match fs::metadata("/proc/self") {
        Ok(own) if own.uid() == 0 => Ok(program),
        _ => Err("virtiofsd locks itself into the directory, for which it has to be root".to_owned()),
    }
}

/// It at work for one guest; ended when this is dropped.
pub(crate) struct Virtiofsd {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Virtiofsd {
    /// Starts it for a directory, with a socket that is not there yet.
    pub(crate) fn start(program: &Path, dir: &Path, socket: &Path) -> Result<Self> {
        if socket.exists() {
            fs::remove_file(socket).with_context(|| socket.display().to_string())?;
        }
        let mut place = std::ffi::OsString::from("--socket-path=");
        place.push(socket);
        let mut source = std::ffi::OsString::from("source=");
        source.push(dir);
        let child = Command::new(program)
            .arg(place)
            .arg("-o")
            .arg(source)
            .args(["-o", "sandbox=chroot"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut started = Self {
            child,
            socket: socket.to_owned(),
        };
        let begun = Instant::now();
        while !socket.exists() {
            if let Some(status) = started.child.try_wait()? {
                bail!("{} ended with {status}", program.display());
            }
            ensure!(begun.elapsed() < START, "{} does not listen", program.display());
            sleep(Duration::from_millis(20));
        }
        Ok(started)
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        // It ends with its guest.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_file(&self.socket).ok();
    }
}
