// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fetched stock Nix starts, and works on a store of ours only.

use std::fs;

use anyhow::{Result, ensure};
use superpose_tests::{Need, OverlayMount, Scratch, StockNix, Suite, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(suite, [Need::Stock(StockNix::Sid)], sid_works_on_a_local_store);
    trials!(
        suite,
        [Need::Stock(StockNix::Trixie)],
        trixie_works_on_a_local_store
    );
    trials!(
        suite,
        [Need::Stock(StockNix::Sid), Need::Root],
        sid_works_on_an_overlay_store
    );
    trials!(
        suite,
        [Need::Stock(StockNix::Trixie), Need::Root],
        trixie_works_on_an_overlay_store
    );
}

fn sid_works_on_a_local_store() -> Result<()> {
    local_store(StockNix::Sid, "2.3")
}

fn trixie_works_on_a_local_store() -> Result<()> {
    local_store(StockNix::Trixie, "2.26.")
}

fn sid_works_on_an_overlay_store() -> Result<()> {
    overlay_store(StockNix::Sid)
}

fn trixie_works_on_an_overlay_store() -> Result<()> {
    overlay_store(StockNix::Trixie)
}

fn local_store(stock: StockNix, version: &str) -> Result<()> {
    let said = stock.program("nix-store").arg("--version").succeed()?;
    ensure!(
        said.line()?.starts_with(&format!("nix-store (Nix) {version}")),
        "{said}"
    );

    // Without a store on the command line it has none: never the machine's own.
    let roots = [
        "--query",
        "--roots",
        "/nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt",
    ];
    let lost = stock.program("nix-store").args(roots).exit_with(1)?;
    ensure!(lost.errors().contains("dummy"), "{lost}");

    let scratch = Scratch::new()?;
    let store = scratch.join("store");
    stock.nix_store(&store).arg("--init").succeed()?;
    ensure!(
        store.join("nix/var/nix/db/db.sqlite").is_file(),
        "no database after --init"
    );

    let file = scratch.join("a.txt");
    fs::write(&file, "hello\n")?;
    let added = stock.nix_store(&store).arg("--add").arg(&file).succeed()?;
    // The path of these six bytes under this name, whichever version adds them.
    ensure!(
        added.line()? == "/nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt",
        "{added}"
    );
    let info = stock
        .nix(&store)
        .args(["path-info", "--json", added.line()?])
        .succeed()?;
    ensure!(info.json()?.is_object(), "{info}");
    Ok(())
}

fn overlay_store(stock: StockNix) -> Result<()> {
    let scratch = Scratch::new()?;
    let (below, merged) = (scratch.join("below"), scratch.join("merged"));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    let file = scratch.join("a.txt");
    fs::write(&file, "hello\n")?;
    let object = stock.nix_store(&below).arg("--add").arg(&file).succeed()?;
    for dir in [&upper, &work, &merged.join("nix/store")] {
        fs::create_dir_all(dir)?;
    }
    let point = merged.join("nix/store");
    let _mount = OverlayMount::new(&[&below.join("nix/store")], &upper, &work, &point)?;
    let url = format!(
        "local-overlay://?root={}&lower-store={}&upper-layer={}",
        merged.display(),
        below.display(),
        upper.display()
    );
    stock.nix(&url).args(["path-info", object.line()?]).succeed()?;
    fs::write(&file, "above\n")?;
    let added = stock.nix_store(&url).arg("--add").arg(&file).succeed()?;
    let name = added.line()?.strip_prefix("/nix/store/").unwrap_or_default();
    ensure!(upper.join(name).is_file(), "{added} is not in the upper layer");
    stock
        .nix_store(&url)
        .args(["--verify", "--check-contents"])
        .succeed()?;
    Ok(())
}
