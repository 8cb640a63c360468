// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay store over an overlay store: all layers in one mount.

use std::ffi::OsString;
use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use superpose_tests::{Invocation, Layers, Need, OverlayMount, Suite, Tree, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        layers_are_flattened_into_one_mount,
        a_mount_over_the_mount_below_is_right_too,
        closures_cross_all_layers,
        a_duplicate_of_any_layer_is_deleted,
        three_levels_work_though_the_kernel_stacks_two
    );
}

/// `middle` over its own lower store, and `top` over `middle`.
struct Nested {
    middle: Layers,
    top: Layers,
    /// In the lowest store, and in `middle`.
    objects: [String; 2],
}

fn nested() -> Result<Nested> {
    let middle = Layers::new()?;
    let base = middle.add_tree_below("base", &[])?;
    let mount = middle.mount()?;
    let own = middle.add_above("own", "middle\n", &[&base])?;
    drop(mount);
    Ok(Nested {
        middle,
        top: Layers::new()?,
        objects: [base, own],
    })
}

impl Nested {
    fn url(&self) -> OsString {
        self.top.url_over(&self.middle.url())
    }

    fn superpose(&self) -> Result<Invocation> {
        Ok(superpose()?.arg("--store").arg(self.url()))
    }

    fn mount(&self) -> Result<()> {
        self.superpose()?
            .arg("mount")
            .arg("--workdir")
            .arg(self.top.work())
            .succeed()?;
        Ok(())
    }
}

fn layers_are_flattened_into_one_mount() -> Result<()> {
    let nested = nested()?;
    nested.mount()?;
    let described = superpose()?
        .args(["check-mount", "--json"])
        .arg(nested.top.merged())
        .succeed()?
        .json()?;
    let expected = json!([nested.middle.upper(), nested.middle.lower_dir()]);
    ensure!(described["overlay"]["lower"] == expected, "{described}");
    // The store below needs no mount of its own.
    ensure!(
        !nested
            .middle
            .merged()
            .join(nested.objects[0].trim_start_matches("/nix/store/"))
            .exists()
    );
    nested.superpose()?.arg("check-mount").succeed()?;
    let status = nested
        .superpose()?
        .args(["status", "--json", "--lower"])
        .succeed()?
        .json()?;
    ensure!(
        status["layers"].as_array().map(Vec::len) == Some(3) && status["lower"]["rows"] == 2,
        "{status}"
    );
    Ok(())
}

fn a_mount_over_the_mount_below_is_right_too() -> Result<()> {
    let nested = nested()?;
    let _below = nested.middle.mount()?;
    for dir in [nested.top.upper(), nested.top.work(), nested.top.merged()] {
        fs::create_dir_all(dir)?;
    }
    let _above = OverlayMount::new(
        &[&nested.middle.merged()],
        &nested.top.upper(),
        &nested.top.work(),
        &nested.top.merged(),
    )?;
    nested.superpose()?.arg("check-mount").succeed()?;
    nested
        .superpose()?
        .arg("add")
        .arg(nested.top.file("new", "x")?)
        .succeed()?;
    Ok(())
}

fn closures_cross_all_layers() -> Result<()> {
    let nested = nested()?;
    let before = (
        Tree::of(&nested.middle.lower())?,
        Tree::of(&nested.middle.upper())?,
    );
    nested.mount()?;
    let [base, own] = &nested.objects;
    let add = nested
        .superpose()?
        .args(["add", "--reference", own])
        .arg(nested.top.file("top", "top\n")?);
    let top = add.succeed()?.line()?.to_owned();
    let closure = nested.superpose()?.args(["query", "-R", &top]).succeed()?;
    ensure!(closure.text()? == format!("{base}\n{own}\n{top}\n"), "{closure}");
    let referrers = nested
        .superpose()?
        .args(["query", "--referrers-closure", base])
        .succeed()?;
    ensure!(
        referrers.text()? == format!("{base}\n{own}\n{top}\n"),
        "{referrers}"
    );
    nested
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    nested.superpose()?.args(["delete", own]).exit_with(1)?;
    nested.superpose()?.args(["delete", &top]).succeed()?;
    before.0.expect_unchanged(&nested.middle.lower())?;
    before.1.expect_unchanged(&nested.middle.upper())
}

fn a_duplicate_of_any_layer_is_deleted() -> Result<()> {
    let nested = nested()?;
    nested.mount()?;
    for (object, layer) in nested
        .objects
        .iter()
        .zip([nested.middle.lower_dir(), nested.middle.upper()])
    {
        let name = object.trim_start_matches("/nix/store/");
        Invocation::new("cp")
            .arg("-a")
            .arg(layer.join(name))
            .arg(nested.top.upper())
            .succeed()?;
        nested.superpose()?.args(["ensure", object]).succeed()?;
    }
    nested.superpose()?.arg("remount").succeed()?;
    let [base, own] = &nested.objects;
    let deleted = nested
        .superpose()?
        .args(["delete", "--json", base, own])
        .succeed()?
        .json()?;
    ensure!(
        deleted["below"].as_array().map(Vec::len) == Some(2) && deleted["remounted"] == true,
        "{deleted}"
    );
    ensure!(
        nested.top.upper_names()?.is_empty(),
        "{:?}",
        nested.top.upper_names()?
    );
    nested
        .superpose()?
        .args(["check-validity", base, own])
        .succeed()?;
    Ok(())
}

fn three_levels_work_though_the_kernel_stacks_two() -> Result<()> {
    let nested = nested()?;
    let highest = Layers::new()?;
    let url = highest.url_over(&nested.url());
    let superpose = || Ok::<_, anyhow::Error>(superpose()?.arg("--store").arg(&url));
    nested.mount()?;
    let add = nested
        .superpose()?
        .arg("add")
        .arg(nested.top.file("top", "top\n")?);
    let top = add.succeed()?.line()?.to_owned();
    superpose()?.arg("mount").succeed()?;
    superpose()?
        .arg("path-info")
        .args(&nested.objects)
        .arg(&top)
        .succeed()?;
    superpose()?
        .arg("add")
        .arg(highest.file("highest", "x\n")?)
        .succeed()?;
    superpose()?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}
