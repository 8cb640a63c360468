// SPDX-License-Identifier: MIT OR Apache-2.0
//! A local store by itself: every command that works on one does what it says.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use superpose_tests::{Invocation, Layers, Suite, program_path, superpose, trials};

use crate::object::{name_of, objects, text};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        an_object_is_added_once,
        every_method_and_algorithm_gives_its_path,
        objects_look_as_in_every_nix_store,
        what_is_added_comes_out_as_it_was,
        an_archive_goes_in_as_it_came_out,
        a_path_is_named_in_many_ways,
        status_counts,
        directories_side_by_side_are_counted_with_few_descriptors,
        the_environment_names_the_store
    );
}

fn an_object_is_added_once() -> Result<()> {
    let layers = Layers::new()?;
    let file = layers.file("a.txt", "hello\n")?;
    let add = || {
        layers
            .below()?
            .args(["add", "--json"])
            .arg(&file)
            .succeed()?
            .json()
    };
    let expected = |outcome: &str| {
        json!([{
            "path": "/nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt",
            "narHash": "sha256-HDfQGvQL4ugGkd48w99EN3ppmvuxfGjwgJZLL9Bx/BM=",
            "narSize": 120,
            "outcome": outcome,
            "layer": "upper",
        }])
    };
    ensure!(add()? == expected("stored"));
    ensure!(add()? == expected("already-valid"));
    Ok(())
}

fn every_method_and_algorithm_gives_its_path() -> Result<()> {
    let layers = Layers::new()?;
    let file = layers.file("a.txt", "hello\n")?;
    let mut paths = std::collections::BTreeSet::new();
    for method in ["nar", "flat", "text"] {
        for algorithm in ["md5", "sha1", "sha256", "sha512"] {
            let add = layers
                .below()?
                .args(["add", "--method", method, "--hash-algo", algorithm]);
            let finished = add.arg(&file).run()?;
            if method == "text" && algorithm != "sha256" {
                // Texts are hashed with SHA-256 and nothing else.
                ensure!(finished.code() == Some(2), "{finished}");
                continue;
            }
            ensure!(finished.code() == Some(0), "{finished}");
            paths.insert(finished.line()?.to_owned());
        }
    }
    ensure!(paths.len() == 9, "{paths:?}");
    let verified = layers
        .below()?
        .args(["verify", "--check-contents", "--json"])
        .succeed()?;
    ensure!(verified.json()?["hashed"] == 9, "{verified}");
    Ok(())
}

/// A tree with everything that an archive can hold.
fn tree(layers: &Layers) -> Result<std::path::PathBuf> {
    let top = layers.join("tree");
    fs::create_dir_all(top.join("empty"))?;
    fs::create_dir_all(top.join("bin"))?;
    fs::write(top.join("bin/tool"), "#!/bin/sh\n")?;
    fs::set_permissions(top.join("bin/tool"), fs::Permissions::from_mode(0o4750))?;
    fs::write(top.join("plain"), vec![7; 70_000])?;
    fs::write(top.join("nothing"), "")?;
    symlink("/nowhere/at all", top.join("link"))?;
    Ok(top)
}

fn objects_look_as_in_every_nix_store() -> Result<()> {
    let layers = Layers::new()?;
    let added = layers.below()?.arg("add").arg(tree(&layers)?).succeed()?;
    let object = layers.lower_dir().join(name_of(added.line()?)?);
    for (name, mode) in [
        ("", 0o555),
        ("empty", 0o555),
        ("bin", 0o555),
        ("bin/tool", 0o555),
        ("plain", 0o444),
        ("nothing", 0o444),
        ("link", 0o777),
    ] {
        let found = fs::symlink_metadata(object.join(name))?;
        ensure!(found.mode() & 0o7777 == mode, "{name}: mode {:o}", found.mode());
        ensure!(
            (found.mtime(), found.mtime_nsec()) == (1, 0),
            "{name}: modified {}",
            found.mtime()
        );
    }
    Ok(())
}

fn what_is_added_comes_out_as_it_was() -> Result<()> {
    let layers = Layers::new()?;
    let added = layers.below()?.arg("add").arg(tree(&layers)?).succeed()?;
    let archive = layers.below()?.args(["dump", added.line()?]).succeed()?.stdout;
    let out = layers.join("out");
    superpose()?.arg("restore").arg(&out).input(archive).succeed()?;
    ensure!(fs::read(out.join("plain"))? == vec![7; 70_000]);
    ensure!(fs::read_link(out.join("link"))? == Path::new("/nowhere/at all"));
    ensure!(fs::metadata(out.join("bin/tool"))?.mode() & 0o7777 == 0o555);
    ensure!(fs::read_dir(out.join("empty"))?.next().is_none());

    // A part of an object is an archive of its own; a link is not followed out of it.
    let part = format!("{}/bin/tool", added.line()?);
    let archive = layers.below()?.args(["dump", &part]).succeed()?.stdout;
    let tool = layers.join("tool");
    superpose()?
        .arg("restore")
        .arg(&tool)
        .input(archive.clone())
        .succeed()?;
    ensure!(fs::read(&tool)? == b"#!/bin/sh\n");
    let beyond = format!("{}/link/x", added.line()?);
    let refused = layers.below()?.args(["dump", &beyond]).exit_with(1)?;
    ensure!(refused.errors().contains("symbolic link"), "{refused}");
    // Nothing is overwritten.
    let again = superpose()?
        .arg("restore")
        .arg(&tool)
        .input(archive)
        .exit_with(1)?;
    ensure!(again.errors().contains("tool"), "{again}");
    Ok(())
}

fn an_archive_goes_in_as_it_came_out() -> Result<()> {
    let layers = Layers::new()?;
    let added = layers.below()?.arg("add").arg(tree(&layers)?).succeed()?;
    let archive = layers.below()?.args(["dump", added.line()?]).succeed()?.stdout;
    let other = Layers::new()?;
    let file = other.file("archive", &archive)?;
    let from_file = other
        .below()?
        .args(["add-nar", "--name", "tree"])
        .arg(&file)
        .succeed()?;
    let from_pipe = other
        .below()?
        .args(["add-nar", "--name", "tree", "--json", "-"])
        .input(archive.clone())
        .succeed()?;
    ensure!(from_file.line()? == added.line()?, "{from_file}");
    ensure!(from_pipe.json()?[0]["outcome"] == "already-valid", "{from_pipe}");

    for (what, bytes, why) in [
        ("empty", Vec::new(), "ends too early"),
        ("cut off", archive[..archive.len() - 8].to_vec(), "ends too early"),
        ("something else", b"#!/bin/sh\nexit 0\n".to_vec(), "archive"),
    ] {
        let refused = other
            .below()?
            .args(["add-nar", "--name", "bad"])
            .input(bytes)
            .exit_with(1)?;
        ensure!(refused.errors().contains(why), "{what}: {refused}");
    }
    ensure!(objects(&other.lower_dir())? == 1, "a bad archive left something");
    let all = other.below()?.args(["path-info", "--all"]).succeed()?;
    ensure!(all.text()?.lines().count() == 1, "{all}");
    Ok(())
}

fn a_path_is_named_in_many_ways() -> Result<()> {
    let layers = Layers::new()?;
    let path = text(&layers, "object", &[])?;
    let name = name_of(&path)?;
    symlink(&path, layers.join("result"))?;
    symlink("result", layers.join("again"))?;
    let physical = layers.lower_dir().join(name).into_os_string().into_string().ok();
    let link = layers.join("again").into_os_string().into_string().ok();
    for argument in [Some(path.clone()), Some(name.to_owned()), physical, link] {
        let argument = argument.context("the scratch directory has an odd name")?;
        let found = layers.below()?.args(["path-info", &argument]).succeed()?;
        ensure!(found.line()? == path, "{found}");
    }
    let input = format!("{path}\n\n{name}\n");
    let found = layers
        .below()?
        .args(["path-info", "--stdin"])
        .input(input)
        .succeed()?;
    ensure!(found.line()? == path, "each once: {found}");
    Ok(())
}

fn status_counts() -> Result<()> {
    let layers = Layers::new()?;
    let status = |code: i32| layers.below()?.args(["status", "--json"]).exit_with(code)?.json();
    // A local store is made when something is added; until then it is empty.
    ensure!(status(0)?["upper"]["objects"] == 0);
    text(&layers, "object", &[])?;
    let found = status(0)?;
    ensure!(
        found["kind"] == "local" && found["problems"] == json!([]) && found["mount"].is_null(),
        "{found}"
    );
    ensure!(
        found["upper"]["objects"] == 1 && found["upper"]["rows"] == 1,
        "{found}"
    );
    ensure!(found["url"] == *layers.lower_url().to_string_lossy(), "{found}");
    let shown = layers.below()?.arg("status").succeed()?;
    ensure!(shown.text()?.contains("problems         none"), "{shown}");
    Ok(())
}

fn the_environment_names_the_store() -> Result<()> {
    let layers = Layers::new()?;
    let object = text(&layers, "object", &[])?;
    let elsewhere = layers.join("elsewhere");
    for (environment, found) in [
        (&[("SUPERPOSE_STORE", layers.lower_url())][..], true),
        (&[("NIX_REMOTE", layers.lower_url())], true),
        (
            &[
                ("SUPERPOSE_STORE", layers.lower_url()),
                ("NIX_REMOTE", elsewhere.clone().into()),
            ],
            true,
        ),
        (
            &[
                ("SUPERPOSE_STORE", elsewhere.clone().into()),
                ("NIX_REMOTE", layers.lower_url()),
            ],
            false,
        ),
    ] {
        let mut info = superpose()?.args(["path-info", &object]);
        for (name, value) in environment {
            info = info.env(name, value);
        }
        info.exit_with(i32::from(!found))?;
    }
    // The option comes first.
    let option = layers.below()?.env("SUPERPOSE_STORE", &elsewhere);
    option.args(["path-info", &object]).succeed()?;
    let wrong = layers
        .below()?
        .env("NIX_STATE_DIR", "relative")
        .args(["path-info", &object])
        .exit_with(2)?;
    ensure!(
        wrong.errors().contains("NIX_STATE_DIR") && wrong.errors().contains("absolute"),
        "{wrong}"
    );
    Ok(())
}

fn directories_side_by_side_are_counted_with_few_descriptors() -> Result<()> {
    let layers = Layers::new()?;
    let wide = layers.join("wide");
    for number in 0..200 {
        std::fs::create_dir_all(wide.join(format!("{number}/below")))?;
    }
    layers.below()?.arg("add").arg(&wide).succeed()?;
    let status = Invocation::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"])
        .arg(program_path()?)
        .arg("--store")
        .arg(layers.lower_url())
        .args(["status", "--json"]);
    let status = status.succeed()?;
    ensure!(status.json()?.to_string().contains("\"objects\":1"), "{status}");
    Ok(())
}
