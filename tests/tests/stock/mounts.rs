// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which mounts stock Nix accepts, and which superpose: everything that stock rightly accepts, and more that is right;
//! nothing that is wrong.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, StockNix, Suite, stock_trials};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [Need::Root],
        plain_mounts_are_accepted_by_both,
        right_mounts_that_stock_refuses,
        right_mounts_written_otherwise_that_stock_refuses,
        wrong_mounts_are_refused_by_both,
        wrong_mounts_that_stock_accepts
    );
}

/// Who accepts a mount: stock Nix, superpose.
type Verdict = [bool; 2];

fn layers(odd: &str) -> Result<Layers> {
    let layers = Layers::named(odd)?;
    layers.add_below("ground", "ground\n", &[])?;
    for dir in [layers.upper(), layers.work(), layers.merged()] {
        fs::create_dir_all(dir)?;
    }
    Ok(layers)
}

fn verdict(stock: StockNix, layers: &Layers) -> Result<Verdict> {
    let theirs = stock.nix(layers.url()).args(["path-info", "--all"]).run()?;
    let ours = layers.superpose()?.arg("check-mount").run()?;
    if theirs.code() != Some(0) {
        let says = theirs.errors();
        ensure!(
            says.contains("mounted incorrectly") || says.contains("regular expression"),
            "{theirs}"
        );
    }
    ensure!(matches!(ours.code(), Some(0 | 1)), "{ours}");
    Ok([theirs.code() == Some(0), ours.code() == Some(0)])
}

/// Mounts with a string of options for mount(8), after the working directory was set to that of the layers.
fn mount(layers: &Layers, source: &str, options: &str) -> Result<()> {
    let mount = Invocation::new("mount").current_dir(layers.scratch().path());
    let mount = mount.args(["-t", "overlay", source, "-o", options]);
    mount.arg(layers.merged()).succeed()?;
    Ok(())
}

fn options(layers: &Layers) -> String {
    format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.lower_dir().display(),
        layers.upper().display(),
        layers.work().display()
    )
}

fn plain_mounts_are_accepted_by_both(stock: StockNix) -> Result<()> {
    let layers = layers("")?;
    mount(&layers, "overlay", &options(&layers))?;
    ensure!(verdict(stock, &layers)? == [true, true]);
    let other = self::layers("")?;
    mount(
        &other,
        "overlay",
        &format!("{},index=off,redirect_dir=off", options(&other)),
    )?;
    ensure!(verdict(stock, &other)? == [true, true]);
    Ok(())
}

fn right_mounts_that_stock_refuses(stock: StockNix) -> Result<()> {
    for odd in ["+", "*", "$", " ", ":", ",", "("] {
        let layers = layers(odd)?;
        let _mount = layers.mount()?;
        ensure!(verdict(stock, &layers)? == [false, true], "{odd}");
    }
    Ok(())
}

fn right_mounts_written_otherwise_that_stock_refuses(stock: StockNix) -> Result<()> {
    let check = |what: &str, make: &dyn Fn(&Layers) -> Result<()>| -> Result<()> {
        let layers = layers("")?;
        make(&layers)?;
        let verdict = verdict(stock, &layers)?;
        ensure!(verdict == [false, true], "{what}: {verdict:?}");
        Ok(())
    };
    check("another source", &|layers| {
        mount(layers, "my-store", &options(layers))
    })?;
    check("relative directories", &|layers| {
        mount(
            layers,
            "overlay",
            "lowerdir=lower/nix/store,upperdir=upper,workdir=work",
        )
    })?;
    check("a slash at the end", &|layers| {
        let with_slash = options(layers).replace(",workdir", "/,workdir");
        mount(layers, "overlay", &with_slash)
    })?;
    check("an upper layer by another name", &|layers| {
        fs::remove_dir(layers.upper())?;
        fs::create_dir(layers.join("moved"))?;
        std::os::unix::fs::symlink("moved", layers.upper())?;
        mount(
            layers,
            "overlay",
            "lowerdir=lower/nix/store,upperdir=moved,workdir=work",
        )
    })
}

fn wrong_mounts_are_refused_by_both(stock: StockNix) -> Result<()> {
    let check = |what: &str, make: &dyn Fn(&Layers) -> Result<Option<OverlayMount>>| -> Result<()> {
        let layers = layers("")?;
        fs::create_dir(layers.join("other"))?;
        let _mount = make(&layers)?;
        let verdict = verdict(stock, &layers)?;
        ensure!(verdict == [false, false], "{what}: {verdict:?}");
        Ok(())
    };
    let overlay = |layers: &Layers, lower: &[&Path], upper: &Path| {
        OverlayMount::new(lower, upper, &layers.work(), &layers.merged()).map(Some)
    };
    check("nothing", &|_| Ok(None))?;
    check("another lower directory", &|layers| {
        overlay(layers, &[&layers.join("other")], &layers.upper())
    })?;
    check("another upper layer", &|layers| {
        overlay(layers, &[&layers.lower_dir()], &layers.join("other"))
    })?;
    check("one lower directory more", &|layers| {
        overlay(
            layers,
            &[&layers.lower_dir(), &layers.join("other")],
            &layers.upper(),
        )
    })
}

fn wrong_mounts_that_stock_accepts(stock: StockNix) -> Result<()> {
    // Something mounted on top: all is written there, and lost.
    let layers = self::layers("")?;
    let _mount = layers.mount()?;
    Invocation::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(layers.merged())
        .succeed()?;
    ensure!(verdict(stock, &layers)? == [true, false]);

    // The dot of a name stands for any character.
    let layers = self::layers("x")?;
    fs::create_dir(layers.join("upperx2"))?;
    let dotted = format!(
        "{}&upper-layer={}",
        layers.url().display(),
        layers.join("upper.2").display()
    );
    let url = dotted.replacen(&format!("&upper-layer={}", layers.upper().display()), "", 1);
    fs::create_dir(layers.join("upper.2"))?;
    let _mount = OverlayMount::new(
        &[&layers.lower_dir()],
        &layers.join("upperx2"),
        &layers.work(),
        &layers.merged(),
    )?;
    stock.nix(&url).args(["path-info", "--all"]).succeed()?;
    superpose_tests::superpose()?
        .args(["--store", &url, "check-mount"])
        .exit_with(1)?;

    // Read-only: every write will fail, the first one half way.
    let layers = self::layers("")?;
    let _mount = layers.mount()?;
    Invocation::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(layers.merged())
        .succeed()?;
    ensure!(verdict(stock, &layers)? == [true, false]);
    Ok(())
}
