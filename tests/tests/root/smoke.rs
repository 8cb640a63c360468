// SPDX-License-Identifier: MIT OR Apache-2.0
//! OverlayFS mounts can be made, and the machine does not see them.

use std::fs;

use anyhow::{Result, ensure};
use superpose_tests::{Need, OverlayMount, Scratch, Suite, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        layers_are_merged_and_only_the_upper_is_written,
        mounts_stay_in_the_namespace
    );
}

fn layers_are_merged_and_only_the_upper_is_written() -> Result<()> {
    let scratch = Scratch::new()?;
    let dir = |name: &str| -> Result<_> {
        let path = scratch.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    let (lower, upper, work, merged) = (dir("lo:wer")?, dir("up,per")?, dir("work")?, dir("merged")?);
    fs::write(lower.join("below"), "below")?;
    let mount = OverlayMount::new(&[&lower], &upper, &work, &merged)?;
    fs::write(merged.join("above"), "above")?;
    ensure!(fs::read_to_string(merged.join("below"))? == "below");
    drop(mount);
    ensure!(fs::read_to_string(upper.join("above"))? == "above");
    ensure!(!lower.join("above").exists() && !merged.join("above").exists());
    Ok(())
}

fn mounts_stay_in_the_namespace() -> Result<()> {
    // Whoever started the suite lives with the mounts of the machine, which must not change.
    let theirs = fs::read_link(format!("/proc/{}/ns/mnt", std::os::unix::process::parent_id()))?;
    let ours = fs::read_link("/proc/self/ns/mnt")?;
    ensure!(
        theirs != ours,
        "the suite runs in the mount namespace of the machine"
    );
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let shared = table.lines().find(|line| line.contains(" shared:"));
    ensure!(
        shared.is_none(),
        "a mount here would reach other namespaces: {shared:?}"
    );
    Ok(())
}
