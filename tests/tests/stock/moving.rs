// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects and what is known of them between stores: what the one passes on, the other takes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use superpose_tests::{
    Finished, Invocation, Layers, Need, StockNix, Suite, Tree, stock_trials, superpose, superpose_crashing_at,
};

use crate::beside::{DERIVATIONS, expect_clean, infos, instantiate, layered, lines, mounted, rows, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        streams_are_the_same_byte_for_byte,
        streams_are_imported_by_the_other,
        copies_by_both_are_the_same,
        signatures_by_both_are_the_same,
        unsigned_objects_are_refused_by_both
    );
    stock_trials!(
        suite,
        [Need::Root],
        an_overlay_store_passes_on_what_is_below,
        an_overlay_store_takes_what_stock_exports
    );
    stock_trials!(
        suite,
        [Need::Root, Need::CrashPoints],
        stock_takes_over_where_an_import_was_killed
    );
}

/// A local store with objects of every kind; all their paths.
pub(crate) fn store(stock: StockNix) -> Result<(Layers, Vec<String>)> {
    let layers = Layers::new()?;
    let library = layers.add_below("library", "library\n", &[])?;
    layers.add_tree_below("program", &[&library])?;
    layers.below()?.arg("add").arg(tree(&layers, "tree")?).succeed()?;
    instantiate(stock, &layers.lower(), DERIVATIONS)?;
    let all = layers.below()?.args(["path-info", "--all"]).succeed()?;
    let all = lines(&all)?.into_iter().collect();
    Ok((layers, all))
}

/// A store of our own under another directory.
pub(crate) fn at(root: &Path) -> Result<Invocation> {
    Ok(superpose()?.arg("--store").arg(root))
}

fn streams_are_the_same_byte_for_byte(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let ours = layers.below()?.arg("export").args(&all).succeed()?;
    let theirs = stock
        .nix_store(layers.lower())
        .arg("--export")
        .args(&all)
        .succeed()?;
    ensure!(
        ours.stdout.len() > 70_000 && ours.stdout == theirs.stdout,
        "streams differ"
    );
    let last = all.last().context("a path")?;
    let ours = layers.below()?.args(["export", "--recursive", last]).succeed()?;
    let closure = stock.nix_store(layers.lower()).args(["-qR", last]).succeed()?;
    let theirs = stock
        .nix_store(layers.lower())
        .arg("--export")
        .args(lines(&closure)?);
    ensure!(
        ours.stdout == theirs.succeed()?.stdout,
        "streams of a closure differ"
    );
    Ok(())
}

fn streams_are_imported_by_the_other(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    let stream = layers.below()?.arg("export").args(&all).succeed()?.stdout;
    let (ours, theirs) = (layers.join("ours"), layers.join("theirs"));
    let by_us = at(&ours)?.arg("import").input(stream.clone()).succeed()?;
    let by_them = stock
        .nix_store(&theirs)
        .arg("--import")
        .input(stream.clone())
        .succeed()?;
    ensure!(by_us.stdout == by_them.stdout, "{by_us}\n{by_them}");
    ensure!(
        look(&ours)? == look(&theirs)?,
        "{}\n{}",
        look(&ours)?,
        look(&theirs)?
    );
    let dump = |root: &Path| stock.nix_store(root).arg("--dump-db").succeed();
    ensure!(dump(&ours)?.stdout == dump(&theirs)?.stdout);
    for root in [&ours, &theirs] {
        expect_clean(stock.nix_store(root))?;
        at(root)?.args(["verify", "--check-contents"]).succeed()?;
        // Again, by the other one.
        at(root)?.arg("import").input(stream.clone()).succeed()?;
        stock
            .nix_store(root)
            .arg("--import")
            .input(stream.clone())
            .succeed()?;
    }
    Ok(())
}

/// What a database says of all its paths, without their numbers.
pub(crate) fn database(root: &Path) -> Result<Vec<String>> {
    let database = Connection::open(root.join("nix/var/nix/db/db.sqlite"))?;
    let mut select = database.prepare(
        "select path || ' ' || hash || ' ' || registrationTime || ' ' || ifnull(deriver, '-') || ' ' || narSize || ' ' ||
         ifnull(ultimate, '-') || ' ' || ifnull(sigs, '-') || ' ' || ifnull(ca, '-') || ' ' ||
         ifnull((select group_concat(name) from (select p.path as name from Refs join ValidPaths p on p.id = reference
                 where referrer = v.id order by p.path)), '-') || ' ' ||
         ifnull((select group_concat(output) from (select id || path as output from DerivationOutputs
                 where drv = v.id order by id)), '-')
         from ValidPaths v order by path",
    )?;
    let rows = select.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Kinds, modes, times and names of everything in a store; the contents are compared by hashes.
pub(crate) fn look(root: &Path) -> Result<String> {
    let find = Invocation::new("find")
        .arg(".")
        .current_dir(&root.join("nix/store"));
    let find = find.args([
        "-mindepth",
        "1",
        "-not",
        "-path",
        "./.links*",
        "-printf",
        "%P %y %m %u %T@ %l\n",
    ]);
    Ok(lines(&find.succeed()?)?
        .into_iter()
        .collect::<Vec<_>>()
        .join("\n"))
}

pub(crate) fn change(root: &Path, statement: &str) -> Result<()> {
    let database = Connection::open(root.join("nix/var/nix/db/db.sqlite"))?;
    database.execute_batch(statement)?;
    Ok(())
}

fn copies_by_both_are_the_same(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    change(
        &layers.lower(),
        "update ValidPaths set ultimate = 1, registrationTime = 12345, sigs = 'k:YWJj'",
    )?;
    let (ours, theirs) = (layers.join("ours"), layers.join("theirs"));
    // In two steps: the second finds something there.
    for paths in [&all[..1], &all[..]] {
        let copy = layers.below()?.arg("copy").arg("--to").arg(&ours);
        copy.args(paths).succeed()?;
        let copy = stock.nix("dummy://").args(["copy", "--from"]).arg(layers.lower());
        copy.arg("--to").arg(&theirs).args(paths).succeed()?;
    }
    ensure!(
        database(&ours)? == database(&theirs)?,
        "{:#?}\n{:#?}",
        database(&ours)?,
        database(&theirs)?
    );
    ensure!(database(&ours)?[0].contains(" 12345 "), "{:?}", database(&ours)?);
    ensure!(
        look(&ours)? == look(&theirs)?,
        "{}\n{}",
        look(&ours)?,
        look(&theirs)?
    );
    expect_clean(stock.nix_store(&ours))?;
    // And back, by the other option.
    let back = layers.join("back");
    let copy = at(&back)?
        .arg("copy")
        .arg("--from")
        .arg(&theirs)
        .args(&all)
        .arg("--json");
    let copied = copy.succeed()?.json()?;
    ensure!(
        copied["copied"]
            .as_array()
            .is_some_and(|paths| paths.len() == all.len()),
        "{copied}"
    );
    ensure!(database(&back)? == database(&theirs)?);
    Ok(())
}

/// A key pair by that Nix: the file of the secret key, and the public key.
fn key(stock: StockNix, layers: &Layers) -> Result<(std::path::PathBuf, String)> {
    let nix = || {
        stock
            .program("nix")
            .args(["--extra-experimental-features", "nix-command", "key"])
    };
    let secret = nix()
        .args(["generate-secret", "--key-name", "test-1"])
        .succeed()?
        .stdout;
    let public = nix()
        .arg("convert-secret-to-public")
        .input(secret.clone())
        .succeed()?;
    Ok((layers.file("secret", secret)?, public.line()?.to_owned()))
}

/// As if the objects were built elsewhere: nothing vouches for them.
const INPUT_ADDRESSED: &str = "update ValidPaths set ca = null";

fn signatures_by_both_are_the_same(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    change(&layers.lower(), INPUT_ADDRESSED)?;
    let (secret, public) = key(stock, &layers)?;
    let signatures = || -> Result<Vec<Option<String>>> {
        let database = Connection::open(layers.lower_database())?;
        let mut select = database.prepare("select sigs from ValidPaths order by path")?;
        let found = select.query_map([], |row| row.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    };
    let verified_by_us = |needed: &str| -> Result<Finished> {
        let verify = layers.below()?.args(["verify", "--sigs-needed", needed]);
        verify.args(["--trusted-public-keys", &public]).run()
    };
    let verified_by_them = |needed: &str| {
        let verify = stock
            .nix(layers.lower())
            .args(["store", "verify", "--all", "--sigs-needed", needed]);
        verify.args(["--trusted-public-keys", &public]).run()
    };
    let statuses = |needed: &str| -> Result<(Option<i32>, Option<i32>)> {
        Ok((verified_by_us(needed)?.code(), verified_by_them(needed)?.code()))
    };
    ensure!(
        statuses("1")? == (Some(1), Some(2)),
        "unsigned: {:?}",
        statuses("1")?
    );
    let sign = || -> Result<Invocation> { Ok(layers.below()?.args(["sign", "--key-file"]).arg(&secret)) };
    let signed = sign()?.args(&all).arg("--json").succeed()?.json()?;
    ensure!(signed["signatures"] == all.len(), "{signed}");
    ensure!(statuses("1")? == (Some(0), Some(0)), "{}", verified_by_them("1")?);
    ensure!(statuses("0")? == (Some(0), Some(0)), "{}", verified_by_them("0")?);
    ensure!(statuses("2")? == (Some(1), Some(2)), "{}", verified_by_us("2")?);
    let ours = signatures()?;
    // The reverse.
    change(&layers.lower(), "update ValidPaths set sigs = null")?;
    let sign_by_them = stock.nix(layers.lower()).args(["store", "sign", "--key-file"]);
    sign_by_them.arg(&secret).args(&all).succeed()?;
    ensure!(
        signatures()? == ours && ours.iter().all(Option::is_some),
        "{ours:?}"
    );
    ensure!(statuses("1")? == (Some(0), Some(0)));
    let again = sign()?.args(&all).succeed()?;
    ensure!(again.errors().contains("added 0 signatures"), "{again}");
    // A key that nobody trusts.
    let untrusted = layers
        .below()?
        .args(["verify", "--sigs-needed", "1", "--json"])
        .exit_with(1)?;
    let untrusted = untrusted.json()?;
    ensure!(
        untrusted["untrusted"]
            .as_array()
            .is_some_and(|found| found.len() == all.len()),
        "{untrusted}"
    );
    Ok(())
}

fn unsigned_objects_are_refused_by_both(stock: StockNix) -> Result<()> {
    let (layers, all) = store(stock)?;
    change(&layers.lower(), INPUT_ADDRESSED)?;
    let path = all.last().context("a path")?;
    let (secret, public) = key(stock, &layers)?;
    let by_us = |name: &str, arguments: &[&str]| -> Result<Finished> {
        let copy = layers.below()?.args(["copy", "--to"]).arg(layers.join(name));
        copy.args(arguments).arg(path).run()
    };
    let by_them = |name: &str, arguments: &[&str]| {
        let copy = stock.nix("dummy://").args(["copy", "--from"]).arg(layers.lower());
        copy.arg("--to")
            .arg(layers.join(name))
            .args(arguments)
            .arg(path)
            .run()
    };
    let refusal = "because it lacks a signature by a trusted key";
    let (ours, theirs) = (by_us("ours", &[])?, by_them("theirs", &[])?);
    ensure!(
        ours.code() == Some(1) && ours.errors().contains(refusal),
        "{ours}"
    );
    ensure!(
        theirs.code() == Some(1) && theirs.errors().contains(refusal),
        "{theirs}"
    );
    ensure!(database(&layers.join("ours"))?.is_empty());
    for (name, arguments) in [
        ("unchecked", &["--no-check-sigs"][..]),
        ("lenient?require-sigs=false", &[]),
    ] {
        ensure!(
            by_us(&format!("ours-{name}"), arguments)?.code() == Some(0),
            "{name}"
        );
        ensure!(
            by_them(&format!("theirs-{name}"), arguments)?.code() == Some(0),
            "{name}"
        );
    }
    let sign = layers.below()?.args(["sign", "--recursive", "--key-file"]);
    sign.arg(secret).arg(path).succeed()?;
    ensure!(by_us("ours", &[])?.code() == Some(1), "the key is not trusted");
    let trusting = ["--trusted-public-keys", &public];
    let ours = by_us("ours", &trusting)?;
    ensure!(ours.code() == Some(0), "{ours}");
    ensure!(by_them("theirs", &trusting)?.code() == Some(0));
    ensure!(database(&layers.join("ours"))? == database(&layers.join("theirs"))?);
    Ok(())
}

fn an_overlay_store_passes_on_what_is_below(stock: StockNix) -> Result<()> {
    let (mounted, [_, program]) = layered()?;
    let own = mounted.layers.add_above("own", "own\n", &[&program])?;
    let ours = mounted.superpose()?.args(["export", "-r", &own]).succeed()?;
    let imported = stock.nix_store(mounted.layers.join("theirs")).arg("--import");
    let imported = imported.input(ours.stdout).succeed()?;
    ensure!(lines(&imported)?.len() == 3, "{imported}");
    ensure!(rows(&mounted)? == 3, "the export wrote something");
    let copied = mounted.layers.join("ours");
    mounted
        .superpose()?
        .args(["copy", "--to"])
        .arg(&copied)
        .arg(&own)
        .succeed()?;
    expect_clean(stock.nix_store(&copied))?;
    let [ours, theirs] = infos(stock, at(&copied)?, stock.nix(&copied), &["-r", &own])?;
    ensure!(ours == theirs, "{ours}\n{theirs}");
    mounted.expect_whole(stock)
}

fn an_overlay_store_takes_what_stock_exports(stock: StockNix) -> Result<()> {
    let (mounted, [library, program]) = layered()?;
    let elsewhere = Layers::new()?;
    Invocation::new("cp")
        .arg("-a")
        .arg(mounted.layers.lower())
        .arg(elsewhere.lower())
        .succeed()?;
    let own = elsewhere.add_below("own", "own\n", &[&program])?;
    let exported = stock
        .nix_store(elsewhere.lower())
        .args(["--export", &own, &library])
        .succeed()?
        .stdout;
    // Stock fails, as the reference is valid only below.
    let refused = mounted
        .nix_store(stock)
        .arg("--import")
        .input(exported.clone())
        .exit_with(1)?;
    ensure!(refused.errors().contains("is not valid"), "{refused}");
    let below = Tree::of(&mounted.layers.lower())?;
    let imported = mounted
        .superpose()?
        .args(["import", "--json"])
        .input(exported)
        .succeed()?
        .json()?;
    let imported = imported.as_array().context("a list")?;
    for (path, outcome, layer) in [(&library, "already-valid", "lower"), (&own, "stored", "upper")] {
        let one = imported
            .iter()
            .find(|one| one["path"] == **path)
            .context("the path")?;
        ensure!(one["outcome"] == outcome && one["layer"] == layer, "{one}");
    }
    below.expect_unchanged(&mounted.layers.lower())?;
    mounted
        .nix_store(stock)
        .args(["--check-validity", &own])
        .succeed()?;
    mounted.expect_whole(stock)?;
    // The same by a copy.
    let below = Tree::of(&mounted.layers.lower())?;
    mounted.superpose()?.args(["delete", &own]).succeed()?;
    let copy = mounted
        .superpose()?
        .args(["copy", "--from"])
        .arg(elsewhere.lower())
        .arg(&own);
    ensure!(copy.succeed()?.line()?.starts_with("1 paths copied"));
    below.expect_unchanged(&mounted.layers.lower())?;
    mounted.expect_whole(stock)
}

/// At every point between two effects: stock opens the store, finds it whole, and does the import itself.
fn stock_takes_over_where_an_import_was_killed(stock: StockNix) -> Result<()> {
    /// An import of these objects has fewer points.
    const MOST_POINTS: u32 = 40;
    let (source, all) = store(stock)?;
    let export = source.below()?.args(["export", "--recursive"]).args(&all[..3]);
    let stream = export.succeed()?.stdout;
    for point in 1..MOST_POINTS {
        let (mounted, ()) = mounted(|_| Ok(()))?;
        let killed = superpose_crashing_at(point)?
            .arg("--store")
            .arg(mounted.layers.url());
        let killed = killed.arg("import").input(stream.clone()).run()?;
        if killed.code() == Some(0) {
            ensure!(point > 8, "only {point} points");
            return mounted.expect_whole(stock);
        }
        ensure!(killed.signal() == Some(6), "{killed}");
        expect_clean(mounted.nix_store(stock))?;
        let theirs = mounted
            .nix_store(stock)
            .arg("--import")
            .input(stream.clone())
            .succeed()?;
        ensure!(lines(&theirs)?.len() >= 3, "{theirs}");
        mounted.expect_whole(stock)?;
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}
