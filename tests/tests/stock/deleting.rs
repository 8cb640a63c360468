// SPDX-License-Identifier: MIT OR Apache-2.0
//! What superpose does otherwise than stock Nix, on purpose, when something is deleted: each trial shows both.
//! DEVIATIONS.md lists them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use superpose_tests::{Layers, Need, StockNix, Suite, stock_trials, superpose};

use crate::beside::{layered, mounted};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        several_deletions_are_all_or_nothing,
        what_is_not_there_is_not_counted
    );
    stock_trials!(
        suite,
        [Need::Root],
        deleting_what_is_only_below_counts_nothing,
        rows_of_lower_objects_do_not_protect_a_duplicate,
        an_unregistered_entry_below_gets_no_whiteout,
        a_mount_is_made_fresh_without_a_hook,
        a_failed_hook_is_not_forgotten
    );
}

fn several_deletions_are_all_or_nothing(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let add = || -> Result<_> {
        let library = layers.add_below("library", "library\n", &[])?;
        layers.add_below("program", "program\n", &[&library])?;
        // Stock goes in the order of the paths: one that comes before the refused one is gone.
        for number in 0.. {
            let free = layers.add_below("free", &number.to_string(), &[])?;
            if free < library {
                return Ok([free, library]);
            }
        }
        unreachable!("every second path comes before")
    };
    let paths = add()?;
    stock
        .nix_store(layers.lower())
        .arg("--delete")
        .args(&paths)
        .exit_with(1)?;
    layers.below()?.args(["check-validity", &paths[0]]).exit_with(1)?;
    let paths = add()?;
    layers.below()?.arg("delete").args(&paths).exit_with(1)?;
    layers.below()?.args(["check-validity", &paths[0]]).succeed()?;
    Ok(())
}

fn what_is_not_there_is_not_counted(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("object", "object\n", &[])?;
    let nowhere = "/nix/store/00000000000000000000000000000000-nowhere";
    let theirs = stock
        .nix_store(layers.lower())
        .args(["--delete", nowhere])
        .succeed()?;
    ensure!(theirs.text()?.starts_with("1 store paths deleted"), "{theirs}");
    let ours = layers.below()?.args(["delete", nowhere]).succeed()?;
    ensure!(ours.text()?.starts_with("0 store paths deleted"), "{ours}");
    Ok(())
}

fn deleting_what_is_only_below_counts_nothing(stock: StockNix) -> Result<()> {
    let (mounted, [_, program]) = layered()?;
    let theirs = mounted.nix_store(stock).args(["--delete", &program]).succeed()?;
    ensure!(theirs.text()?.starts_with("1 store paths deleted"), "{theirs}");
    let ours = mounted.superpose()?.args(["delete", &program]).succeed()?;
    ensure!(ours.line()? == "0 store paths deleted, 0.0 KiB freed", "{ours}");
    ensure!(
        ours.errors().contains("stays valid: the lower store has it"),
        "{ours}"
    );
    Ok(())
}

fn rows_of_lower_objects_do_not_protect_a_duplicate(stock: StockNix) -> Result<()> {
    let (mounted, [library, program]) = layered()?;
    mounted.layers.duplicate(&library)?;
    mounted.superpose()?.args(["ensure", &program]).succeed()?;
    let refused = mounted
        .nix_store(stock)
        .args(["--delete", &library])
        .exit_with(1)?;
    ensure!(refused.errors().contains("still alive"), "{refused}");
    mounted.superpose()?.args(["delete", &library]).succeed()?;
    ensure!(mounted.layers.upper_names()?.is_empty());
    mounted.expect_whole(stock)
}

fn an_unregistered_entry_below_gets_no_whiteout(stock: StockNix) -> Result<()> {
    let elsewhere = Layers::new()?;
    let paths = [
        elsewhere.add_below("one", "one\n", &[])?,
        elsewhere.add_below("other", "other\n", &[])?,
    ];
    let names = [&paths[0], &paths[1]].map(|path| path.trim_start_matches("/nix/store/"));
    let (mounted, ()) = mounted(|layers| {
        fs::create_dir_all(layers.lower_dir())?;
        for name in names {
            fs::write(layers.lower_dir().join(name), "left behind")?;
        }
        Ok(())
    })?;
    for name in ["one", "other"] {
        mounted.layers.add_above(name, &format!("{name}\n"), &[])?;
    }
    mounted.nix_store(stock).args(["--delete", &paths[0]]).succeed()?;
    mounted.superpose()?.args(["delete", &paths[1]]).succeed()?;
    // A whiteout is a name in the upper layer that the merged view lacks.
    ensure!(
        mounted.layers.upper_names()? == [names[0]],
        "{:?}",
        mounted.layers.upper_names()?
    );
    ensure!(!mounted.layers.merged().join(names[0]).exists());
    ensure!(fs::read(mounted.layers.merged().join(names[1]))? == b"left behind");
    Ok(())
}

fn a_mount_is_made_fresh_without_a_hook(stock: StockNix) -> Result<()> {
    let (mounted, paths) = layered()?;
    for path in &paths {
        mounted.layers.duplicate(path)?;
    }
    let theirs = mounted.nix_store(stock).args(["--delete", &paths[1]]).succeed()?;
    ensure!(theirs.errors().contains("needs remounting"), "{theirs}");
    let ours = mounted
        .superpose()?
        .args(["delete", "--json", &paths[0]])
        .succeed()?;
    ensure!(
        ours.json()?["remounted"] == true && ours.stderr.is_empty() || ours.errors().contains("note: "),
        "{ours}"
    );
    for path in &paths {
        let text = mounted
            .layers
            .merged()
            .join(path.trim_start_matches("/nix/store/"))
            .join("share/text");
        ensure!(!fs::read(text)?.is_empty());
    }
    Ok(())
}

fn a_failed_hook_is_not_forgotten(stock: StockNix) -> Result<()> {
    let (mounted, paths) = layered()?;
    for path in &paths {
        mounted.layers.duplicate(path)?;
    }
    let (hook, calls) = (mounted.layers.join("hook"), mounted.layers.join("calls"));
    let set = |status: u32| -> Result<()> {
        fs::write(
            &hook,
            format!("#!/bin/sh\necho called >>'{}'\nexit {status}\n", calls.display()),
        )?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        fs::write(&calls, "")?;
        Ok(())
    };
    let url = format!(
        "{}&remount-hook={}",
        mounted.layers.url().display(),
        hook.display()
    );
    set(1)?;
    stock.nix_store(&url).args(["--delete", &paths[1]]).exit_with(1)?;
    set(0)?;
    stock
        .nix_store(&url)
        .args(["--check-validity", &paths[1]])
        .succeed()?;
    stock.nix_store(&url).args(["--gc", "--print-live"]).succeed()?;
    ensure!(fs::read(&calls)?.is_empty(), "stock remembered");
    let ours = || Ok::<_, anyhow::Error>(superpose()?.args(["--store", &url]));
    set(1)?;
    ours()?.args(["delete", &paths[0]]).exit_with(1)?;
    set(0)?;
    ours()?.args(["check-validity", &paths[0]]).succeed()?;
    ensure!(fs::read(&calls)? == b"called\n", "superpose forgot");
    Ok(())
}
