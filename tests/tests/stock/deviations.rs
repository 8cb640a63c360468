// SPDX-License-Identifier: MIT OR Apache-2.0
//! What superpose does otherwise than stock Nix, on purpose: each trial shows both. DEVIATIONS.md lists them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use superpose_tests::{Invocation, Layers, Need, StockNix, Suite, Tree, stock_trials, superpose};

use crate::beside::{layered, lines, mounted, rows};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        wrong_usage_has_a_status_of_its_own,
        outputs_are_asked_of_derivations_only,
        json_has_two_more_keys,
        restored_files_look_as_in_a_store
    );
    stock_trials!(
        suite,
        [Need::Root],
        questions_write_nothing,
        adding_what_is_valid_below_writes_nothing,
        references_that_are_valid_only_below_are_copied,
        all_paths_are_those_of_both_layers,
        outputs_of_derivations_below_are_known,
        a_store_that_is_not_mounted_is_left_alone,
        urls_of_overlay_stores_are_in_full,
        the_lower_store_is_not_even_opened_for_writing,
        a_log_below_is_read_though_the_store_is_read_only,
        an_object_that_is_gone_below_is_a_fault
    );
}

fn wrong_usage_has_a_status_of_its_own(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("object", "object\n", &[])?;
    for arguments in [
        &["--query", "--no-such-option"][..],
        &["--query", "--hash", "/etc/passwd"],
    ] {
        stock.nix_store(layers.lower()).args(arguments).exit_with(1)?;
    }
    layers.below()?.args(["query", "--no-such-option"]).exit_with(2)?;
    layers
        .below()?
        .args(["query", "--hash", "/etc/passwd"])
        .exit_with(2)?;
    // What was understood and cannot be done has the same status with both.
    let nowhere = "/nix/store/00000000000000000000000000000000-x";
    stock
        .nix_store(layers.lower())
        .args(["--check-validity", nowhere])
        .exit_with(1)?;
    layers.below()?.args(["check-validity", nowhere]).exit_with(1)?;
    Ok(())
}

fn outputs_are_asked_of_derivations_only(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let theirs = stock
        .nix_store(layers.lower())
        .args(["--query", "--outputs", &path])
        .succeed()?;
    ensure!(theirs.line()? == path, "{theirs}");
    let ours = layers.below()?.args(["query", "--outputs", &path]).exit_with(2)?;
    ensure!(ours.errors().contains("is not a derivation"), "{ours}");
    Ok(())
}

fn json_has_two_more_keys(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let keys = |info: Invocation| -> Result<Vec<String>> {
        let info = info.args(["path-info", "--json", &path]).succeed()?.json()?;
        let info = info[&path].as_object().context("an object")?;
        Ok(info.keys().cloned().collect())
    };
    let mut ours = keys(layers.below()?)?;
    let theirs = keys(stock.nix(layers.lower()))?;
    ours.retain(|key| !theirs.contains(key));
    let newer = if stock == StockNix::Trixie {
        &["storeDir", "version"][..]
    } else {
        &[]
    };
    ensure!(
        ours == [&["layer", "metadata"], newer].concat(),
        "{ours:?}, {theirs:?}"
    );
    Ok(())
}

fn restored_files_look_as_in_a_store(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let file = layers.file("file", "text\n")?;
    let archive = stock
        .program("nix-store")
        .arg("--dump")
        .arg(&file)
        .succeed()?
        .stdout;
    let (theirs, ours) = (layers.join("theirs"), layers.join("ours"));
    stock
        .program("nix-store")
        .arg("--restore")
        .arg(&theirs)
        .input(archive.clone())
        .succeed()?;
    superpose()?.arg("restore").arg(&ours).input(archive).succeed()?;
    let look = |path: &Path| -> Result<_> {
        let found = fs::metadata(path)?;
        Ok((found.mode() & 0o222, found.mtime()))
    };
    ensure!(look(&theirs)?.0 != 0 && look(&theirs)?.1 != 1);
    ensure!(look(&ours)? == (0, 1));
    Ok(())
}

fn questions_write_nothing(stock: StockNix) -> Result<()> {
    let (mounted, [library, program]) = layered()?;
    mounted
        .superpose()?
        .args(["check-validity", &library, &program])
        .succeed()?;
    mounted
        .superpose()?
        .args(["path-info", "-r", "--json", &program])
        .succeed()?;
    mounted.superpose()?.args(["query", "-R", &program]).succeed()?;
    ensure!(rows(&mounted)? == 0);
    mounted
        .nix_store(stock)
        .args(["--check-validity", &program])
        .succeed()?;
    ensure!(rows(&mounted)? == 2);
    Ok(())
}

fn adding_what_is_valid_below_writes_nothing(stock: StockNix) -> Result<()> {
    let (mounted, _) = layered()?;
    let file = mounted.layers.join("ground");
    mounted.superpose()?.arg("add").arg(&file).succeed()?;
    ensure!(rows(&mounted)? == 0);
    mounted.nix_store(stock).arg("--add").arg(&file).succeed()?;
    ensure!(rows(&mounted)? == 1);
    Ok(())
}

fn references_that_are_valid_only_below_are_copied(stock: StockNix) -> Result<()> {
    let (mounted, [library, program]) = layered()?;
    // The archive of an object that refers below, from a store that has it all.
    let own = mounted.layers.below()?.args(["add", "--reference", &program]);
    let elsewhere = Layers::new()?;
    Invocation::new("cp")
        .arg("-a")
        .arg(mounted.layers.lower())
        .arg(elsewhere.lower())
        .succeed()?;
    drop(own);
    let own = elsewhere.add_below("own", "own\n", &[&program])?;
    let exported = stock
        .nix_store(elsewhere.lower())
        .args(["--export", &own])
        .succeed()?
        .stdout;
    let refused = mounted
        .nix_store(stock)
        .arg("--import")
        .input(exported)
        .exit_with(1)?;
    ensure!(refused.errors().contains("is not valid"), "{refused}");
    let archive = elsewhere.below()?.args(["dump", &own]).succeed()?.stdout;
    let add = mounted
        .superpose()?
        .args(["add-nar", "--name", "own", "--reference", &program]);
    let added = add.input(archive).succeed()?;
    ensure!(added.line()? == own && rows(&mounted)? == 3, "{added}");
    mounted
        .nix_store(stock)
        .args(["--check-validity", &own, &library])
        .succeed()?;
    mounted.expect_whole(stock)
}

fn all_paths_are_those_of_both_layers(stock: StockNix) -> Result<()> {
    let (mounted, _) = layered()?;
    let own = mounted.layers.add_above("own", "own\n", &[])?;
    let theirs = stock
        .nix(mounted.layers.url())
        .args(["path-info", "--all"])
        .succeed()?;
    ensure!(theirs.line()? == own, "{theirs}");
    let ours = mounted.superpose()?.args(["path-info", "--all"]).succeed()?;
    ensure!(lines(&ours)?.len() == 4, "{ours}");
    Ok(())
}

fn outputs_of_derivations_below_are_known(stock: StockNix) -> Result<()> {
    let expression = r#"derivation { name = "x"; system = "x"; builder = "/bin/sh"; }"#;
    let (mounted, derivation) =
        mounted(|layers| crate::beside::instantiate(stock, &layers.lower(), expression))?;
    mounted.superpose()?.arg("verify").succeed()?;
    let ours = mounted
        .superpose()?
        .args(["query", "--outputs", &derivation])
        .succeed()?;
    ensure!(ours.line()?.ends_with("-x"), "{ours}");
    // Stock reads the file of the derivation instead; and where it asks the database, it asks the upper one alone.
    ensure!(rows(&mounted)? == 0);
    Ok(())
}

fn a_store_that_is_not_mounted_is_left_alone(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("ground", "ground\n", &[])?;
    fs::create_dir_all(layers.upper())?;
    layers.superpose()?.args(["path-info", "--all"]).exit_with(1)?;
    layers
        .superpose()?
        .arg("add")
        .arg(layers.join("ground"))
        .exit_with(1)?;
    ensure!(!layers.root().exists(), "superpose left something");
    let refused = stock
        .nix(layers.url())
        .args(["path-info", "--all"])
        .exit_with(1)?;
    ensure!(refused.errors().contains("mounted incorrectly"), "{refused}");
    ensure!(layers.database().exists(), "stock left nothing");
    Ok(())
}

fn urls_of_overlay_stores_are_in_full(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let verb = if stock == StockNix::Sid { "info" } else { "ping" };
    let theirs = stock
        .nix(mounted.layers.url())
        .args(["store", verb, "--json"])
        .succeed()?
        .json()?;
    ensure!(theirs["url"] == "local-overlay://", "{theirs}");
    let ours = mounted
        .superpose()?
        .args(["status", "--json"])
        .succeed()?
        .json()?;
    let url = ours["url"].as_str().unwrap_or_default();
    ensure!(
        url.contains("lower-store=local://?root%3D") && url.contains("&upper-layer="),
        "{ours}"
    );
    // Stock understands it.
    stock.nix(url).args(["path-info", "--all"]).succeed()?;
    Ok(())
}

fn the_lower_store_is_not_even_opened_for_writing(stock: StockNix) -> Result<()> {
    let (mounted, [_, program]) = layered()?;
    // Stock makes what it misses.
    let missing = mounted.layers.lower().join("nix/var/nix/temproots");
    Invocation::new("rm").arg("-r").arg(&missing).succeed()?;
    let before = Tree::of(&mounted.layers.lower())?;
    mounted.superpose()?.args(["ensure", &program]).succeed()?;
    mounted
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    before.expect_unchanged(&mounted.layers.lower())?;
    mounted
        .nix_store(stock)
        .args(["--check-validity", &program])
        .succeed()?;
    ensure!(missing.exists(), "stock wrote nothing");
    Ok(())
}

fn a_log_below_is_read_though_the_store_is_read_only(stock: StockNix) -> Result<()> {
    let (mounted, _) = layered()?;
    let keeper = Connection::open(mounted.layers.lower_database())?;
    keeper.query_row("select count(*) from ValidPaths", [], |_| Ok(()))?;
    let late = mounted.layers.add_below("late", "late\n", &[])?;
    let url = mounted
        .layers
        .url_over(format!("{}?read-only=true", mounted.layers.lower().display()).as_ref());
    let asked = stock
        .nix_store(&url)
        .args(["--extra-experimental-features", "read-only-local-store"]);
    let theirs = asked.args(["--check-validity", &late]).exit_with(1)?;
    ensure!(theirs.errors().contains("is not valid"), "{theirs}");
    superpose()?
        .arg("--store")
        .arg(&url)
        .args(["check-validity", &late])
        .succeed()?;
    Ok(())
}

fn an_object_that_is_gone_below_is_a_fault(stock: StockNix) -> Result<()> {
    let (mounted, [library, program]) = layered()?;
    mounted.superpose()?.args(["ensure", &program]).succeed()?;
    let object = mounted
        .layers
        .lower_dir()
        .join(program.trim_start_matches("/nix/store/"));
    Invocation::new("rm").arg("-rf").arg(&object).succeed()?;
    mounted.superpose()?.arg("remount").succeed()?;
    // Stock forgets the row above, and at the next question copies it up again: the object is valid, and gone.
    mounted.nix_store(stock).arg("--verify").succeed()?;
    ensure!(rows(&mounted)? == 1);
    mounted
        .nix_store(stock)
        .args(["--check-validity", &program])
        .succeed()?;
    ensure!(rows(&mounted)? == 2);
    let ours = mounted
        .superpose()?
        .args(["verify", "--json"])
        .exit_with(1)?
        .json()?;
    ensure!(
        ours["faults"][0]["fault"] == "missing" && ours["faults"][0]["path"] == *program,
        "{ours}"
    );
    ensure!(
        ours["forgotten"] == serde_json::json!([]) && rows(&mounted)? == 2,
        "{ours}"
    );
    let says = mounted.superpose()?.arg("verify").exit_with(1)?;
    ensure!(
        says.text()?
            .contains("is missing, though it is valid in the lower store"),
        "{says}"
    );
    mounted
        .superpose()?
        .args(["check-validity", &library])
        .succeed()?;
    Ok(())
}
