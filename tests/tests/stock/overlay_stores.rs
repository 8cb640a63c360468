// SPDX-License-Identifier: MIT OR Apache-2.0
//! Overlay stores: what one writes the other reads, and both in turns on one store.

use std::fs;

use anyhow::{Result, ensure};
use superpose_tests::{Layers, Need, StockNix, Suite, Tree, stock_trials};

use crate::beside::{DERIVATIONS, infos, instantiate, lines, mounted, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [Need::Root],
        what_superpose_wrote_is_verified_by_stock,
        what_stock_wrote_is_read_and_verified_by_superpose,
        our_mount_is_the_one_that_stock_wants,
        additions_take_turns,
        what_is_valid_below_is_not_written_again_by_either,
        what_was_added_below_is_seen_after_a_remount,
        derivations_below_are_known_above,
        deletions_take_turns,
        a_duplicate_is_deleted_by_either,
        references_above_and_below_decide_alike,
        a_collection_by_stock_leaves_a_store_that_superpose_verifies,
        an_optimisation_by_stock_leaves_a_store_that_superpose_verifies,
        print_dead_agrees_with_deletion,
        a_lower_store_of_stock_is_never_written
    );
}

fn what_superpose_wrote_is_verified_by_stock(stock: StockNix) -> Result<()> {
    let (mounted, (library, program)) = mounted(|layers| {
        let library = layers.add_below("library", "library\n", &[])?;
        let program = layers.add_tree_below("program", &[&library])?;
        Ok((library, program))
    })?;
    // Every way to make rows above: own objects, references below, copies of rows.
    let own = mounted.layers.add_above("own", "own\n", &[&program])?;
    let text = mounted.superpose()?.args([
        "add",
        "--method",
        "text",
        "--reference",
        &own,
        "--reference",
        &library,
    ]);
    text.arg(mounted.layers.file("text", format!("{own} {library}"))?)
        .succeed()?;
    mounted
        .superpose()?
        .arg("add")
        .arg(tree(&mounted.layers, "tree")?)
        .succeed()?;
    mounted.superpose()?.args(["ensure", &program]).succeed()?;
    mounted.expect_whole(stock)?;
    let [ours, theirs] = infos(
        stock,
        mounted.superpose()?,
        stock.nix(mounted.layers.url()),
        &["-r", &own],
    )?;
    ensure!(
        ours == theirs && ours.as_object().is_some_and(|all| all.len() == 3),
        "{ours}\n{theirs}"
    );
    for question in [
        "--references",
        "--referrers",
        "--referrers-closure",
        "-R",
        "--deriver",
        "--hash",
        "--size",
    ] {
        for path in [&library, &program, &own] {
            let ours = mounted.superpose()?.args(["query", question, path]).succeed()?;
            let theirs = mounted
                .nix_store(stock)
                .args(["--query", question, path])
                .succeed()?;
            ensure!(lines(&ours)? == lines(&theirs)?, "{ours}\n{theirs}");
        }
    }
    Ok(())
}

fn what_stock_wrote_is_read_and_verified_by_superpose(stock: StockNix) -> Result<()> {
    let (mounted, below) = mounted(|layers| instantiate(stock, &layers.lower(), DERIVATIONS))?;
    mounted
        .nix_store(stock)
        .arg("--add")
        .arg(tree(&mounted.layers, "tree")?)
        .succeed()?;
    mounted
        .nix_store(stock)
        .args(["--check-validity", &below])
        .succeed()?;
    mounted.expect_whole(stock)?;
    let known = stock
        .nix(mounted.layers.url())
        .args(["path-info", "--all"])
        .succeed()?;
    let known: Vec<&str> = known.text()?.lines().collect();
    ensure!(known.len() >= 6, "{known:?}");
    let [ours, theirs] = infos(
        stock,
        mounted.superpose()?,
        stock.nix(mounted.layers.url()),
        &known,
    )?;
    ensure!(ours == theirs, "{ours}\n{theirs}");
    Ok(())
}

fn our_mount_is_the_one_that_stock_wants(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let below = layers.add_below("below", "below\n", &[])?;
    layers.superpose()?.arg("mount").succeed()?;
    stock.nix(layers.url()).args(["path-info", &below]).succeed()?;
    let add = stock.nix_store(layers.url()).arg("--add");
    add.arg(layers.file("new", "new\n")?).succeed()?;
    layers
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    layers.superpose()?.arg("umount").succeed()?;
    let refused = stock.nix(layers.url()).args(["path-info", &below]).exit_with(1)?;
    ensure!(refused.errors().contains("mounted incorrectly"), "{refused}");
    Ok(())
}

fn additions_take_turns(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    for turn in 0..3 {
        let ours = mounted.layers.add_above(&format!("ours-{turn}"), "ours\n", &[])?;
        let file = mounted.layers.file(&format!("theirs-{turn}"), "theirs\n")?;
        let theirs = mounted.nix_store(stock).arg("--add").arg(&file).succeed()?;
        // Each finds what the other has added, and writes nothing for it.
        let upper = Tree::of(&mounted.layers.upper())?;
        let again = mounted
            .superpose()?
            .args(["add", "--json"])
            .arg(&file)
            .succeed()?;
        ensure!(again.json()?[0]["outcome"] == "already-valid", "{again}");
        let again = mounted
            .nix_store(stock)
            .arg("--add")
            .arg(mounted.layers.join(format!("ours-{turn}")));
        ensure!(again.succeed()?.line()? == ours);
        upper.expect_unchanged(&mounted.layers.upper())?;
        mounted
            .superpose()?
            .args(["path-info", &ours, theirs.line()?])
            .succeed()?;
    }
    mounted.expect_whole(stock)
}

fn what_is_valid_below_is_not_written_again_by_either(stock: StockNix) -> Result<()> {
    let (mounted, below) = mounted(|layers| layers.add_below("same", "same\n", &[]))?;
    let upper = Tree::of(&mounted.layers.upper())?;
    let file = mounted.layers.join("same");
    let ours = mounted
        .superpose()?
        .args(["add", "--json"])
        .arg(&file)
        .succeed()?
        .json()?;
    ensure!(
        ours[0]["outcome"] == "already-valid" && ours[0]["layer"] == "lower",
        "{ours}"
    );
    let theirs = mounted.nix_store(stock).arg("--add").arg(&file).succeed()?;
    ensure!(theirs.line()? == below, "{theirs}");
    upper.expect_unchanged(&mounted.layers.upper())?;
    mounted.expect_whole(stock)
}

fn what_was_added_below_is_seen_after_a_remount(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let add = stock.nix_store(mounted.layers.lower()).arg("--add");
    let late = add.arg(mounted.layers.file("late", "late\n")?).succeed()?;
    mounted.superpose()?.arg("remount").succeed()?;
    mounted
        .superpose()?
        .args(["check-validity", late.line()?])
        .succeed()?;
    let dumped = mounted.superpose()?.args(["dump", late.line()?]).succeed()?;
    ensure!(dumped.stdout.len() == 120);
    mounted
        .nix_store(stock)
        .args(["--verify-path", late.line()?])
        .succeed()?;
    Ok(())
}

fn derivations_below_are_known_above(stock: StockNix) -> Result<()> {
    let (mounted, program) = mounted(|layers| instantiate(stock, &layers.lower(), DERIVATIONS))?;
    let below = stock
        .nix_store(mounted.layers.lower())
        .args(["-q", "--outputs", &program])
        .succeed()?;
    for _ in 0..2 {
        let above = mounted
            .superpose()?
            .args(["query", "--outputs", &program])
            .succeed()?;
        ensure!(above.stdout == below.stdout, "{above}");
        let derivers = mounted
            .superpose()?
            .args(["query", "--valid-derivers", below.line()?])
            .succeed()?;
        ensure!(derivers.line()? == program, "{derivers}");
        // Once more with its rows above: stock reads what superpose copied.
        mounted.superpose()?.args(["ensure", &program]).succeed()?;
    }
    let stock_says = mounted
        .nix_store(stock)
        .args(["-q", "--outputs", &program])
        .succeed()?;
    ensure!(stock_says.stdout == below.stdout, "{stock_says}");
    mounted.expect_whole(stock)
}

fn deletions_take_turns(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let ours = mounted.layers.add_above("ours", "ours\n", &[])?;
    let add = mounted.nix_store(stock).arg("--add");
    let theirs = add.arg(mounted.layers.file("theirs", "theirs\n")?).succeed()?;
    mounted.nix_store(stock).args(["--delete", &ours]).succeed()?;
    mounted.superpose()?.args(["delete", theirs.line()?]).succeed()?;
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "{:?}",
        mounted.layers.upper_names()?
    );
    mounted
        .superpose()?
        .args(["check-validity", &ours])
        .exit_with(1)?;
    mounted
        .nix_store(stock)
        .args(["--check-validity", theirs.line()?])
        .exit_with(1)?;
    mounted.expect_whole(stock)
}

fn a_duplicate_is_deleted_by_either(stock: StockNix) -> Result<()> {
    let (mounted, (one, other)) = mounted(|layers| {
        Ok((
            layers.add_tree_below("one", &[])?,
            layers.add_tree_below("other", &[])?,
        ))
    })?;
    for path in [&one, &other] {
        mounted.layers.duplicate(path)?;
    }
    let hook = mounted.layers.join("hook");
    fs::write(
        &hook,
        "#!/bin/sh\nexec mount -i -t overlay -o remount overlay \"$1\"\n",
    )?;
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let url = format!(
        "{}&remount-hook={}",
        mounted.layers.url().display(),
        hook.display()
    );
    stock.nix_store(url).args(["--delete", &one]).succeed()?;
    mounted.superpose()?.args(["delete", &other]).succeed()?;
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "{:?}",
        mounted.layers.upper_names()?
    );
    mounted
        .superpose()?
        .args(["check-validity", &one, &other])
        .succeed()?;
    for path in [&one, &other] {
        let text = mounted
            .layers
            .merged()
            .join(path.trim_start_matches("/nix/store/"))
            .join("share/text");
        ensure!(!fs::read(text)?.is_empty());
    }
    mounted.expect_whole(stock)
}

fn references_above_and_below_decide_alike(stock: StockNix) -> Result<()> {
    let (mounted, library) = mounted(|layers| layers.add_tree_below("library", &[]))?;
    let own = mounted.layers.add_above("own", "own\n", &[&library])?;
    let user = mounted.layers.add_above("user", "user\n", &[&own])?;
    for path in [&library, &own] {
        // A row above that refers to it protects, whether the object is above or below.
        mounted.nix_store(stock).args(["--delete", path]).exit_with(1)?;
        let refused = mounted.superpose()?.args(["delete", path]).exit_with(1)?;
        ensure!(refused.errors().contains("kept alive"), "{refused}");
    }
    mounted.superpose()?.args(["delete", &user]).succeed()?;
    mounted.nix_store(stock).args(["--delete", &own]).succeed()?;
    mounted
        .superpose()?
        .args(["check-validity", &library])
        .succeed()?;
    mounted.expect_whole(stock)
}

fn a_collection_by_stock_leaves_a_store_that_superpose_verifies(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let dead = mounted.layers.add_above("dead", "dead\n", &[])?;
    let kept = mounted.layers.add_above("kept", "kept\n", &[])?;
    mounted
        .superpose()?
        .arg("add-root")
        .arg(mounted.layers.join("root"))
        .arg(&kept)
        .succeed()?;
    mounted.nix_store(stock).arg("--gc").succeed()?;
    mounted
        .superpose()?
        .args(["check-validity", &dead])
        .exit_with(1)?;
    mounted.superpose()?.args(["check-validity", &kept]).succeed()?;
    let ground = mounted.layers.below()?.args(["path-info", "--all"]).succeed()?;
    mounted
        .superpose()?
        .args(["check-validity", ground.line()?])
        .succeed()?;
    mounted.expect_whole(stock)
}

fn an_optimisation_by_stock_leaves_a_store_that_superpose_verifies(stock: StockNix) -> Result<()> {
    let (mounted, object) = mounted(|layers| layers.add_tree_below("object", &[]))?;
    mounted.layers.duplicate(&object)?;
    mounted.nix_store(stock).arg("--optimise").succeed()?;
    ensure!(
        mounted.layers.upper_names()?.is_empty(),
        "{:?}",
        mounted.layers.upper_names()?
    );
    // It had no hook, and so made nothing fresh.
    mounted.superpose()?.arg("remount").succeed()?;
    let located = mounted
        .superpose()?
        .args(["path-info", "--layer", &object])
        .succeed()?;
    ensure!(located.line()?.ends_with("lower"), "{located}");
    mounted.expect_whole(stock)
}

fn print_dead_agrees_with_deletion(stock: StockNix) -> Result<()> {
    let (mounted, ()) = mounted(|_| Ok(()))?;
    let library = mounted.layers.add_above("library", "library\n", &[])?;
    let program = mounted.layers.add_above("program", "program\n", &[&library])?;
    let other = mounted.layers.add_above("other", "other\n", &[])?;
    mounted
        .superpose()?
        .arg("add-root")
        .arg(mounted.layers.join("root"))
        .arg(&program)
        .succeed()?;
    let dead = mounted
        .nix_store(stock)
        .args(["--gc", "--print-dead"])
        .succeed()?;
    for (path, is_dead) in [(&library, false), (&program, false), (&other, true)] {
        ensure!(lines(&dead)?.contains(path) == is_dead, "{path}: {dead}");
        mounted
            .superpose()?
            .args(["delete", path])
            .exit_with(i32::from(!is_dead))?;
    }
    let live = mounted
        .nix_store(stock)
        .args(["--gc", "--print-live"])
        .succeed()?;
    ensure!(lines(&live)? == [library, program].into(), "{live}");
    Ok(())
}

fn a_lower_store_of_stock_is_never_written(stock: StockNix) -> Result<()> {
    let (mounted, program) = mounted(|layers| instantiate(stock, &layers.lower(), DERIVATIONS))?;
    let before = Tree::of(&mounted.layers.lower())?;
    mounted
        .superpose()?
        .args(["path-info", "-r", "--json", &program])
        .succeed()?;
    mounted.superpose()?.args(["ensure", &program]).succeed()?;
    let own = mounted.layers.add_above("own", "own\n", &[&program])?;
    mounted
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    mounted.superpose()?.args(["delete", &own]).succeed()?;
    mounted.superpose()?.arg("remount").succeed()?;
    before.expect_unchanged(&mounted.layers.lower())
}
