// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lower store in a directory of the host, which several machines see over 9p or virtiofs and cannot write; what is known of its
//! objects a `superpose serve --read-only` on the host tells them. Then it grows, while they are off.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::integration::kernel::Release;
use crate::integration::lower_store::LowerStore;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::share::Share;
use crate::integration::sharing::{self, Company, Phase};
use crate::integration::virtiofsd::{self, Virtiofsd};
use crate::test::{Skip, Tally};
use crate::workspace;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "shared-directory",
    about: "the same over 9p and virtiofs, with a host's directory, and its metadata from a `superpose serve --read-only` there",
    kernels: &Release::ALL,
    is_quick: false,
    run,
};

/// What the guests call the directory, and where they have it.
const TAG: &str = "lower";
const PLACE: &str = "/lower";

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// How the guests see the directory.
enum Way {
    NineP,
    /// With the program that does it.
    Virtiofs(PathBuf),
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Way::NineP => "9p",
            Way::Virtiofs(_) => "virtiofs",
        }
    }
}

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    one(stage, &Way::NineP)?;
    tally.passed += 1;
    match virtiofsd::find() {
        Ok(program) => {
            one(stage, &Way::Virtiofs(program))?;
            tally.passed += 1;
        }
        Err(reason) => tally.skipped.push(Skip {
            name: format!("{} over virtiofs", stage.name),
            reason,
        }),
    }
    Ok(tally)
}

fn one(stage: &Stage<'_>, way: &Way) -> Result<()> {
    let name = format!("{}-{}", stage.name, way.name());
    let dir = stage
        .room
        .run_dir(&format!("{name}-{}", stage.kernel.release.name()))?;
    let seed = workspace::seed();
    let store = LowerStore::new(stage.room, &dir, &seed)?;
    let company = Company::new(stage, &name, &dir, &seed)?;
    for phase in [Phase::First, Phase::Again] {
        if matches!(phase, Phase::Again) {
            store.grow()?;
        }
        let before = store.contents()?;
        let server = Server::start(&store, &dir)?;
        let sharers = RefCell::new(Vec::new());
        let worked = company.work(phase, |number, guest| {
            let share = match way {
                Way::NineP => Share::over_9p(TAG, &store.dir, PLACE)?,
                Way::Virtiofs(program) => {
                    let socket = dir.join(format!("virtiofs-{number}"));
                    let sharer = Virtiofsd::start(program, &store.dir, &socket)?;
                    sharers.borrow_mut().push(sharer);
                    Share::over_virtiofs(TAG, &socket, PLACE, sharing::MEMORY)?
                }
            };
            guest.share(share).server(&server.socket)
        });
        drop(sharers);
        drop(server);
        worked.with_context(|| format!("over {}", way.name()))?;
        ensure!(store.contents()? == before, "the lower store was changed");
    }
    store.remove()
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
