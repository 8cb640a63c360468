// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closures to and from the stores of daemons.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use superpose_tests::{Invocation, Layers, Need, StockDaemon, StockNix, Suite, stock_trials, superpose};

use crate::beside::{DERIVATIONS, expect_clean, instantiate, lines, mounted, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        closures_go_to_a_stock_daemon,
        closures_come_from_a_stock_daemon,
        what_a_stock_daemon_refuses_is_said,
        a_damaged_object_goes_nowhere,
        a_damaged_object_is_not_taken
    );
    stock_trials!(suite, [Need::Root], an_overlay_store_takes_and_gives);
}

/// A local store with objects of every kind; all their paths.
fn store(stock: StockNix) -> Result<(Layers, Vec<String>)> {
    let layers = Layers::new()?;
    let library = layers.add_below("library", "library\n", &[])?;
    layers.add_tree_below("program", &[&library])?;
    layers.below()?.arg("add").arg(tree(&layers, "tree")?).succeed()?;
    let large = layers.join("large");
    fs::create_dir(&large)?;
    fs::write(large.join("file"), vec![42; 5 << 20])?;
    layers.below()?.arg("add").arg(&large).succeed()?;
    instantiate(stock, &layers.lower(), DERIVATIONS)?;
    let all = layers.below()?.args(["path-info", "--all"]).succeed()?;
    let all = lines(&all)?.into_iter().collect();
    Ok((layers, all))
}

fn url(socket: &Path) -> OsString {
    let mut url = OsString::from("unix://");
    url.push(socket);
    url
}

/// What is known of all paths, less when they came.
fn rows(root: &Path) -> Result<Vec<String>> {
    let database = Connection::open(root.join("nix/var/nix/db/db.sqlite"))?;
    let mut select = database.prepare(
        "select path || ' ' || hash || ' ' || narSize || ' ' || ifnull(ca, '-') || ' ' || ifnull(deriver, '-') || ' ' ||
         (select count(*) from Refs where referrer = id) from ValidPaths order by path",
    )?;
    let found = select.query_map([], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn at(root: &Path) -> Result<Invocation> {
    Ok(superpose()?.arg("--store").arg(root))
}

fn closures_go_to_a_stock_daemon(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let (socket, there) = (layers.join("socket"), layers.join("there"));
    let _daemon = StockDaemon::start(stock, &there, &socket)?;
    let copy = || -> Result<Invocation> {
        let copy = layers.below()?.arg("copy").arg("--to").arg(url(&socket));
        Ok(copy.arg("--json").args(&all))
    };
    let copied = copy()?.succeed()?.json()?;
    let paths = copied["copied"].as_array().context("a list")?;
    ensure!(paths.len() == all.len(), "{copied}");
    ensure!(rows(&there)? == rows(&layers.lower())?);
    expect_clean(stock.nix_store(&there))?;
    // What is there already does not travel.
    let copied = copy()?.succeed()?.json()?;
    ensure!(
        copied["copied"] == serde_json::json!([]) && copied["bytes"] == 0,
        "{copied}"
    );
    Ok(())
}

fn closures_come_from_a_stock_daemon(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let (socket, here) = (layers.join("socket"), layers.join("here"));
    let _daemon = StockDaemon::start(stock, layers.lower(), &socket)?;
    let copy = || -> Result<Invocation> {
        let copy = at(&here)?.arg("copy").arg("--from").arg(url(&socket));
        Ok(copy.arg("--json").args(&all))
    };
    let copied = copy()?.succeed()?.json()?;
    ensure!(
        copied["copied"]
            .as_array()
            .is_some_and(|paths| paths.len() == all.len()),
        "{copied}"
    );
    ensure!(rows(&here)? == rows(&layers.lower())?);
    at(&here)?.args(["verify", "--check-contents"]).succeed()?;
    expect_clean(stock.nix_store(&here))?;
    let copied = copy()?.succeed()?.json()?;
    ensure!(copied["copied"] == serde_json::json!([]), "{copied}");
    // What is not valid there is said by its name.
    let nowhere = "/nix/store/00000000000000000000000000000000-nowhere";
    let copy = at(&here)?
        .arg("copy")
        .arg("--from")
        .arg(url(&socket))
        .arg(nowhere);
    let refused = copy.exit_with(1)?;
    ensure!(
        refused
            .errors()
            .contains("00000000000000000000000000000000-nowhere' is not valid"),
        "{refused}"
    );
    Ok(())
}

fn what_a_stock_daemon_refuses_is_said(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    // As if the objects were built elsewhere: nothing vouches for them.
    Connection::open(layers.lower_database())?.execute_batch("update ValidPaths set ca = null")?;
    let (socket, there) = (layers.join("socket"), layers.join("there"));
    let _daemon = StockDaemon::start(stock, &there, &socket)?;
    let copy = || -> Result<Invocation> {
        Ok(layers
            .below()?
            .arg("copy")
            .arg("--to")
            .arg(url(&socket))
            .args(&all))
    };
    let refused = copy()?.exit_with(1)?;
    ensure!(
        refused.errors().contains("lacks a signature by a trusted key"),
        "{refused}"
    );
    ensure!(rows(&there)?.is_empty());
    copy()?.arg("--no-check-sigs").succeed()?;
    ensure!(rows(&there)?.len() == all.len());
    // Nobody there at all.
    let copy = layers
        .below()?
        .arg("copy")
        .args(["--to", "unix:///nowhere/socket"])
        .args(&all);
    let refused = copy.exit_with(1)?;
    ensure!(
        refused
            .errors()
            .contains("cannot reach the Nix daemon at '/nowhere/socket'"),
        "{refused}"
    );
    Ok(())
}

/// Changes the large object of a store behind its back; its path.
fn damage(layers: &Layers, all: &[String]) -> Result<String> {
    let large = all
        .iter()
        .find(|path| path.ends_with("-large"))
        .context("the large one")?;
    let name = Path::new(large).file_name().context("a name")?;
    let mut bytes = vec![42; 5 << 20];
    bytes[4 << 20] = 41;
    fs::write(layers.lower_dir().join(name).join("file"), bytes)?;
    Ok(large.clone())
}

fn a_damaged_object_goes_nowhere(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let large = damage(&layers, &all)?;
    let (socket, there) = (layers.join("socket"), layers.join("there"));
    let _daemon = StockDaemon::start(stock, &there, &socket)?;
    let copy = layers
        .below()?
        .arg("copy")
        .arg("--to")
        .arg(url(&socket))
        .arg("--no-check-sigs");
    let refused = copy.args(&all).exit_with(1)?;
    let said = refused.errors();
    ensure!(
        said.contains(&large) && (said.contains("has changed") || said.contains("mismatch")),
        "{refused}"
    );
    ensure!(rows(&there)?.iter().all(|row| !row.contains(&large)));
    expect_clean(stock.nix_store(&there))
}

fn a_damaged_object_is_not_taken(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let large = damage(&layers, &all)?;
    let (socket, here) = (layers.join("socket"), layers.join("here"));
    let _daemon = StockDaemon::start(stock, layers.lower(), &socket)?;
    let copy = at(&here)?
        .arg("copy")
        .arg("--from")
        .arg(url(&socket))
        .arg("--no-check-sigs");
    let refused = copy.args(&all).exit_with(1)?;
    ensure!(refused.errors().contains(&large), "{refused}");
    ensure!(rows(&here)?.iter().all(|row| !row.contains(&large)));
    at(&here)?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}

fn an_overlay_store_takes_and_gives(stock: StockNix) -> Result<()> {
    let (elsewhere, all) = store(stock)?;
    let socket = elsewhere.join("socket");
    let daemon = StockDaemon::start(stock, elsewhere.lower(), &socket)?;
    // The overlay store has the library below already.
    let (mounted, library) = mounted(|layers| layers.add_below("library", "library\n", &[]))?;
    let copy = mounted
        .superpose()?
        .arg("copy")
        .arg("--from")
        .arg(url(&socket))
        .args(&all);
    copy.succeed()?;
    ensure!(
        mounted
            .layers
            .upper_names()?
            .iter()
            .all(|name| !library.ends_with(name))
    );
    mounted.expect_whole(stock)?;
    drop(daemon);
    let (socket, there) = (elsewhere.join("socket-2"), elsewhere.join("there"));
    let _daemon = StockDaemon::start(stock, &there, &socket)?;
    let copy = mounted
        .superpose()?
        .arg("copy")
        .arg("--to")
        .arg(url(&socket))
        .args(&all);
    copy.succeed()?;
    ensure!(rows(&there)? == rows(&elsewhere.lower())?);
    expect_clean(stock.nix_store(&there))
}
