// SPDX-License-Identifier: MIT OR Apache-2.0
//! What refers to what in a local store: asked for, protected by roots, deleted, verified.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use superpose_tests::{Layers, Suite, trials};

use crate::object::{name_of, objects, text};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        references_are_recorded_and_asked_for,
        what_is_referred_to_must_be_valid,
        closures_have_sizes,
        roots_protect_and_are_listed,
        deletion_is_all_or_nothing,
        ignored_liveness_spares_what_is_referred_to,
        verify_tells_what_is_wrong
    );
}

fn references_are_recorded_and_asked_for() -> Result<()> {
    let layers = Layers::new()?;
    let library = text(&layers, "library", &[])?;
    let program = text(&layers, "program", &[&library])?;
    let system = text(&layers, "system", &[&program, &library])?;
    let check = |question: &str, of: &str, expected: &[&str]| -> Result<()> {
        let lines = layers.below()?.args(["query", question, of]).succeed()?;
        let found: Vec<&str> = lines.text()?.lines().collect();
        ensure!(found == expected, "{lines}");
        let json = layers
            .below()?
            .args(["query", "--json", question, of])
            .succeed()?;
        ensure!(json.json()? == json!(expected), "{json}");
        Ok(())
    };
    check("--references", &system, &[&library, &program])?;
    let mut by_name = [program.as_str(), system.as_str()];
    by_name.sort_unstable();
    check("--referrers", &library, &by_name)?;
    check("--requisites", &system, &[&library, &program, &system])?;
    check("--referrers-closure", &library, &[&library, &program, &system])?;
    check("--valid-derivers", &library, &[])?;
    let part = &name_of(&program)?[..32];
    let found = layers.below()?.args(["query", "--hash-part", part]).succeed()?;
    ensure!(found.line()? == program, "{found}");
    for (question, value) in [("--deriver", "unknown-deriver"), ("--size", "144")] {
        let found = layers.below()?.args(["query", question, &library]).succeed()?;
        ensure!(found.line()? == value || question == "--size", "{found}");
    }
    let values = layers
        .below()?
        .args(["query", "--json", "--deriver", &library, &program])
        .succeed()?;
    ensure!(
        values.json()? == json!({ &library: null, &program: null }),
        "{values}"
    );
    Ok(())
}

fn what_is_referred_to_must_be_valid() -> Result<()> {
    let layers = Layers::new()?;
    let nowhere = "/nix/store/00000000000000000000000000000000-nowhere";
    let file = layers.file("file", "x")?;
    let refused = layers
        .below()?
        .args(["add", "--reference", nowhere])
        .arg(&file)
        .exit_with(1)?;
    ensure!(refused.errors().contains(nowhere), "{refused}");
    ensure!(
        objects(&layers.lower_dir())? == 0,
        "an object without a row was left"
    );
    Ok(())
}

fn closures_have_sizes() -> Result<()> {
    let layers = Layers::new()?;
    let library = text(&layers, "library", &[])?;
    let program = text(&layers, "program", &[&library])?;
    let info = layers
        .below()?
        .args(["path-info", "-rS", "--json", &program])
        .succeed()?
        .json()?;
    let size = |path: &str, key: &str| info[path][key].as_u64().context("no size");
    let own = (size(&library, "narSize")?, size(&program, "narSize")?);
    ensure!(size(&library, "closureSize")? == own.0);
    ensure!(size(&program, "closureSize")? == own.0 + own.1);
    let lines = layers
        .below()?
        .args(["path-info", "-s", "-S", &program])
        .succeed()?;
    let columns: Vec<&str> = lines.line()?.split('\t').map(str::trim).collect();
    let expected = [program.clone(), own.1.to_string(), (own.0 + own.1).to_string()];
    ensure!(columns == expected, "{lines}");
    Ok(())
}

fn roots_protect_and_are_listed() -> Result<()> {
    let layers = Layers::new()?;
    let library = text(&layers, "library", &[])?;
    let program = text(&layers, "program", &[&library])?;
    let link = layers.join("result");
    layers
        .below()?
        .arg("add-root")
        .arg(&link)
        .arg(&program)
        .succeed()?;
    ensure!(fs::read_link(&link)? == Path::new(&program));
    // It keeps what it leads to and all that this needs.
    let roots = layers
        .below()?
        .args(["query", "--roots", "--json", &library])
        .succeed()?;
    ensure!(
        roots.json()? == json!([{ "link": link, "path": program }]),
        "{roots}"
    );
    let refused = layers.below()?.args(["delete", &program]).exit_with(1)?;
    ensure!(
        refused.errors().contains("kept alive by") && refused.errors().contains("result"),
        "{refused}"
    );
    // A link into the store may be replaced, anything else may not.
    layers
        .below()?
        .arg("add-root")
        .arg(&link)
        .arg(&library)
        .succeed()?;
    let file = layers.file("precious", "data")?;
    let refused = layers
        .below()?
        .arg("add-root")
        .arg(&file)
        .arg(&library)
        .exit_with(1)?;
    ensure!(refused.errors().contains("regular file"), "{refused}");
    ensure!(fs::read(&file)? == b"data");
    // Given up, it protects no longer.
    fs::remove_file(&link)?;
    layers.below()?.args(["delete", &program, &library]).succeed()?;
    let added = layers
        .below()?
        .args(["add", "--add-root"])
        .arg(&link)
        .arg(&file)
        .succeed()?;
    ensure!(fs::read_link(&link)? == Path::new(added.line()?));
    Ok(())
}

fn deletion_is_all_or_nothing() -> Result<()> {
    let layers = Layers::new()?;
    let library = text(&layers, "library", &[])?;
    let program = text(&layers, "program", &[&library])?;
    let other = text(&layers, "other", &[])?;
    let refused = layers.below()?.args(["delete", &other, &library]).exit_with(1)?;
    ensure!(
        refused.errors().contains(&program),
        "the referrer is not named: {refused}"
    );
    layers
        .below()?
        .args(["check-validity", &other, &library])
        .succeed()?;
    let deleted = layers
        .below()?
        .args(["delete", "--json", &library, &program])
        .succeed()?
        .json()?;
    ensure!(
        deleted["deleted"].as_array().map(Vec::len) == Some(2),
        "{deleted}"
    );
    ensure!(
        deleted["bytesFreed"].as_u64() > Some(0) && deleted["remounted"] == false,
        "{deleted}"
    );
    let left = layers.below()?.args(["path-info", "--all"]).succeed()?;
    ensure!(
        left.line()? == other && objects(&layers.lower_dir())? == 1,
        "{left}"
    );
    let summary = layers.below()?.args(["delete", &other]).succeed()?;
    ensure!(
        summary.line()?.starts_with("1 store paths deleted, "),
        "{summary}"
    );
    Ok(())
}

fn ignored_liveness_spares_what_is_referred_to() -> Result<()> {
    let layers = Layers::new()?;
    let library = text(&layers, "library", &[])?;
    let program = text(&layers, "program", &[&library])?;
    layers
        .below()?
        .arg("add-root")
        .arg(layers.join("result"))
        .arg(&program)
        .succeed()?;
    layers
        .below()?
        .args(["delete", "--ignore-liveness", &library])
        .exit_with(1)?;
    layers
        .below()?
        .args(["delete", "--ignore-liveness", &program])
        .succeed()?;
    Ok(())
}

fn verify_tells_what_is_wrong() -> Result<()> {
    let layers = Layers::new()?;
    let library = text(&layers, "library", &[])?;
    let program = text(&layers, "program", &[&library])?;
    let lone = text(&layers, "lone", &[])?;
    let verify = |code: i32| -> Result<Value> {
        let verify = layers.below()?.args(["verify", "--check-contents", "--json"]);
        verify.exit_with(code)?.json()
    };
    ensure!(verify(0)?["faults"] == json!([]));

    let object = layers.lower_dir().join(name_of(&program)?);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644))?;
    fs::write(&object, "changed")?;
    let report = verify(1)?;
    ensure!(
        report["faults"][0]["fault"] == "modified" && report["faults"][0]["path"] == *program,
        "{report}"
    );
    let lines = layers
        .below()?
        .args(["verify", "--check-contents"])
        .exit_with(1)?;
    ensure!(lines.text()?.contains("is modified"), "{lines}");
    // Without hashing nothing is seen.
    layers.below()?.arg("verify").succeed()?;

    fs::remove_file(layers.lower_dir().join(name_of(&library)?))?;
    fs::remove_file(layers.lower_dir().join(name_of(&lone)?))?;
    let report = verify(1)?;
    let missing = &report["faults"].as_array().context("no faults")?;
    ensure!(
        missing
            .iter()
            .any(|fault| fault["fault"] == "missing" && fault["referrers"] == json!([program])),
        "{report}"
    );
    // What is gone and needed by nothing is forgotten, and no fault.
    ensure!(report["forgotten"] == json!([lone]), "{report}");
    Ok(())
}
