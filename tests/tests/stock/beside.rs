// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores that stock Nix and superpose work on, and how their answers are compared.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde_json::Value;
use superpose_tests::{Finished, Invocation, Layers, OverlayMount, StockNix};

/// A tree with everything that an archive can hold.
pub(crate) fn tree(layers: &Layers, name: &str) -> Result<PathBuf> {
    let top = layers.join(name);
    fs::create_dir_all(top.join("empty"))?;
    fs::create_dir_all(top.join("bin"))?;
    fs::write(top.join("bin/tool"), "#!/bin/sh\n")?;
    fs::set_permissions(top.join("bin/tool"), fs::Permissions::from_mode(0o755))?;
    fs::write(top.join("plain"), vec![7; 70_000])?;
    fs::write(top.join("nothing"), "")?;
    fs::write(top.join("name with blank"), name)?;
    symlink("/nowhere/at all", top.join("link"))?;
    Ok(top)
}

/// A mounted overlay store.
pub(crate) struct Mounted {
    pub(crate) layers: Layers,
    _mount: OverlayMount,
}

/// Mounts a store, in the one way that stock Nix accepts; `prepare` makes what lies below.
pub(crate) fn mounted<T>(prepare: impl FnOnce(&Layers) -> Result<T>) -> Result<(Mounted, T)> {
    let layers = Layers::new()?;
    let prepared = prepare(&layers)?;
    // A lower store without a database is one that stock Nix would make.
    layers.add_below("ground", "ground\n", &[])?;
    let mount = layers.mount()?;
    let mounted = Mounted {
        layers,
        _mount: mount,
    };
    Ok((mounted, prepared))
}

impl Mounted {
    /// A run of `nix-store` on the overlay store.
    pub(crate) fn nix_store(&self, stock: StockNix) -> Invocation {
        stock.nix_store(self.layers.url())
    }

    /// A run of superpose on the overlay store.
    pub(crate) fn superpose(&self) -> Result<Invocation> {
        self.layers.superpose()
    }

    /// Both find nothing wrong, contents included.
    pub(crate) fn expect_whole(&self, stock: StockNix) -> Result<()> {
        self.superpose()?.args(["verify", "--check-contents"]).succeed()?;
        expect_clean(self.nix_store(stock))
    }
}

/// Stock Nix finds nothing wrong with a store, contents included.
pub(crate) fn expect_clean(nix_store: Invocation) -> Result<()> {
    let verified = nix_store.args(["--verify", "--check-contents"]).succeed()?;
    for complaint in [
        "error",
        "modified",
        "disappeared",
        "warning",
        "fixing",
        "updating",
    ] {
        ensure!(!verified.errors().contains(complaint), "{verified}");
    }
    Ok(())
}

/// The lines that a program printed, without their order: where an order is promised, it is only that dependencies
/// come first.
pub(crate) fn lines(finished: &Finished) -> Result<BTreeSet<String>> {
    Ok(finished.text()?.lines().map(str::to_owned).collect())
}

/// What both say about paths in JSON: superpose's in the words of that stock Nix.
pub(crate) fn infos(
    stock: StockNix,
    ours: Invocation,
    theirs: Invocation,
    paths: &[&str],
) -> Result<[Value; 2]> {
    let mut found = [
        ours.args(["path-info", "--json"]).args(paths).succeed()?.json()?,
        theirs
            .args(["path-info", "--json"])
            .args(paths)
            .succeed()?
            .json()?,
    ];
    for info in found[0].as_object_mut().context("an object")?.values_mut() {
        let info = info.as_object_mut().context("an object for each path")?;
        for key in ["layer", "metadata"] {
            ensure!(info.remove(key).is_some(), "no {key}");
        }
        // They came with 2.33.
        if stock == StockNix::Trixie {
            info.remove("version");
            info.remove("storeDir");
        }
    }
    Ok(found)
}

/// What stock Nix makes of an expression: the path of the derivation.
pub(crate) fn instantiate(stock: StockNix, store: &Path, expression: &str) -> Result<String> {
    let instantiate = stock.program("nix-instantiate").arg("--store").arg(store);
    let finished = instantiate.args(["-E", expression]).succeed()?;
    Ok(finished.line()?.to_owned())
}

/// Derivations of every kind that a store need not build: input-addressed, of several outputs, fixed, with inputs.
pub(crate) const DERIVATIONS: &str = r#"
    let
      make = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // more);
      fixed = make "fixed" {
        outputHash = "0000000000000000000000000000000000000000000000000000";
        outputHashAlgo = "sha256"; outputHashMode = "recursive";
      };
      flat = make "flat" { outputHash = "da39a3ee5e6b4b0d3255bfef95601890afd80709"; outputHashAlgo = "sha1"; };
      file = builtins.toFile "script" "exit 0\n";
      library = make "library" { outputs = [ "out" "dev" "doc" ]; inherit fixed; };
    in make "program" { inherit library flat file; dev = library.dev; quote = "\" \\ \n \t"; }
"#;

/// How many paths the upper database knows.
pub(crate) fn rows(mounted: &Mounted) -> Result<i64> {
    let database = Connection::open(mounted.layers.database())?;
    Ok(database.query_row("select count(*) from ValidPaths", [], |row| row.get(0))?)
}

/// A mounted store with a library and a program that refers to it below, and nothing above.
pub(crate) fn layered() -> Result<(Mounted, [String; 2])> {
    let (mounted, paths) = mounted(|layers| {
        let library = layers.add_tree_below("library", &[])?;
        let program = layers.add_tree_below("program", &[&library])?;
        Ok([library, program])
    })?;
    // Both make the database first.
    mounted.superpose()?.arg("verify").succeed()?;
    Ok((mounted, paths))
}
