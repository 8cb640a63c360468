// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verification of an overlay store: what its database knows, wherever the object lies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, Suite, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        a_modified_object_is_found_in_either_layer,
        what_only_the_lower_store_knows_is_its_own_affair,
        an_upper_object_that_is_gone_and_needed_is_a_fault,
        a_lower_object_that_is_gone_is_a_fault
    );
}

struct Known {
    layers: Layers,
    _mount: OverlayMount,
    /// In the lower store, with a row above.
    below: String,
    /// Above; refers to the one below.
    own: String,
}

fn known() -> Result<Known> {
    let layers = Layers::new()?;
    let below = layers.add_below("below", "below\n", &[])?;
    let mount = layers.mount()?;
    let own = layers.add_above("own", "own\n", &[&below])?;
    Ok(Known {
        layers,
        _mount: mount,
        below,
        own,
    })
}

impl Known {
    fn verify(&self, status: i32) -> Result<Value> {
        let verify = self
            .layers
            .superpose()?
            .args(["verify", "--check-contents", "--json"]);
        verify.exit_with(status)?.json()
    }

    fn upper(&self) -> PathBuf {
        self.layers
            .upper()
            .join(self.own.trim_start_matches("/nix/store/"))
    }

    fn lower(&self) -> PathBuf {
        self.layers
            .lower_dir()
            .join(self.below.trim_start_matches("/nix/store/"))
    }
}

fn a_modified_object_is_found_in_either_layer() -> Result<()> {
    for layer in ["upper", "lower"] {
        let known = known()?;
        ensure!(known.verify(0)?["hashed"] == 2);
        let (object, path) = match layer {
            "upper" => (known.upper(), &known.own),
            _ => (known.lower(), &known.below),
        };
        fs::set_permissions(&object, fs::Permissions::from_mode(0o644))?;
        fs::write(&object, "changed")?;
        known.layers.superpose()?.arg("remount").succeed()?;
        let report = known.verify(1)?;
        let fault = &report["faults"][0];
        ensure!(
            fault["fault"] == "modified" && fault["path"] == **path,
            "{report}"
        );
        ensure!(fault["layer"] == layer, "{report}");
    }
    Ok(())
}

fn what_only_the_lower_store_knows_is_its_own_affair() -> Result<()> {
    let known = known()?;
    let late = known.layers.add_below("late", "late\n", &[])?;
    let object = known
        .layers
        .lower_dir()
        .join(late.trim_start_matches("/nix/store/"));
    fs::remove_file(object)?;
    ensure!(known.verify(0)?["paths"] == 2);
    Ok(())
}

fn an_upper_object_that_is_gone_and_needed_is_a_fault() -> Result<()> {
    let known = known()?;
    let user = known.layers.add_above("user", "user\n", &[&known.own])?;
    Invocation::new("rm").arg(known.upper()).succeed()?;
    known.layers.superpose()?.arg("remount").succeed()?;
    let report = known.verify(1)?;
    ensure!(report["faults"][0]["path"] == *known.own, "{report}");
    ensure!(report["faults"][0]["referrers"] == json!([user]), "{report}");
    Ok(())
}

fn a_lower_object_that_is_gone_is_a_fault() -> Result<()> {
    let known = known()?;
    known.layers.superpose()?.args(["delete", &known.own]).succeed()?;
    fs::remove_file(known.lower())?;
    known.layers.superpose()?.arg("remount").succeed()?;
    // Forgotten above, it would be as valid as before.
    for _ in 0..2 {
        let report = known.verify(1)?;
        ensure!(
            report["faults"][0]["fault"] == "missing" && report["forgotten"] == json!([]),
            "{report}"
        );
    }
    let says = known.layers.superpose()?.arg("verify").exit_with(1)?;
    ensure!(says.text()?.contains("valid in the lower store"), "{says}");
    Ok(())
}
