// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real mounts of every kind, checked.
//!
//! The suite must not touch the machine's mount table, so it runs itself again inside a mount namespace of
//! its own, by way of `unshare` of util-linux: as root directly, as anybody else in a user namespace as well.
//! Where neither is possible every trial is listed as ignored, with the reason in its name. As root the
//! trials that are about user namespaces run in a third process, as an ordinary user.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails its trial")]

mod binds;
mod harness;
mod layers;
mod odd_paths;
mod outcome;
mod reports;
mod stacks;
mod user_namespace;
mod ways;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(|| {
        let mut trials = Vec::new();
        trials.extend(ways::trials());
        trials.extend(odd_paths::trials());
        trials.extend(layers::trials());
        trials.extend(stacks::trials());
        trials.extend(binds::trials());
        trials.extend(reports::trials());
        trials.extend(user_namespace::trials());
        trials
    })
}
