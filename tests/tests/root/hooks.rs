// SPDX-License-Identifier: MIT OR Apache-2.0
//! Remount hooks: called once, and when they fail, nothing is forgotten.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use superpose_tests::{Layers, Need, OverlayMount, Suite, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        a_hook_is_called_once_with_the_mount_point,
        a_hook_is_not_called_when_nothing_went_behind_the_mount,
        without_a_hook_the_mount_is_made_fresh_all_the_same,
        a_hook_that_fails_leaves_the_remount_owed,
        a_hook_that_cannot_be_executed_is_explained,
        a_hook_that_hangs_can_be_killed_and_leaves_the_remount_owed,
        a_remount_that_is_owed_outlives_the_process
    );
}

/// A mounted store with a duplicate in the upper layer, and a hook.
struct Hooked {
    layers: Layers,
    object: String,
    _mount: OverlayMount,
}

fn hooked(script: &str) -> Result<Hooked> {
    let layers = Layers::new()?;
    let hook = layers.join("hook");
    let object = layers.add_tree_below("object", &[])?;
    let mount = layers.mount()?;
    layers.duplicate(&object)?;
    let layers = layers.with("remount-hook", &hook);
    let hooked = Hooked {
        layers,
        object,
        _mount: mount,
    };
    hooked.write(script)?;
    Ok(hooked)
}

impl Hooked {
    fn hook(&self) -> PathBuf {
        self.layers.join("hook")
    }

    /// Where a hook notes how it was called.
    fn calls(&self) -> Result<Vec<String>> {
        let notes = fs::read_to_string(self.layers.join("calls")).unwrap_or_default();
        Ok(notes.lines().map(str::to_owned).collect())
    }

    /// Replaces the hook; whatever it does, it notes its arguments first.
    fn write(&self, script: &str) -> Result<()> {
        let calls = self.layers.join("calls").display().to_string();
        fs::write(
            self.hook(),
            format!("#!/bin/sh\necho \"$@\" >>'{calls}'\n{script}\n"),
        )?;
        fs::set_permissions(self.hook(), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn delete(&self, status: i32) -> Result<superpose_tests::Finished> {
        self.layers
            .superpose()?
            .args(["delete", "--json", &self.object])
            .exit_with(status)
    }

    /// The object is gone from the upper layer, and a remount is still owed.
    fn expect_owed(&self) -> Result<()> {
        ensure!(
            self.layers.upper_names()?.is_empty(),
            "{:?}",
            self.layers.upper_names()?
        );
        let status = self
            .layers
            .superpose()?
            .args(["status", "--json"])
            .exit_with(1)?
            .json()?;
        ensure!(status["interrupted"] == true, "{status}");
        Ok(())
    }

    /// The way out that the message names: a remount without the hook.
    fn expect_made_up_for(&self) -> Result<()> {
        let merged = self
            .layers
            .merged()
            .join(self.object.trim_start_matches("/nix/store/"));
        self.layers.superpose()?.arg("remount").succeed()?;
        ensure!(
            fs::read(merged.join("share/text"))? == b"object",
            "the lower copy does not show"
        );
        let status = self
            .layers
            .superpose()?
            .args(["status", "--json"])
            .succeed()?
            .json()?;
        ensure!(status["interrupted"] == false, "{status}");
        self.layers
            .superpose()?
            .args(["verify", "--check-contents"])
            .succeed()?;
        Ok(())
    }
}

fn a_hook_is_called_once_with_the_mount_point() -> Result<()> {
    let hooked = hooked("")?;
    let more = hooked.layers.add_tree_below("more", &[])?;
    hooked.layers.duplicate(&more)?;
    ensure!(
        hooked.calls()?.is_empty(),
        "`remount` is what a hook may call: it calls none"
    );
    let deleted = hooked
        .layers
        .superpose()?
        .args(["delete", "--json", &hooked.object, &more])
        .succeed()?;
    ensure!(deleted.json()?["remounted"] == true, "{deleted}");
    let calls = hooked.calls()?;
    ensure!(calls.len() == 1, "two objects, one call: {calls:?}");
    ensure!(
        calls
            .iter()
            .all(|call| *call == hooked.layers.merged().display().to_string()),
        "{calls:?}"
    );
    Ok(())
}

fn a_hook_is_not_called_when_nothing_went_behind_the_mount() -> Result<()> {
    let hooked = hooked("exit 1")?;
    let own = hooked.layers.add_above("own", "own\n", &[])?;
    hooked.layers.superpose()?.args(["delete", &own]).succeed()?;
    ensure!(hooked.calls()?.is_empty(), "{:?}", hooked.calls()?);
    Ok(())
}

fn without_a_hook_the_mount_is_made_fresh_all_the_same() -> Result<()> {
    let layers = Layers::new()?;
    let object = layers.add_tree_below("object", &[])?;
    let _mount = layers.mount()?;
    layers.duplicate(&object)?;
    let merged = layers.merged().join(object.trim_start_matches("/nix/store/"));
    // The kernel has looked at the upper copy, and would go on showing it.
    ensure!(fs::read(merged.join("share/text"))? == b"object");
    let deleted = layers
        .superpose()?
        .args(["delete", "--json", &object])
        .succeed()?;
    ensure!(deleted.json()?["remounted"] == true, "{deleted}");
    ensure!(fs::read(merged.join("share/text"))? == b"object");
    Ok(())
}

fn a_hook_that_fails_leaves_the_remount_owed() -> Result<()> {
    for (script, how) in [("exit 3", "exit status 3"), ("kill -9 $$", "signal 9")] {
        let hooked = hooked(script)?;
        let failed = hooked.delete(1)?;
        let hook = hooked.hook().display().to_string();
        for fragment in [hook.as_str(), how, "the deletions stand", "superpose remount"] {
            ensure!(failed.errors().contains(fragment), "no `{fragment}` in {failed}");
        }
        hooked.expect_owed()?;
        hooked.expect_made_up_for()?;
    }
    Ok(())
}

fn a_hook_that_cannot_be_executed_is_explained() -> Result<()> {
    let check = |spoil: &dyn Fn(&Hooked) -> Result<()>, why: &str| -> Result<()> {
        let hooked = hooked("")?;
        spoil(&hooked)?;
        let failed = hooked.delete(1)?;
        ensure!(failed.errors().contains(why), "no `{why}` in {failed}");
        hooked.expect_owed()?;
        hooked.expect_made_up_for()
    };
    let mode = |hooked: &Hooked| fs::set_permissions(hooked.hook(), fs::Permissions::from_mode(0o644));
    check(&|hooked| Ok(mode(hooked)?), "is not executable")?;
    check(&|hooked| Ok(fs::remove_file(hooked.hook())?), "does not exist")?;
    check(
        &|hooked| {
            fs::write(hooked.hook(), "#!/no/such/shell\n")?;
            Ok(fs::set_permissions(
                hooked.hook(),
                fs::Permissions::from_mode(0o755),
            )?)
        },
        "interpreter that does not exist",
    )?;
    check(
        &|hooked| {
            fs::write(hooked.hook(), "remount, please\n")?;
            Ok(fs::set_permissions(
                hooked.hook(),
                fs::Permissions::from_mode(0o755),
            )?)
        },
        "neither a program",
    )
}

fn a_hook_that_hangs_can_be_killed_and_leaves_the_remount_owed() -> Result<()> {
    let hooked = hooked("echo $$ >\"$0.pid\"; exec sleep 600")?;
    let pid = hooked.layers.join("hook.pid");
    let mut deleting = hooked
        .layers
        .superpose()?
        .args(["delete", &hooked.object])
        .start()?;
    deleting.wait_until("the hook ran", || {
        Ok(fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')))
    })?;
    deleting.signal(Signal::KILL)?;
    while deleting.is_running()? {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // The hook is in a group of its own, and outlives the program that was killed.
    let hook = fs::read_to_string(&pid)?
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw);
    kill_process(hook.context("no process")?, Signal::KILL)?;
    deleting.finish()?;
    hooked.expect_owed()?;
    hooked.expect_made_up_for()
}

fn a_remount_that_is_owed_outlives_the_process() -> Result<()> {
    let hooked = hooked("exit 1")?;
    hooked.delete(1)?;
    // As long as the hook fails, every command says so; what it asks of the database is right all the same.
    let ask = || {
        hooked
            .layers
            .superpose()?
            .args(["path-info", "--layer", &hooked.object])
            .succeed()
    };
    let info = ask()?;
    ensure!(
        info.errors().contains("warning: ") && info.errors().contains("the remount hook"),
        "{info}"
    );
    ensure!(hooked.calls()?.len() == 2, "{:?}", hooked.calls()?);
    hooked.expect_owed()?;
    hooked.write("exec mount -i -t overlay -o remount overlay \"$1\"")?;
    // Any command makes up for it.
    let calls = hooked.calls()?.len();
    let info = ask()?;
    ensure!(
        info.line()?.ends_with("lower") && info.stderr.is_empty(),
        "{info}"
    );
    ensure!(hooked.calls()?.len() == calls + 1, "{:?}", hooked.calls()?);
    hooked.expect_made_up_for()
}
