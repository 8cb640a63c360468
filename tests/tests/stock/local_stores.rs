// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local stores: what one writes the other reads, in the same words.

use std::fs;

use anyhow::{Context, Result, ensure};
use superpose_tests::{Layers, StockNix, Suite, stock_trials, superpose};

use crate::beside::{DERIVATIONS, expect_clean, infos, instantiate, lines, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        paths_of_sources_are_the_same,
        paths_of_every_method_and_hash_are_the_same,
        archives_are_the_same_byte_by_byte,
        objects_are_the_same_on_the_disk,
        what_superpose_wrote_is_verified_by_stock,
        what_stock_wrote_is_verified_by_superpose,
        every_row_of_stock_is_read,
        every_row_of_superpose_is_read,
        derivations_are_registered_alike,
        every_query_has_the_same_answer,
        exports_of_one_are_rows_of_the_other,
        deletions_of_one_are_known_to_the_other,
        roots_of_one_hold_for_the_other,
        a_collection_leaves_what_superpose_roots
    );
}

/// Two empty directories for equal stores.
fn two() -> Result<(Layers, Layers)> {
    Ok((Layers::new()?, Layers::new()?))
}

fn paths_of_sources_are_the_same(stock: StockNix) -> Result<()> {
    let (ours, theirs) = two()?;
    let tree = tree(&ours, "tree")?;
    for what in ["", "empty", "bin", "bin/tool", "plain", "nothing", "link"] {
        let what = tree.join(what);
        let one = ours.below()?.arg("add").arg(&what).succeed()?;
        let other = stock
            .nix_store(theirs.lower())
            .arg("--add")
            .arg(&what)
            .succeed()?;
        ensure!(one.stdout == other.stdout, "{one}\n{other}");
    }
    Ok(())
}

fn paths_of_every_method_and_hash_are_the_same(stock: StockNix) -> Result<()> {
    let (ours, theirs) = two()?;
    let file = ours.file("file", "contents\n")?;
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        for (method, flags) in [("flat", &[][..]), ("nar", &["--recursive"])] {
            let add = ours
                .below()?
                .args(["add", "--method", method, "--hash-algo", algorithm]);
            let one = add.arg(&file).succeed()?;
            let add = stock
                .nix_store(theirs.lower())
                .arg("--add-fixed")
                .args(flags)
                .arg(algorithm);
            let other = add.arg(&file).succeed()?;
            ensure!(one.stdout == other.stdout, "{one}\n{other}");
        }
    }
    let mut expected = ours
        .below()?
        .args(["path-info", "--json", "--all"])
        .succeed()?
        .json()?;
    let mut found = theirs
        .below()?
        .args(["path-info", "--json", "--all"])
        .succeed()?
        .json()?;
    for all in [&mut expected, &mut found] {
        for info in all.as_object_mut().context("an object")?.values_mut() {
            info["registrationTime"].take();
        }
    }
    ensure!(expected == found, "{expected}\n{found}");
    Ok(())
}

fn archives_are_the_same_byte_by_byte(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let added = layers.below()?.arg("add").arg(tree(&layers, "tree")?).succeed()?;
    let path = added.line()?;
    let ours = layers.below()?.args(["dump", path]).succeed()?;
    let object = layers.lower().join(path.trim_start_matches('/'));
    let theirs = stock.program("nix-store").arg("--dump").arg(&object).succeed()?;
    ensure!(
        ours.stdout == theirs.stdout,
        "{} and {} bytes",
        ours.stdout.len(),
        theirs.stdout.len()
    );
    // And back: each unpacks what the other packed.
    let (one, other) = (layers.join("one"), layers.join("other"));
    superpose()?
        .arg("restore")
        .arg(&one)
        .input(theirs.stdout.clone())
        .succeed()?;
    stock
        .program("nix-store")
        .arg("--restore")
        .arg(&other)
        .input(ours.stdout)
        .succeed()?;
    for unpacked in [one, other] {
        let again = stock.program("nix-store").arg("--dump").arg(unpacked).succeed()?;
        ensure!(again.stdout == theirs.stdout);
    }
    Ok(())
}

fn objects_are_the_same_on_the_disk(stock: StockNix) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let (ours, theirs) = two()?;
    let tree = tree(&ours, "tree")?;
    let added = ours.below()?.arg("add").arg(&tree).succeed()?;
    stock
        .nix_store(theirs.lower())
        .arg("--add")
        .arg(&tree)
        .succeed()?;
    let name = added.line()?.trim_start_matches("/nix/store/").to_owned();
    for part in ["", "empty", "bin", "bin/tool", "plain", "nothing", "link"] {
        let found =
            [&ours, &theirs].map(|store| fs::symlink_metadata(store.lower_dir().join(&name).join(part)));
        let [one, other] = found;
        let look = |found: std::io::Result<fs::Metadata>| -> Result<_> {
            let found = found?;
            Ok((
                found.mode(),
                found.uid(),
                found.gid(),
                found.mtime(),
                found.mtime_nsec(),
            ))
        };
        let (one, other) = (look(one)?, look(other)?);
        ensure!(one == other, "{part}: {one:?} and {other:?}");
    }
    Ok(())
}

/// Fills a store with superpose: sources, trees, flat and fixed, texts with references.
fn fill(layers: &Layers) -> Result<Vec<String>> {
    let library = layers.add_below("library", "library\n", &[])?;
    let program = layers.add_tree_below("program", &[&library])?;
    let add = layers.below()?.args([
        "add",
        "--method",
        "text",
        "--reference",
        &library,
        "--reference",
        &program,
    ]);
    let text = add
        .arg(layers.file("text", format!("{library} {program}\n"))?)
        .succeed()?
        .line()?
        .to_owned();
    let add = layers
        .below()?
        .args(["add", "--method", "flat", "--hash-algo", "sha512"]);
    let flat = add.arg(layers.join("text")).succeed()?.line()?.to_owned();
    let everything = layers
        .below()?
        .arg("add")
        .arg(tree(layers, "everything")?)
        .succeed()?;
    Ok(vec![library, program, text, flat, everything.line()?.to_owned()])
}

fn what_superpose_wrote_is_verified_by_stock(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let paths = fill(&layers)?;
    expect_clean(stock.nix_store(layers.lower()))?;
    stock
        .nix_store(layers.lower())
        .arg("--verify-path")
        .args(&paths)
        .succeed()?;
    stock
        .nix_store(layers.lower())
        .arg("--check-validity")
        .args(&paths)
        .succeed()?;
    // Opened and changed by stock, it is as good as before.
    stock
        .nix_store(layers.lower())
        .arg("--add")
        .arg(layers.file("more", "more\n")?)
        .succeed()?;
    let verified = layers
        .below()?
        .args(["verify", "--check-contents", "--json"])
        .succeed()?
        .json()?;
    ensure!(verified["hashed"] == paths.len() + 1, "{verified}");
    expect_clean(stock.nix_store(layers.lower()))
}

fn what_stock_wrote_is_verified_by_superpose(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    instantiate(stock, &layers.lower(), DERIVATIONS)?;
    stock
        .nix_store(layers.lower())
        .arg("--add")
        .arg(tree(&layers, "tree")?)
        .succeed()?;
    let verified = layers
        .below()?
        .args(["verify", "--check-contents", "--json"])
        .succeed()?
        .json()?;
    ensure!(verified["hashed"].as_u64() > Some(4), "{verified}");
    layers.add_below("more", "more\n", &[])?;
    expect_clean(stock.nix_store(layers.lower()))
}

fn every_row_of_stock_is_read(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let program = instantiate(stock, &layers.lower(), DERIVATIONS)?;
    stock
        .nix_store(layers.lower())
        .arg("--add")
        .arg(tree(&layers, "tree")?)
        .succeed()?;
    // Rows with everything: signatures, and a deriver, which stock has for what it built or copied.
    let key = layers.join("key");
    let generate = stock
        .program("nix-store")
        .args(["--generate-binary-cache-key", "test-1"]);
    generate.arg(&key).arg(layers.join("public")).succeed()?;
    let sign = stock
        .nix(layers.lower())
        .args(["store", "sign", "--key-file"])
        .arg(&key);
    sign.arg(&program).succeed()?;
    let outputs = stock
        .nix_store(layers.lower())
        .args(["-q", "--outputs", &program])
        .succeed()?;
    let output = outputs.line()?;
    let row = format!(
        "{output}\n{}\n1234\n{program}\n2\n{output}\n{program}\n",
        "ab".repeat(32)
    );
    stock
        .nix_store(layers.lower())
        .arg("--load-db")
        .input(row)
        .succeed()?;
    let [ours, theirs] = infos(stock, layers.below()?, stock.nix(layers.lower()), &["--all"])?;
    ensure!(ours == theirs, "{ours}\n{theirs}");
    ensure!(
        ours[output]["deriver"] == *program && ours[output]["narSize"] == 1234,
        "{ours}"
    );
    ensure!(
        ours[&program]["signatures"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{ours}"
    );
    Ok(())
}

fn every_row_of_superpose_is_read(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let paths = fill(&layers)?;
    let [ours, theirs] = infos(stock, layers.below()?, stock.nix(layers.lower()), &["--all"])?;
    ensure!(ours == theirs, "{ours}\n{theirs}");
    ensure!(
        ours.as_object().is_some_and(|all| all.len() == paths.len()),
        "{ours}"
    );
    let both = ["-rS", paths[2].as_str()];
    let [ours, theirs] = infos(stock, layers.below()?, stock.nix(layers.lower()), &both)?;
    ensure!(
        ours == theirs && ours[&paths[2]]["closureSize"].is_number(),
        "{ours}\n{theirs}"
    );
    Ok(())
}

fn derivations_are_registered_alike(stock: StockNix) -> Result<()> {
    let (ours, theirs) = two()?;
    let program = instantiate(stock, &theirs.lower(), DERIVATIONS)?;
    // The same files once more, by superpose: dependencies first, each a text with the references that it has there.
    let closure = theirs.below()?.args(["query", "-R", &program]).succeed()?;
    for path in closure.text()?.lines() {
        let references = theirs.below()?.args(["query", "--references", path]).succeed()?;
        let mut add = ours.below()?.args([
            "add",
            "--method",
            "text",
            "--name",
            &path["/nix/store/".len() + 33..],
        ]);
        for reference in references.text()?.lines() {
            add = add.args(["--reference", reference]);
        }
        let added = add
            .arg(theirs.lower().join(path.trim_start_matches('/')))
            .succeed()?;
        ensure!(added.line()? == path, "{added}");
    }
    let mut outputs = 0;
    for path in closure.text()?.lines().filter(|path| path.ends_with(".drv")) {
        let query = |store: &Layers| {
            stock
                .nix_store(store.lower())
                .args(["-q", "--outputs", path])
                .succeed()
        };
        let (one, other) = (query(&ours)?, query(&theirs)?);
        ensure!(lines(&one)? == lines(&other)?, "{one}\n{other}");
        let asked = ours.below()?.args(["query", "--outputs", path]).succeed()?;
        ensure!(lines(&asked)? == lines(&other)?, "{asked}\n{other}");
        for output in asked.text()?.lines() {
            outputs += 1;
            let derivers = ours
                .below()?
                .args(["query", "--valid-derivers", output])
                .succeed()?;
            ensure!(derivers.line()? == path, "{derivers}");
        }
    }
    ensure!(outputs == 6, "{outputs} outputs");
    expect_clean(stock.nix_store(ours.lower()))
}

fn every_query_has_the_same_answer(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    fill(&layers)?;
    instantiate(stock, &layers.lower(), DERIVATIONS)?;
    let all = layers.below()?.args(["path-info", "--all"]).succeed()?;
    let paths: Vec<&str> = all.text()?.lines().collect();
    ensure!(paths.len() >= 10, "{all}");
    for question in [
        "--references",
        "--referrers",
        "--referrers-closure",
        "--requisites",
        "--deriver",
        "--valid-derivers",
        "--hash",
        "--size",
        "--roots",
        "--outputs",
    ] {
        let about = |path: &&&str| question != "--outputs" || path.ends_with(".drv");
        let about: Vec<&str> = paths.iter().filter(about).copied().collect();
        // One by one, and all in one question.
        let mut questions: Vec<&[&str]> = about.chunks(1).collect();
        questions.push(&about);
        for paths in questions {
            let ours = layers.below()?.args(["query", question]).args(paths).succeed()?;
            let theirs = stock
                .nix_store(layers.lower())
                .args(["--query", question])
                .args(paths)
                .succeed()?;
            ensure!(lines(&ours)? == lines(&theirs)?, "{ours}\n{theirs}");
            if matches!(question, "--hash" | "--size" | "--deriver") && paths.len() == 1 {
                ensure!(ours.stdout == theirs.stdout, "{ours}\n{theirs}");
            }
        }
    }
    // What is not valid.
    let nowhere = "/nix/store/00000000000000000000000000000000-nowhere";
    for (question, status) in [
        ("--references", 1),
        ("--referrers", 0),
        ("--requisites", 1),
        ("--hash", 1),
        ("--deriver", 1),
    ] {
        let ours = layers
            .below()?
            .args(["query", question, nowhere])
            .exit_with(status)?;
        let theirs = stock
            .nix_store(layers.lower())
            .args(["--query", question, nowhere])
            .exit_with(status)?;
        ensure!(ours.stdout == theirs.stdout, "{ours}\n{theirs}");
    }
    Ok(())
}

fn exports_of_one_are_rows_of_the_other(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let paths = fill(&layers)?;
    let exported = stock
        .nix_store(layers.lower())
        .arg("--export")
        .args(&paths)
        .succeed()?;
    let other = Layers::new()?;
    let import = stock
        .nix_store(other.lower())
        .arg("--import")
        .input(exported.stdout);
    import.succeed()?;
    let info = |layers: &Layers| {
        layers
            .below()?
            .args(["path-info", "--json", "--all"])
            .succeed()?
            .json()
    };
    let (mut one, mut two) = (info(&layers)?, info(&other)?);
    for all in [&mut one, &mut two] {
        for info in all.as_object_mut().context("an object")?.values_mut() {
            // An export says neither.
            info["registrationTime"].take();
            info["ca"].take();
        }
    }
    ensure!(one == two, "{one}\n{two}");
    Ok(())
}

fn deletions_of_one_are_known_to_the_other(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let paths = fill(&layers)?;
    let delete = |path: &String| stock.nix_store(layers.lower()).args(["--delete", path]);
    // Both refuse what is referred to.
    delete(&paths[0]).exit_with(1)?;
    layers.below()?.args(["delete", &paths[0]]).exit_with(1)?;
    delete(&paths[2]).succeed()?;
    layers.below()?.args(["check-validity", &paths[2]]).exit_with(1)?;
    layers.below()?.args(["delete", &paths[1]]).succeed()?;
    stock
        .nix_store(layers.lower())
        .args(["--check-validity", &paths[1]])
        .exit_with(1)?;
    expect_clean(stock.nix_store(layers.lower()))?;
    layers.below()?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}

fn roots_of_one_hold_for_the_other(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let path = layers.add_below("object", "object\n", &[])?;
    let ours = layers.join("ours");
    layers.below()?.arg("add-root").arg(&ours).arg(&path).succeed()?;
    let query = || {
        stock
            .nix_store(layers.lower())
            .args(["--query", "--roots", &path])
            .succeed()
    };
    let expected = format!("{} -> {path}", ours.display());
    ensure!(query()?.line()? == expected, "{}", query()?);
    stock
        .nix_store(layers.lower())
        .args(["--delete", &path])
        .exit_with(1)?;
    fs::remove_file(&ours)?;
    let theirs = layers.join("theirs");
    let realise = stock
        .nix_store(layers.lower())
        .args(["--realise", &path, "--add-root"]);
    realise.arg(&theirs).succeed()?;
    let asked = layers.below()?.args(["query", "--roots", &path]).succeed()?;
    ensure!(
        asked.line()? == format!("{} -> {path}", theirs.display()),
        "{asked}"
    );
    layers.below()?.args(["delete", &path]).exit_with(1)?;
    Ok(())
}

fn a_collection_leaves_what_superpose_roots(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let paths = fill(&layers)?;
    layers
        .below()?
        .arg("add-root")
        .arg(layers.join("root"))
        .arg(&paths[1])
        .succeed()?;
    let collected = stock.nix_store(layers.lower()).arg("--gc").succeed()?;
    ensure!(
        collected.text()?.starts_with("3 store paths deleted"),
        "{collected}"
    );
    let left = layers.below()?.args(["path-info", "--all"]).succeed()?;
    ensure!(lines(&left)? == paths[..2].iter().cloned().collect(), "{left}");
    layers.below()?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}
