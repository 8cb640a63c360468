// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps a path may change its kind while somebody collects: a process protects it, makes a link, and ends.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use superpose_tests::{Invocation, Layers, Need, Suite, program_path, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        a_temporary_root_that_becomes_a_link_is_not_missed
    );
}

/// How long it takes whenever the directory of temporary roots is opened, in microseconds, and how long the collector is
/// let alone when it has begun: whatever it looks at before that directory it has seen by then.
const DELAY: u32 = 1_500_000;
const HEAD_START: Duration = Duration::from_millis(600);

fn a_temporary_root_that_becomes_a_link_is_not_missed() -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let state = layers.lower().join("nix/var/nix");
    // Somebody protects the path.
    let temporary = state.join("temproots/4194999");
    let owner = File::create(&temporary)?;
    flock(&owner, FlockOperation::LockExclusive)?;
    fs::write(&temporary, format!("{path}\0"))?;
    let mut collector = Invocation::new("strace")
        .args(["-f", "-qq", "-P", "temproots", "-e", "trace=openat", "-e"])
        .arg(format!("inject=openat:delay_enter={DELAY}"))
        .arg(program_path()?)
        .arg("--store")
        .arg(layers.lower_url())
        .arg("gc")
        .start()
        .context("strace is needed")?;
    let socket = state.join("gc-socket/socket");
    // Before it looks at any root.
    collector.wait_until("it listened", || Ok(fs::symlink_metadata(&socket).is_ok()))?;
    thread::sleep(HEAD_START);
    ensure!(collector.is_running()?, "it was not delayed");
    symlink(&path, state.join("gcroots/late"))?;
    fs::remove_file(&temporary)?;
    drop(owner);
    let collected = collector.finish()?;
    ensure!(collected.code() == Some(0), "{collected}");
    ensure!(collected.errors().contains("(DELAYED)"), "{collected}");
    layers.below()?.args(["check-validity", &path]).succeed()?;
    Ok(())
}
