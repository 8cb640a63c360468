// SPDX-License-Identifier: MIT OR Apache-2.0
//! The worked example of the Nix manual: `store-a` below, `store-b` above, `merged-store` for both.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::json;
use superpose_tests::{Invocation, Need, Scratch, Suite, Tree, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        the_layout_works_with_our_mount,
        the_layout_works_with_the_mount_command_of_the_manual,
        both_mounts_show_the_same,
        mount_is_repeatable_and_umount_undoes_it,
        a_mount_in_use_is_not_unmounted,
        remount_shows_what_was_added_below,
        a_store_that_is_not_mounted_explains_what_to_do
    );
}

struct Manual {
    scratch: Scratch,
    object: String,
}

fn manual() -> Result<Manual> {
    let scratch = Scratch::new()?;
    let file = scratch.join("a.txt");
    fs::write(&file, "hello\n")?;
    let added = superpose()?
        .arg("--store")
        .arg(scratch.join("store-a"))
        .arg("add")
        .arg(&file)
        .succeed()?;
    let object = added.line()?.to_owned();
    Ok(Manual { scratch, object })
}

impl Manual {
    /// The URL as the manual writes it, with less encoded than could be.
    fn url(&self) -> String {
        let base = self.scratch.path().display();
        format!(
            "local-overlay://?root={base}/merged-store&lower-store={base}/store-a&upper-layer={base}/store-b/nix/store"
        )
    }

    fn superpose(&self) -> Result<Invocation> {
        Ok(superpose()?.args(["--store", &self.url()]))
    }

    fn merged(&self) -> PathBuf {
        self.scratch.join("merged-store/nix/store")
    }

    fn upper(&self) -> PathBuf {
        self.scratch.join("store-b/nix/store")
    }

    /// The command line of the manual.
    fn mount(&self) -> Result<()> {
        for dir in [self.merged(), self.upper(), self.scratch.join("workdir")] {
            fs::create_dir_all(dir)?;
        }
        let base = self.scratch.path().display();
        Invocation::new("mount")
            .args(["-t", "overlay", "overlay"])
            .args(["-o", &format!("lowerdir={base}/store-a/nix/store")])
            .args(["-o", &format!("upperdir={base}/store-b/nix/store")])
            .args(["-o", &format!("workdir={base}/workdir")])
            .arg(self.merged())
            .succeed()?;
        Ok(())
    }

    /// Everything that the example does with the store.
    fn use_it(&self) -> Result<()> {
        let below = self
            .superpose()?
            .args(["path-info", "--layer", &self.object])
            .succeed()?;
        ensure!(below.line()? == format!("{}\tlower", self.object), "{below}");
        let file = self.scratch.join("b.txt");
        fs::write(&file, format!("see {}\n", self.object))?;
        let added = self
            .superpose()?
            .args(["add", "--reference", &self.object])
            .arg(&file)
            .succeed()?;
        let path = added.line()?.to_owned();
        let name = path.trim_start_matches("/nix/store/");
        ensure!(
            self.upper().join(name).is_file() && self.merged().join(name).is_file(),
            "{added}"
        );
        ensure!(!self.scratch.join("store-a/nix/store").join(name).exists());
        let closure = self.superpose()?.args(["query", "-R", &path]).succeed()?;
        ensure!(closure.line()? == format!("{}\n{path}", self.object), "{closure}");
        self.superpose()?.args(["verify", "--check-contents"]).succeed()?;
        let status = self.superpose()?.args(["status", "--json"]).succeed()?.json()?;
        ensure!(
            status["problems"] == json!([]) && status["upper"]["copiedRows"] == 1,
            "{status}"
        );
        self.superpose()?.args(["delete", &path]).succeed()?;
        ensure!(!self.upper().join(name).exists() && !self.merged().join(name).exists());
        Ok(())
    }
}

fn the_layout_works_with_our_mount() -> Result<()> {
    let manual = manual()?;
    let below = Tree::of(&manual.scratch.join("store-a"))?;
    manual.superpose()?.arg("mount").succeed()?;
    manual.use_it()?;
    below.expect_unchanged(&manual.scratch.join("store-a"))
}

fn the_layout_works_with_the_mount_command_of_the_manual() -> Result<()> {
    let manual = manual()?;
    let below = Tree::of(&manual.scratch.join("store-a"))?;
    manual.mount()?;
    manual.superpose()?.arg("check-mount").succeed()?;
    manual.use_it()?;
    below.expect_unchanged(&manual.scratch.join("store-a"))
}

fn both_mounts_show_the_same() -> Result<()> {
    let described = |mount: &dyn Fn(&Manual) -> Result<()>| -> Result<serde_json::Value> {
        let manual = manual()?;
        mount(&manual)?;
        let checked = manual.superpose()?.args(["check-mount", "--json"]).succeed()?;
        let base = manual.scratch.path().display().to_string();
        let overlay = checked.json()?["mount"]["overlay"].to_string();
        let mut overlay: serde_json::Value = serde_json::from_str(&overlay.replace(&base, ""))?;
        // Where OverlayFS works is nobody's business.
        overlay["work"] = json!(null);
        Ok(overlay)
    };
    let theirs = described(&|manual| manual.mount())?;
    let ours = described(&|manual| manual.superpose()?.arg("mount").succeed().map(drop))?;
    ensure!(theirs["lower"] == json!(["/store-a/nix/store"]), "{theirs}");
    ensure!(
        ours["lower"] == theirs["lower"] && ours["upper"] == theirs["upper"],
        "{ours}"
    );
    Ok(())
}

fn mount_is_repeatable_and_umount_undoes_it() -> Result<()> {
    let manual = manual()?;
    manual.superpose()?.arg("mount").succeed()?;
    let again = manual.superpose()?.arg("mount").succeed()?;
    ensure!(again.errors().contains("already"), "{again}");
    manual.superpose()?.arg("umount").succeed()?;
    manual.superpose()?.arg("check-mount").exit_with(1)?;
    let twice = manual.superpose()?.arg("umount").exit_with(1)?;
    ensure!(twice.errors().contains("expected a mount point"), "{twice}");
    manual.superpose()?.arg("mount").succeed()?;
    manual.use_it()
}

fn a_mount_in_use_is_not_unmounted() -> Result<()> {
    let manual = manual()?;
    manual.superpose()?.arg("mount").succeed()?;
    let name = manual.object.trim_start_matches("/nix/store/");
    let open = fs::File::open(manual.merged().join(name))?;
    let busy = manual.superpose()?.arg("umount").exit_with(1)?;
    // Who holds it is told: this process.
    ensure!(busy.errors().contains(&std::process::id().to_string()), "{busy}");
    manual.superpose()?.args(["umount", "--lazy"]).succeed()?;
    ensure!(!manual.merged().join(name).exists());
    drop(open);
    Ok(())
}

fn remount_shows_what_was_added_below() -> Result<()> {
    let manual = manual()?;
    manual.superpose()?.arg("mount").succeed()?;
    // The kernel remembers that there is nothing of this name.
    let path = "/nix/store/jv2bvrwyvkfh4w6f80s5x5zb6sc4gwl5-late";
    let file = manual.scratch.join("late");
    fs::write(&file, "late\n")?;
    let below = superpose()?.arg("--store").arg(manual.scratch.join("store-a"));
    manual.superpose()?.args(["check-validity", path]).exit_with(1)?;
    let added = below.arg("add").arg(&file).succeed()?;
    let merged = manual
        .merged()
        .join(added.line()?.trim_start_matches("/nix/store/"));
    manual
        .superpose()?
        .args(["check-validity", added.line()?])
        .succeed()?;
    manual.superpose()?.arg("remount").succeed()?;
    ensure!(fs::read(merged)? == b"late\n");
    Ok(())
}

fn a_store_that_is_not_mounted_explains_what_to_do() -> Result<()> {
    let manual = manual()?;
    for command in [
        &["path-info", "--all"][..],
        &["add", "/etc/passwd"],
        &["verify"],
        &["delete", "x"],
    ] {
        let refused = manual.superpose()?.args(command).exit_with(1)?;
        for fragment in [
            "is not mounted at",
            "merged-store/nix/store",
            "mount -t overlay overlay",
            "hint: `superpose mount`",
            "superpose run",
        ] {
            ensure!(
                refused.errors().contains(fragment),
                "no `{fragment}` in {refused}"
            );
        }
    }
    ensure!(
        !manual.scratch.join("merged-store").exists(),
        "something was made before the mount was verified"
    );
    Ok(())
}
