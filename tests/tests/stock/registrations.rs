// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of paths as text: written, loaded, and registered for objects that were put there by hand.

use std::fs;

use anyhow::{Context, Result, ensure};
use superpose_tests::{Invocation, Need, StockNix, Suite, Tree, stock_trials};

use crate::beside::{expect_clean, mounted, rows};
use crate::moving::{at, change, database, look, store};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        texts_of_registrations_are_the_same_byte_for_byte,
        texts_are_loaded_by_the_other,
        objects_put_there_by_hand_are_registered_alike
    );
    stock_trials!(
        suite,
        [Need::Root],
        loading_keeps_signatures,
        a_registration_below_is_not_touched
    );
}

fn texts_of_registrations_are_the_same_byte_for_byte(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let ours = layers.below()?.arg("dump-db").succeed()?;
    let theirs = stock.nix_store(layers.lower()).arg("--dump-db").succeed()?;
    ensure!(
        ours.stdout == theirs.stdout && !ours.stdout.is_empty(),
        "{ours}\n{theirs}"
    );
    for path in &all {
        let ours = layers.below()?.args(["dump-db", path]).succeed()?;
        let theirs = stock
            .nix_store(layers.lower())
            .args(["--dump-db", path])
            .succeed()?;
        ensure!(ours.stdout == theirs.stdout, "{ours}\n{theirs}");
    }
    Ok(())
}

fn texts_are_loaded_by_the_other(stock: StockNix) -> Result<()> {
    let (layers, _) = store(stock)?;
    let text = layers.below()?.arg("dump-db").succeed()?.stdout;
    let mut found = Vec::new();
    for name in ["ours", "theirs"] {
        // The objects have to be there, since derivations are read.
        let root = layers.join(name);
        fs::create_dir_all(root.join("nix"))?;
        Invocation::new("cp")
            .arg("-a")
            .arg(layers.lower_dir())
            .arg(root.join("nix/store"))
            .succeed()?;
        if name == "ours" {
            at(&root)?.arg("load-db").input(text.clone()).succeed()?;
        } else {
            stock
                .nix_store(&root)
                .arg("--load-db")
                .input(text.clone())
                .succeed()?;
        }
        change(&root, "update ValidPaths set registrationTime = 1")?;
        found.push(database(&root)?);
        expect_clean(stock.nix_store(&root))?;
    }
    ensure!(found[0] == found[1], "{found:#?}");
    Ok(())
}

fn objects_put_there_by_hand_are_registered_alike(stock: StockNix) -> Result<()> {
    let (layers, _) = store(stock)?;
    let path = layers.add_below("by-hand", "by hand\n", &[])?;
    let name = path.trim_start_matches("/nix/store/");
    let (hash, size) = {
        let dump = layers.below()?.args(["dump-db", &path]).succeed()?;
        let mut lines = dump.text()?.lines().skip(1);
        (
            lines.next().unwrap_or_default().to_owned(),
            lines.next().unwrap_or_default().to_owned(),
        )
    };
    let mut found = Vec::new();
    for (program, hashed) in [
        ("ours", true),
        ("ours", false),
        ("theirs", true),
        ("theirs", false),
    ] {
        // That of trixie looks for the object in /nix/store, whatever the store is.
        if program == "theirs" && stock == StockNix::Trixie {
            continue;
        }
        let root = layers.join(format!("{program}-{hashed}"));
        fs::create_dir_all(root.join("nix/store"))?;
        fs::write(root.join("nix/store").join(name), "by hand\n")?;
        let (text, more) = if hashed {
            (format!("{path}\n{hash}\n{size}\n\n0\n"), &["--hash-given"][..])
        } else {
            (format!("{path}\n\n0\n"), &[][..])
        };
        if program == "ours" {
            at(&root)?
                .arg("register-validity")
                .args(more)
                .input(text)
                .succeed()?;
        } else {
            stock
                .nix_store(&root)
                .arg("--register-validity")
                .args(more)
                .input(text)
                .succeed()?;
        }
        change(&root, "update ValidPaths set registrationTime = 1")?;
        expect_clean(stock.nix_store(&root))?;
        found.push((database(&root)?, look(&root)?));
    }
    let (first, rest) = found.split_first().context("a store")?;
    ensure!(rest.iter().all(|other| other == first), "{found:#?}");
    Ok(())
}

/// Stock forgets who signed a path that is valid already, and how it follows from its content.
fn loading_keeps_signatures(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let own = mounted.layers.add_above("own", "own\n", &[])?;
    let text = mounted.superpose()?.arg("dump-db").succeed()?.stdout;
    let known = || {
        mounted
            .superpose()?
            .args(["path-info", "--json", &own])
            .succeed()?
            .json()
    };
    let before = known()?;
    mounted
        .superpose()?
        .arg("load-db")
        .input(text.clone())
        .succeed()?;
    ensure!(known()? == before && before[&own]["ca"].is_string(), "{before}");
    mounted.nix_store(stock).arg("--load-db").input(text).succeed()?;
    ensure!(known()?[&own]["ca"].is_null(), "{}", known()?);
    Ok(())
}

/// Stock copies the object up to set its modes and times.
fn a_registration_below_is_not_touched(stock: StockNix) -> Result<()> {
    let name = "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt";
    let (mounted, ()) = mounted(|layers| {
        fs::create_dir_all(layers.lower_dir())?;
        fs::write(layers.lower_dir().join(name), "hello\n")?;
        Ok(())
    })?;
    let below = Tree::of(&mounted.layers.lower())?;
    let text = format!("/nix/store/{name}\n\n0\n");
    mounted
        .superpose()?
        .arg("register-validity")
        .input(text.clone())
        .succeed()?;
    ensure!(mounted.layers.upper_names()?.is_empty() && rows(&mounted)? == 1);
    below.expect_unchanged(&mounted.layers.lower())?;
    if stock == StockNix::Sid {
        let again = mounted
            .nix_store(stock)
            .args(["--register-validity", "--reregister"]);
        again.input(text).succeed()?;
        ensure!(mounted.layers.upper_names()? == [name]);
    }
    Ok(())
}
