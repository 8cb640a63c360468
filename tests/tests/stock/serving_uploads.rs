// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stock clients send that is large, and what they send besides objects.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use superpose_tests::{Layers, Need, StockNix, Suite, stock_trials, superpose};

use crate::serving_builds::{layers_in_place, path_of};
use crate::serving_writes::{Pair, Serving, client_url, rows};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        an_upload_of_many_objects_arrives,
        build_logs_are_kept,
        a_repair_without_a_source_says_so,
        git_hashing_is_off,
        realisations_come_with_what_is_copied
    );
    stock_trials!(suite, [Need::Root], a_repair_is_handed_to_stock_nix);
}

/// More than two batches, and more words about them than both sockets hold: each side has to go on without the other.
const MANY: usize = 1500;

fn an_upload_of_many_objects_arrives(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let from = layers.join("from");
    let mut add = superpose()?.arg("--store").arg(&from).args(["--no-sync", "add"]);
    for number in 0..MANY {
        add = add.arg(layers.file(&format!("file-{number}"), format!("{number}\n"))?);
    }
    let paths = add.succeed()?;
    let paths: Vec<&str> = paths.text()?.lines().collect();
    ensure!(paths.len() == MANY);
    let (root, socket) = (layers.join("to"), layers.join("s"));
    let serving = Serving::start(superpose()?.arg("--store").arg(&root), &socket, &[])?;
    let url = client_url(&socket, &root);
    for _ in 0..2 {
        let copy = stock.nix(&from).args(["copy", "--no-check-sigs", "--to"]);
        copy.arg(&url).args(&paths).succeed()?;
        ensure!(rows(&root)?.len() == MANY);
    }
    serving.stop()?;
    superpose()?
        .arg("--store")
        .arg(&root)
        .args(["verify", "--check-contents"])
        .succeed()?;
    Ok(())
}

/// The logs of a store, at the same place for both.
fn logs(root: &Path, drv: &str) -> Result<OsString> {
    let name = Path::new(drv).file_name().context("a name")?;
    let name = name.to_str().context("UTF-8")?;
    let (fan, rest) = name.split_at(2);
    Ok(root.join("nix/var/log/nix/drvs").join(fan).join(rest).into())
}

fn build_logs_are_kept(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let expression = crate::beside::DERIVATIONS;
    let instantiate = |url: OsString| -> Result<String> {
        let run = stock.program("nix-instantiate").arg("--store").arg(url);
        let finished = run.args(["-E", expression]).succeed()?;
        Ok(finished
            .text()?
            .lines()
            .next()
            .context("a derivation")?
            .to_owned())
    };
    let drv = instantiate(pair.our_url())?;
    // Somebody who has the log, and copies it to both.
    let source = pair.layers.join("source");
    ensure!(instantiate(source.clone().into())? == drv);
    let log = logs(&source, &drv)?;
    fs::create_dir_all(Path::new(&log).parent().context("a directory")?)?;
    let text = "one line\nanother line\n";
    fs::write(&log, text)?;
    ensure!(instantiate(pair.their_url())? == drv);
    for url in [pair.our_url(), pair.their_url()] {
        let copy = stock.nix(&source).args(["store", "copy-log", "--to"]).arg(&url);
        copy.arg(&drv).succeed()?;
        let shown = stock.nix(&url).args(["log", &drv]).succeed()?;
        ensure!(shown.text()? == text, "{shown}");
    }
    // Plain with us; a stock client reads both.
    ensure!(fs::read_to_string(logs(pair.our_root(), &drv)?)? == text);
    let mut theirs = logs(pair.their_root(), &drv)?;
    theirs.push(".bz2");
    ensure!(Path::new(&theirs).is_file());
    Ok(())
}

fn a_repair_without_a_source_says_so(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let sound = pair.nix_store(&["--verify", "--check-contents", "--repair"])?;
    ensure!(sound.code() == Some(0), "{sound}");
    for root in [pair.our_root(), pair.their_root()] {
        let name = Path::new(pair.library()).file_name().context("a name")?;
        fs::write(root.join("nix/store").join(name), "damaged\n")?;
    }
    let failed = pair.nix_store(&["--verify", "--check-contents", "--repair"])?;
    ensure!(failed.code() == Some(1), "{failed}");
    let said = format!("cannot repair path '{}'", pair.library());
    ensure!(failed.errors().contains(&said), "{failed}");
    Ok(())
}

/// A client that may hash as git does; a server that may not.
fn git_hashing_is_off(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let file = pair.layers.file("plain", "contents\n")?;
    let file = file.to_str().context("UTF-8")?;
    for url in [pair.our_url(), pair.their_url()] {
        let add = stock.program("nix").arg("--store").arg(url);
        let add = add.args(["--extra-experimental-features", "git-hashing"]);
        let refused = add.args(["store", "add", "--mode", "git", file]).exit_with(1)?;
        // Some clients send what they hashed, and ours asks who vouches for that.
        let said = refused.errors();
        ensure!(
            said.contains("experimental Nix feature 'git-hashing' is disabled")
                || said.contains("lacks a signature by a trusted key")
                || said.contains("must use SHA-1"),
            "{refused}"
        );
    }
    pair.expect_equal()
}

/// A derivation's output that was damaged is built anew by the Nix that builds for clients.
fn a_repair_is_handed_to_stock_nix(stock: StockNix) -> Result<()> {
    let (layers, lower, url) = layers_in_place()?;
    let dir = layers.merged();
    let ground = layers.file("ground", "ground\n")?;
    superpose()?
        .arg("--store")
        .arg(&lower)
        .arg("add")
        .arg(ground)
        .succeed()?;
    let _mount = layers.mount()?;
    let socket = layers.join("s");
    let mut client = client_url(&socket, &layers.root());
    client.push("&store=");
    client.push(&dir);
    let delegate = path_of(stock, "nix-daemon")?;
    let serve = superpose()?.arg("--store").arg(&url);
    let serving = Serving::start(serve, &socket, &["--delegate", &delegate])?;
    let expression = r#"derivation { name = "built"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ]; }"#;
    let drv = stock.program("nix-instantiate").arg("--store").arg(&client);
    let drv = drv.args(["-E", expression]).succeed()?.line()?.to_owned();
    let output = stock.nix_store(&client).args(["-r", &drv]).succeed()?;
    let output = output.line()?.to_owned();
    fs::write(&output, "damaged\n")?;
    let verify = |client: &OsString| stock.nix_store(client).args(["--verify", "--check-contents"]);
    verify(&client).exit_with(1)?;
    verify(&client).arg("--repair").succeed()?;
    ensure!(fs::read_to_string(&output)? == "built\n");
    verify(&client).succeed()?;
    serving.stop()
}

/// With the feature that stock Nix has off by default, on both sides of a copy.
fn realisations_come_with_what_is_copied(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let dir = layers.join("from").join("nix/store");
    let url = |name: &str| {
        let mut url = OsString::from("local://?root=");
        url.push(layers.join(name));
        url.push("&store=");
        url.push(&dir);
        url
    };
    let with_feature = |program: &str, url: &OsString| {
        let run = stock.program(program).arg("--store").arg(url);
        run.args(["--extra-experimental-features", "ca-derivations"])
    };
    let expression = r#"derivation {
        name = "floating"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo floating > $out" ];
        __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
    }"#;
    let (from, to) = (url("from"), url("to"));
    let drv = with_feature("nix-instantiate", &from)
        .args(["-E", expression])
        .succeed()?;
    let drv = drv.line()?.to_owned();
    let wanted = format!("{drv}^*");
    let built = with_feature("nix", &from).args(["build", "--no-link", "--print-out-paths", &wanted]);
    let output = built.succeed()?.line()?.to_owned();
    // Only a store that was opened with the feature has a place for it.
    with_feature("nix-store", &to).arg("--verify").succeed()?;
    let socket = layers.join("s");
    let serving = Serving::start(superpose()?.arg("--store").arg(&to), &socket, &[])?;
    let mut client = client_url(&socket, &layers.join("to"));
    client.push("&store=");
    client.push(&dir);
    let copy = |what: &str| {
        let copy = with_feature("nix", &from).args(["copy", "--no-check-sigs", "--to"]);
        copy.arg(&client).arg(what).succeed()
    };
    for _ in 0..2 {
        copy(&wanted)?;
    }
    copy(&drv)?;
    let recorded = |name: &str| -> Result<Vec<String>> {
        let database = rusqlite::Connection::open(layers.join(name).join("nix/var/nix/db/db.sqlite"))?;
        let mut select = database.prepare(
            "select drvPath || ' ' || outputName || ' ' || path from Realisations join ValidPaths on outputPath = ValidPaths.id",
        )?;
        let rows = select.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let told = recorded("to")?;
    ensure!(told == recorded("from")?, "{told:?}");
    ensure!(told.len() == 1 && told[0].ends_with(&output), "{told:?}");
    serving.stop()
}
