// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first process of an emulated machine, and what it does there; `cargo xtask integration` puts it into the initramfs.
//!
//! As process 1 it makes the machine usable, starts itself once more for the part that the order names, reaps whatever is
//! orphaned, and says at the end how it went: by one line on the console that holds a word nobody else knows, and by the exit
//! device of the emulator. On the host it is started only to carry what a machine says to a socket there.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "the console is what this program is watched by"
)]

mod disks;
mod ending;
mod machine;
mod modules;
mod order;
mod parts;
mod relay;
mod results;
mod selection;

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use ending::Ending;
use order::Order;

/// Where the starter puts the programs of the project.
const PROGRAMS: &str = "/opt/superpose";

/// Where those who need room work; what the order mounts there.
const SCRATCH: &str = "/scratch";

/// Where the part leaves its ending for process 1.
const ENDING: &str = "/run/superpose-ending";

fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        let order = Order::read();
        let (nonce, ending) = match &order {
            Ok(order) => (order.nonce.as_str(), run(order)),
            Err(error) => ("", Ending::of_error(error)),
        };
        return ending.announce(nonce);
    }
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "relay") {
        let socket = words.next().unwrap_or_default();
        return match relay::serve(std::path::Path::new(&socket)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let ending = Order::read().and_then(|order| parts::run(&order));
    let ending = ending.map_or_else(|error| Ending::of_error(&error), |()| Ending::Passed);
    match fs::write(ENDING, ending.to_string()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{ENDING}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything from the first mount to the last.
fn run(order: &Order) -> Ending {
    let done = prepare(order).and_then(|()| part(order));
    let ending = done.unwrap_or_else(|error| Ending::of_error(&error));
    match disks::unmount(order) {
        Err(error) if matches!(ending, Ending::Passed) => Ending::of_error(&error),
        _ => ending,
    }
}

fn prepare(order: &Order) -> Result<()> {
    machine::mount_basics()?;
    modules::load()?;
    machine::enter_root()?;
    disks::mount(order)
}

/// Starts the part and waits for it; whatever else ends in the meantime is somebody's orphan.
fn part(order: &Order) -> Result<Ending> {
    let child = Command::new("/proc/self/exe")
        .current_dir("/root")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .env("SUPERPOSE_BIN", format!("{PROGRAMS}/superpose"))
        .env(
            "SUPERPOSE_CRASH_BIN",
            format!("{PROGRAMS}/superpose-crash-points"),
        )
        .env("SUPERPOSE_SCRATCH", SCRATCH)
        .envs(order.fault.iter().map(|fault| ("SUPERPOSE_FAULT", fault)))
        .spawn()
        .context("starting the part")?;
    let status = reap_until(Pid::from_child(&child))?;
    let text = fs::read_to_string(ENDING);
    let Ok(text) = text else {
        bail!("the part ended without a word ({status:?})");
    };
    Ending::read(&text)
}

fn reap_until(child: Pid) -> Result<WaitStatus> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => return Ok(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the part"),
        }
    }
}
