// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lower store in a directory of the host, which several machines see over 9p and cannot write; what is known of its
//! objects a `superpose serve --read-only` on the host tells them. Then it grows, while they are off.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::integration::kernel::Release;
use crate::integration::lower_store::LowerStore;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::sharing::{Company, Phase};
use crate::test::{Skip, Tally};
use crate::workspace;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "shared-directory",
    about: "the same over 9p, with a host's directory, and its metadata from a `superpose serve --read-only` there",
    kernels: &Release::ALL,
    is_quick: false,
    is_alone: false,
    run,
};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let dir = stage
        .room
        .run_dir(&format!("{}-{}", stage.name, stage.kernel.release.name()))?;
    let seed = workspace::seed();
    let store = LowerStore::new(stage.room, &dir, &seed)?;
    let company = Company::new(stage, stage.name, &dir, &seed)?;
    for phase in [Phase::First, Phase::Again] {
        if matches!(phase, Phase::Again) {
            store.grow()?;
        }
        let before = store.contents()?;
        let server = Server::start(&store, &dir)?;
        company.work(phase, |guest| {
            guest.share("lower", &store.dir, "/lower")?.server(&server.socket)
        })?;
        drop(server);
        ensure!(store.contents()? == before, "the lower store was changed");
    }
    store.remove()?;
    Ok(Tally {
        passed: 1,
        skipped: vec![Skip {
            name: "shared-directory over virtiofs".to_owned(),
            reason: "the guests of this scenario see the directory over 9p only".to_owned(),
        }],
        ..Tally::default()
    })
}

/// The host's server; ended when this is dropped.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(store: &LowerStore, dir: &Path) -> Result<Self> {
        let socket = dir.join("socket");
        let mut command = store.superpose();
        command
            .args(["--quiet", "serve", "--read-only", "--socket"])
            .arg(&socket);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Self {
            child: child.context("starting the host's server")?,
            socket,
        };
        let begun = Instant::now();
        while !server.socket.exists() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the host's server ended with {status}");
            }
            ensure!(begun.elapsed() < START, "the host's server does not listen");
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_file(&self.socket).ok();
    }
}
