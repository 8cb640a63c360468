// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deduplication by somebody without rights, for whom the directories of objects are read-only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use superpose_tests::{
    Invocation, Layers, Need, Suite, make_writable_directory, superpose_as_ordinary_user, trials,
};

pub(crate) fn register(suite: &mut Suite) {
    trials!(suite, [], files_in_read_only_directories_become_links);
    trials!(
        suite,
        [Need::UserNamespaces],
        an_overlay_store_of_a_user_is_deduplicated
    );
}

const TEXT: &str = "a text that both of them have\n";

/// A tree to be added, with the text at two places.
fn source(layers: &Layers, name: &str) -> Result<PathBuf> {
    let tree = layers.join(name);
    fs::create_dir_all(tree.join("inner"))?;
    fs::write(tree.join("one"), TEXT)?;
    fs::write(tree.join("inner/two"), TEXT)?;
    Ok(tree)
}

fn object(dir: &Path, path: &str) -> PathBuf {
    dir.join(path.trim_start_matches("/nix/store/"))
}

fn expect_linked(object: &Path) -> Result<()> {
    let files = [object.join("one"), object.join("inner/two")];
    let inodes = files.iter().map(|file| Ok(fs::symlink_metadata(file)?.ino()));
    let inodes = inodes.collect::<Result<Vec<_>>>()?;
    ensure!(inodes[0] == inodes[1], "{inodes:?}");
    for directory in [object.to_owned(), object.join("inner")] {
        let stat = fs::symlink_metadata(&directory)?;
        let found = (stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec());
        ensure!(found == (0o555, 1, 0), "{}: {found:?}", directory.display());
    }
    ensure!(fs::read_to_string(&files[0])? == TEXT);
    Ok(())
}

fn files_in_read_only_directories_become_links() -> Result<()> {
    let layers = Layers::new()?;
    make_writable_directory(&layers.lower())?;
    let user = || -> Result<Invocation> {
        Ok(superpose_as_ordinary_user()?
            .arg("--store")
            .arg(layers.lower_url()))
    };
    let path = user()?.arg("add").arg(source(&layers, "tree")?).succeed()?;
    let object = object(&layers.lower_dir(), path.line()?);
    let report = user()?.args(["optimise", "--json"]).succeed()?.json()?;
    ensure!(
        report["linked"] == 1 && report["skipped"]["refused"] == 0,
        "{report}"
    );
    expect_linked(&object)?;
    user()?.args(["verify", "--check-contents"]).succeed()?;
    let again = user()?.args(["optimise", "--json"]).succeed()?.json()?;
    ensure!(again["linked"] == 0 && again["searched"] == 0, "{again}");
    let refused = user()?.args(["optimise", "--only-duplicates"]).exit_with(2)?;
    ensure!(refused.errors().contains("is a local store"), "{refused}");
    Ok(())
}

fn an_overlay_store_of_a_user_is_deduplicated() -> Result<()> {
    let layers = Layers::new()?;
    let tree = source(&layers, "tree")?;
    let duplicate = source(&layers, "duplicate")?;
    layers.add_below("ground", "ground\n", &[])?;
    for dir in [layers.upper(), layers.work(), layers.root()] {
        make_writable_directory(&dir)?;
    }
    let run = || -> Result<Invocation> {
        Ok(superpose_as_ordinary_user()?
            .arg("--store")
            .arg(layers.url())
            .args(["run", "--workdir"])
            .arg(layers.work())
            .arg("--")
            .arg(superpose_tests::program_path()?))
    };
    let tree = run()?.arg("add").arg(&tree).succeed()?.line()?.to_owned();
    let above = run()?.arg("add").arg(&duplicate).succeed()?.line()?.to_owned();
    let below = layers.below()?.arg("add").arg(&duplicate).succeed()?;
    ensure!(below.line()? == above);
    let report = run()?.args(["optimise", "--json"]).succeed()?.json()?;
    ensure!(
        report["dropped"][0] == above.as_str() && report["linked"] == 1,
        "{report}"
    );
    expect_linked(&object(&layers.upper(), &tree))?;
    ensure!(!object(&layers.upper(), &above).exists());
    run()?.args(["verify", "--check-contents"]).succeed()?;
    Ok(())
}
