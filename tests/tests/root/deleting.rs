// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deletion from an overlay store: every row of the decision table, and what keeps objects alive.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, Suite, Tree, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        an_object_of_the_upper_layer_goes_for_good,
        a_duplicate_goes_and_the_lower_copy_shows,
        an_object_that_is_only_below_stays,
        an_unregistered_entry_below_shows_again_and_no_whiteout_stays,
        a_whiteout_over_a_valid_object_is_taken_away,
        a_referrer_above_protects,
        a_referrer_below_does_not_protect_the_upper_copy,
        a_root_above_protects_what_it_leads_to,
        a_root_of_the_lower_store_does_not_protect_above,
        a_tree_in_use_is_read_to_its_end_and_goes_later,
        many_objects_go_with_one_remount,
        what_is_no_object_is_never_touched
    );
}

struct Mounted {
    layers: Layers,
    _mount: OverlayMount,
}

/// A mounted store, and what `prepare` made below before it was mounted.
fn mounted<T>(prepare: impl FnOnce(&Layers) -> Result<T>) -> Result<(Mounted, T)> {
    let layers = Layers::new()?;
    layers.add_below("first", "first\n", &[])?;
    let prepared = prepare(&layers)?;
    let mount = layers.mount()?;
    let mounted = Mounted {
        layers,
        _mount: mount,
    };
    Ok((mounted, prepared))
}

fn base(path: &str) -> &str {
    path.trim_start_matches("/nix/store/")
}

impl Mounted {
    fn delete(&self, paths: &[&str]) -> Result<Value> {
        let below = Tree::of(&self.layers.lower())?;
        let deleted = self
            .layers
            .superpose()?
            .args(["delete", "--json"])
            .args(paths)
            .succeed()?
            .json()?;
        below.expect_unchanged(&self.layers.lower())?;
        let verify = self.layers.superpose()?;
        let report = verify
            .args(["verify", "--check-contents", "--json"])
            .run()?
            .json()?;
        // Junk that a trial has put there stays, and is told.
        let mut faults = report["faults"].as_array().into_iter().flatten();
        ensure!(faults.all(|fault| fault["fault"] == "foreign-name"), "{report}");
        Ok(deleted)
    }

    fn refuse(&self, paths: &[&str], why: &str) -> Result<()> {
        let upper = Tree::of(&self.layers.upper())?;
        let refused = self.layers.superpose()?.arg("delete").args(paths).exit_with(1)?;
        ensure!(
            refused.errors().contains("kept alive") && refused.errors().contains(why),
            "{refused}"
        );
        upper.expect_unchanged(&self.layers.upper())
    }
}

fn an_object_of_the_upper_layer_goes_for_good() -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let own = mounted.layers.add_above("own", "own\n", &[])?;
    let deleted = mounted.delete(&[&own])?;
    ensure!(
        deleted["deleted"] == json!([own]) && deleted["remounted"] == false,
        "{deleted}"
    );
    ensure!(
        deleted["bytesFreed"] == 4096 && deleted["entriesRemoved"] == 1,
        "{deleted}"
    );
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "{:?}",
        mounted.layers.upper_names()?
    );
    mounted
        .layers
        .superpose()?
        .args(["check-validity", &own])
        .exit_with(1)?;
    Ok(())
}

fn a_duplicate_goes_and_the_lower_copy_shows() -> Result<()> {
    let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
    mounted.layers.duplicate(&object)?;
    let file = mounted.layers.merged().join(base(&object)).join("share/text");
    let upper_inode = fs::metadata(&file)?.ino();
    let deleted = mounted.delete(&[&object])?;
    ensure!(
        deleted["below"] == json!([object]) && deleted["remounted"] == true,
        "{deleted}"
    );
    ensure!(deleted["bytesFreed"].as_u64() > Some(0), "{deleted}");
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "{:?}",
        mounted.layers.upper_names()?
    );
    ensure!(fs::read(&file)? == b"object" && fs::metadata(&file)?.ino() != upper_inode);
    mounted
        .layers
        .superpose()?
        .args(["check-validity", &object])
        .succeed()?;
    Ok(())
}

fn an_object_that_is_only_below_stays() -> Result<()> {
    let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
    for known_above in [false, true] {
        if known_above {
            mounted.layers.superpose()?.args(["ensure", &object]).succeed()?;
        }
        let deleted = mounted.delete(&[&object])?;
        ensure!(
            deleted["bytesFreed"] == 0 && deleted["remounted"] == false,
            "{deleted}"
        );
        ensure!(
            mounted.layers.upper_names()?.is_empty(),
            "a whiteout: {:?}",
            mounted.layers.upper_names()?
        );
        mounted
            .layers
            .superpose()?
            .args(["check-validity", &object])
            .succeed()?;
    }
    Ok(())
}

fn an_unregistered_entry_below_shows_again_and_no_whiteout_stays() -> Result<()> {
    let own = Layers::new()?;
    let path = own.add_below("own", "own\n", &[])?;
    // What a crash left below, under the same name and without a row.
    let leave = |layers: &Layers| fs::write(layers.lower_dir().join(base(&path)), "left behind");
    let (mounted, ()) = mounted(|layers| Ok(leave(layers)?))?;
    let added = mounted.layers.add_above("own", "own\n", &[])?;
    ensure!(added == path);
    let merged = mounted.layers.merged().join(base(&path));
    ensure!(fs::read(&merged)? == b"own\n");
    mounted.delete(&[&path])?;
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "a whiteout: {:?}",
        mounted.layers.upper_names()?
    );
    ensure!(fs::read(&merged)? == b"left behind");
    Ok(())
}

fn a_whiteout_over_a_valid_object_is_taken_away() -> Result<()> {
    let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
    mounted.layers.superpose()?.args(["ensure", &object]).succeed()?;
    let remove = Invocation::new("rm")
        .arg("-rf")
        .arg(mounted.layers.merged().join(base(&object)));
    remove.succeed()?;
    ensure!(mounted.layers.upper_names()?.len() == 1, "no whiteout");
    mounted.layers.superpose()?.arg("verify").run()?;
    mounted.layers.superpose()?.args(["delete", &object]).succeed()?;
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "{:?}",
        mounted.layers.upper_names()?
    );
    ensure!(fs::read(mounted.layers.merged().join(base(&object)).join("share/text"))? == b"object");
    Ok(())
}

fn a_referrer_above_protects() -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let library = mounted.layers.add_above("library", "library\n", &[])?;
    let program = mounted.layers.add_above("program", "program\n", &[&library])?;
    mounted.refuse(&[&library], &program)?;
    let deleted = mounted.delete(&[&library, &program])?;
    ensure!(
        deleted["deleted"].as_array().map(Vec::len) == Some(2),
        "{deleted}"
    );
    Ok(())
}

fn a_referrer_below_does_not_protect_the_upper_copy() -> Result<()> {
    let (mounted, [library, program]) = mounted(|layers| {
        let library = layers.add_tree_below("library", &[])?;
        let program = layers.add_tree_below("program", &[&library])?;
        Ok([library, program])
    })?;
    mounted.layers.duplicate(&library)?;
    // Nothing breaks: the lower copy serves the referrer below.
    let deleted = mounted.delete(&[&library])?;
    ensure!(deleted["bytesFreed"].as_u64() > Some(0), "{deleted}");
    let referrers = mounted
        .layers
        .superpose()?
        .args(["query", "--referrers", &library])
        .succeed()?;
    ensure!(referrers.line()? == program, "{referrers}");
    Ok(())
}

fn a_root_above_protects_what_it_leads_to() -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let library = mounted.layers.add_above("library", "library\n", &[])?;
    let program = mounted.layers.add_above("program", "program\n", &[&library])?;
    let link = mounted.layers.join("result");
    mounted
        .layers
        .superpose()?
        .arg("add-root")
        .arg(&link)
        .arg(&program)
        .succeed()?;
    mounted.refuse(&[&library, &program], &link.display().to_string())?;
    fs::remove_file(&link)?;
    mounted.delete(&[&library, &program])?;
    Ok(())
}

fn a_root_of_the_lower_store_does_not_protect_above() -> Result<()> {
    let (mounted, object) = mounted(|layers| {
        let object = layers.add_tree_below("object", &[])?;
        layers
            .below()?
            .arg("add-root")
            .arg(layers.join("result"))
            .arg(&object)
            .succeed()?;
        Ok(object)
    })?;
    mounted.layers.duplicate(&object)?;
    mounted.delete(&[&object])?;
    Ok(())
}

fn a_tree_in_use_is_read_to_its_end_and_goes_later() -> Result<()> {
    // A name of its own: the shell passes on where it is in the environment, which a collector reads, and other trials run
    // at the same time.
    let (mounted, object) = mounted(|layers| layers.add_tree_below("worked-in", &[]))?;
    mounted.layers.duplicate(&object)?;
    let merged = mounted.layers.merged().join(base(&object));
    // Somebody works in the directory.
    let mark = mounted.layers.join("go");
    let script = format!(
        "echo ready; until [ -e '{}' ]; do sleep 0.02; done; cat share/text",
        mark.display()
    );
    let mut reader = Invocation::new("sh")
        .args(["-c", &script])
        .current_dir(&merged)
        .start()?;
    let pid = reader.pid().as_raw_nonzero();
    reader.wait_until("it is there", || {
        Ok(fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == merged))
    })?;
    mounted.refuse(&[&object], "/cwd")?;
    let deleted = mounted.delete(&["--ignore-liveness", &object])?;
    ensure!(deleted["waiting"] == 1, "{deleted}");
    fs::write(&mark, "")?;
    let read = reader.finish()?;
    ensure!(read.text()? == "ready\nworked-in", "{read}");
    // Nobody uses it any more: once the kernel has forgotten it, the space comes back with the next deletion.
    mounted.layers.superpose()?.arg("remount").succeed()?;
    let own = mounted.layers.add_above("own", "own\n", &[])?;
    let deleted = mounted.delete(&[&own])?;
    ensure!(
        deleted["waiting"] == 0 && deleted["entriesRemoved"].as_u64() > Some(1),
        "{deleted}"
    );
    Ok(())
}

fn many_objects_go_with_one_remount() -> Result<()> {
    let (mounted, objects) = mounted(|layers| {
        let add = |number: u32| layers.add_tree_below(&format!("object-{number}"), &[]);
        (0..5).map(add).collect::<Result<Vec<_>>>()
    })?;
    for object in &objects {
        mounted.layers.duplicate(object)?;
    }
    let paths: Vec<&str> = objects.iter().map(String::as_str).collect();
    let deleted = mounted.delete(&paths)?;
    ensure!(
        deleted["below"].as_array().map(Vec::len) == Some(5) && deleted["remounted"] == true,
        "{deleted}"
    );
    ensure!(mounted.layers.upper_names()?.is_empty());
    Ok(())
}

fn what_is_no_object_is_never_touched() -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let own = mounted.layers.add_above("own", "own\n", &[])?;
    for name in ["tmp-1-2", "junk", ".keep"] {
        fs::write(mounted.layers.merged().join(name), name)?;
    }
    mounted.layers.superpose()?.args(["delete", &own]).succeed()?;
    ensure!(
        mounted.layers.upper_names()? == ["junk", "tmp-1-2"],
        "{:?}",
        mounted.layers.upper_names()?
    );
    ensure!(fs::read(mounted.layers.upper().join(".keep"))? == b".keep");
    Ok(())
}
