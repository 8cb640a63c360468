// SPDX-License-Identifier: MIT OR Apache-2.0
//! A test program that runs itself again inside a mount namespace of its own.
//!
//! As root with `unshare -m`, else in a user namespace with `unshare -Urm`. Where neither is allowed, what needs a mount
//! is listed as ignored, with the reason.

use std::env;
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};

/// Set for the run inside the namespaces.
const INSIDE: &str = "SUPERPOSE_TEST_INSIDE_NAMESPACE";

/// A test by name.
pub(crate) type Named = (&'static str, fn());

/// Runs trials that mount, and others that do not.
pub(crate) fn run(mounting: &[Named], others: &[Named]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A trial that starts a program hands all descriptors to it until it executes, and with them the mounts of others.
    arguments.test_threads.get_or_insert(1);
    let inside = env::var_os(INSIDE).is_some();
    let namespace = if inside { None } else { usable_namespace() };
    if let Some(flags) = namespace {
        return again_inside(flags);
    }
    let mut trials: Vec<Trial> = mounting.iter().map(|named| mount_trial(*named, inside)).collect();
    trials.extend(others.iter().copied().map(trial));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial((name, test): Named) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn mount_trial((name, test): Named, inside: bool) -> Trial {
    if inside {
        return trial((name, test));
    }
    let name = format!("{name} (ignored: unshare(1) makes neither a mount nor a user namespace here)");
    Trial::test(name, || Ok(())).with_ignored_flag(true)
}

/// The words that put `unshare` into a throw-away mount table here.
fn usable_namespace() -> Option<&'static [&'static str]> {
    let candidates: [&[&str]; 2] = [
        &["-m", "--propagation", "private"],
        &["-Urm", "--propagation", "private"],
    ];
    candidates.into_iter().find(|flags| {
        let mut probe = Command::new("unshare");
        probe
            .args(*flags)
            .arg("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}

fn again_inside(flags: &[&str]) -> ExitCode {
    let mut command = Command::new("unshare");
    command
        .args(flags)
        .arg("--")
        .arg(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(INSIDE, "1");
    let code = command.status().unwrap().code().unwrap_or(101);
    ExitCode::from(u8::try_from(code).unwrap_or(101))
}
