// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deduplication beside stock Nix: the same of equal stores where it is meant to be, what is meant to differ, and each on what
//! the other left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use superpose_tests::{Layers, Need, StockNix, Suite, Tree, stock_trials, superpose_crashing_at};

use crate::beside::{Mounted, expect_clean, mounted};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        local_stores_are_linked_alike,
        links_of_the_other_are_known_without_hashing
    );
    stock_trials!(
        suite,
        [Need::Root],
        equal_stores_are_equal_afterwards,
        only_superpose_keeps_the_good_copy,
        only_superpose_links_above,
        only_superpose_keeps_collectors_away,
        stock_lives_with_our_links,
        superpose_lives_with_links_of_stock
    );
    stock_trials!(
        suite,
        [Need::Root, Need::CrashPoints],
        a_crashed_deduplication_does_not_stop_stock
    );
}

const TEXT: &str = "a text that several objects have\n";

fn object(dir: &Path, path: &str) -> std::path::PathBuf {
    dir.join(path.trim_start_matches("/nix/store/"))
}

fn inode(file: impl AsRef<Path>) -> Result<u64> {
    let file = file.as_ref();
    let stat = fs::symlink_metadata(file).with_context(|| file.display().to_string())?;
    Ok(stat.ino())
}

/// The names of regular files in the farm of links of a layer.
fn farm(layer: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(layer.join(".links"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Which paths of the objects in a layer are names of one file; files alone are left out.
fn groups(layer: &Path) -> Result<BTreeSet<BTreeSet<String>>> {
    let mut found: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut left = vec![layer.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name() == ".links" {
                continue;
            }
            let stat = entry.metadata()?;
            if stat.is_dir() {
                left.push(path);
            } else if stat.is_file() && stat.len() > 0 {
                let name = path.strip_prefix(layer)?.to_string_lossy().into_owned();
                found.entry(stat.ino()).or_default().insert(name);
            }
        }
    }
    Ok(found.into_values().filter(|names| names.len() > 1).collect())
}

/// Trees with files of common contents, executable or not, a symbolic link and an empty file.
fn fill(layers: &Layers) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for name in ["one", "two", "three"] {
        let tree = layers.join(name);
        fs::create_dir_all(tree.join("bin"))?;
        for (file, text) in [
            ("bin/tool", TEXT),
            ("plain", TEXT),
            ("other", "shared by all\n"),
            ("own", name),
            ("nothing", ""),
        ] {
            fs::write(tree.join(file), text)?;
        }
        fs::set_permissions(tree.join("bin/tool"), fs::Permissions::from_mode(0o755))?;
        symlink("/nowhere", tree.join("link"))?;
        let add = layers.below()?.arg("add").arg(&tree).succeed()?;
        paths.push(add.line()?.to_owned());
    }
    paths.push(layers.add_below("lone", TEXT, &[])?);
    Ok(paths)
}

fn local_stores_are_linked_alike(stock: StockNix) -> Result<()> {
    let (ours, theirs) = (Layers::new()?, Layers::new()?);
    ensure!(fill(&ours)? == fill(&theirs)?);
    let said = stock.nix_store(theirs.lower()).arg("--optimise").succeed()?;
    let report = ours.below()?.args(["optimise", "--json"]).succeed()?.json()?;
    ensure!(
        groups(&ours.lower_dir())? == groups(&theirs.lower_dir())?,
        "{report} {said}"
    );
    ensure!(groups(&ours.lower_dir())?.len() == 3);
    // Stock has an entry for every file; here what is alone in its size has none. The names are the same.
    let (our_farm, their_farm) = (farm(&ours.lower_dir())?, farm(&theirs.lower_dir())?);
    ensure!(our_farm.is_subset(&their_farm), "{our_farm:?} {their_farm:?}");
    // Links and empty files are left, since that gives back no blocks.
    let links = |layers: &Layers, name: &str| -> Result<BTreeSet<u64>> {
        let objects = fs::read_dir(layers.lower_dir())?;
        let mut inodes = BTreeSet::new();
        for entry in objects {
            let file = entry?.path().join(name);
            if file.symlink_metadata().is_ok() {
                inodes.insert(inode(&file)?);
            }
        }
        Ok(inodes)
    };
    for name in ["link", "nothing"] {
        ensure!(
            links(&ours, name)?.len() == 3 && links(&theirs, name)?.len() == 1,
            "{name}"
        );
    }
    for layers in [&ours, &theirs] {
        expect_clean(stock.nix_store(layers.lower()))?;
        layers.below()?.args(["verify", "--check-contents"]).succeed()?;
    }
    Ok(())
}

fn links_of_the_other_are_known_without_hashing(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    fill(&layers)?;
    stock.nix_store(layers.lower()).arg("--optimise").succeed()?;
    let report = layers.below()?.args(["optimise", "--json"]).succeed()?.json()?;
    ensure!(
        report["linked"] == 0 && report["hashed"] == 0 && report["searched"] == 4,
        "{report}"
    );
    // The other way round stock has nothing left but what we never link.
    let layers = Layers::new()?;
    for name in ["one", "two"] {
        let tree = layers.join(name);
        fs::create_dir_all(&tree)?;
        fs::write(tree.join("file"), TEXT)?;
        layers.below()?.arg("add").arg(&tree).succeed()?;
    }
    layers.below()?.arg("optimise").succeed()?;
    let said = stock.nix_store(layers.lower()).arg("--optimise").succeed()?;
    ensure!(
        said.errors().contains("by hard-linking 0 files") || said.text()?.contains("by hard-linking 0 files"),
        "{said}"
    );
    // Its collector prunes what nothing is a link to.
    ensure!(farm(&layers.lower_dir())?.len() == 1);
    stock.nix_store(layers.lower()).arg("--gc").succeed()?;
    ensure!(farm(&layers.lower_dir())?.is_empty());
    Ok(())
}

/// An overlay store with a file and a tree in both layers, and two own objects that are the same inside.
fn with_duplicates() -> Result<(Mounted, [String; 2])> {
    let (mounted, paths) = mounted(|layers| {
        Ok([
            layers.add_tree_below("tree", &[])?,
            layers.add_below("file", "file\n", &[])?,
        ])
    })?;
    for path in &paths {
        mounted.layers.duplicate(path)?;
    }
    for name in ["own", "twin"] {
        mounted.layers.add_above(name, TEXT, &[&paths[0]])?;
    }
    Ok((mounted, paths))
}

fn equal_stores_are_equal_afterwards(stock: StockNix) -> Result<()> {
    let ((ours, paths), (theirs, same)) = (with_duplicates()?, with_duplicates()?);
    ensure!(paths == same);
    let below = Tree::of(&ours.layers.lower())?;
    theirs.nix_store(stock).arg("--optimise").succeed()?;
    theirs.superpose()?.arg("remount").succeed()?;
    ours.superpose()?
        .args(["optimise", "--only-duplicates"])
        .succeed()?;
    below.expect_unchanged(&ours.layers.lower())?;
    ensure!(ours.layers.upper_names()? == theirs.layers.upper_names()?);
    let dump = |mounted: &Mounted| {
        let dump = mounted.nix_store(stock).arg("--dump-db").succeed()?;
        Ok::<_, anyhow::Error>(dump.text()?.to_owned())
    };
    ensure!(dump(&ours)? == dump(&theirs)?, "the rows differ");
    for mounted in [&ours, &theirs] {
        for path in &paths {
            ensure!(!object(&mounted.layers.upper(), path).exists());
            mounted
                .nix_store(stock)
                .args(["--check-validity", path])
                .succeed()?;
        }
        mounted.expect_whole(stock)?;
    }
    Ok(())
}

fn only_superpose_keeps_the_good_copy(stock: StockNix) -> Result<()> {
    for missing in [false, true] {
        let (mounted, [path, _]) = with_duplicates()?;
        let below = object(&mounted.layers.lower_dir(), &path);
        if missing {
            fs::rename(&below, mounted.layers.join("aside"))?;
        } else {
            let file = below.join("share/text");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
            fs::write(&file, "bad!")?;
        }
        let said = mounted.superpose()?.arg("optimise").exit_with(1)?;
        ensure!(said.text()?.contains("is left"), "{said}");
        let good = object(&mounted.layers.upper(), &path).join("share/text");
        ensure!(fs::read_to_string(&good)? == "tree");
        mounted.expect_whole(stock)?;
        // Status 0, and the only good copy is gone.
        mounted.nix_store(stock).arg("--optimise").succeed()?;
        ensure!(!good.exists());
    }
    Ok(())
}

fn only_superpose_links_above(stock: StockNix) -> Result<()> {
    let (mounted, _) = with_duplicates()?;
    let names = || -> Result<Vec<u64>> {
        let names = mounted.layers.upper_names()?;
        let own = names
            .iter()
            .filter(|name| name.ends_with("-own") || name.ends_with("-twin"));
        own.map(|name| inode(mounted.layers.upper().join(name))).collect()
    };
    mounted.nix_store(stock).arg("--optimise").succeed()?;
    ensure!(names()?[0] != names()?[1]);
    mounted.superpose()?.arg("optimise").succeed()?;
    ensure!(names()?[0] == names()?[1]);
    Ok(())
}

/// Somebody else collects, or reads the roots: the changes wait, and stock does not.
fn only_superpose_keeps_collectors_away(stock: StockNix) -> Result<()> {
    let (mounted, _) = with_duplicates()?;
    let path = mounted.layers.database().with_file_name("../gc.lock");
    let lock = fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let waits = mounted
        .superpose()?
        .args(["--wait", "0", "optimise"])
        .exit_with(1)?;
    ensure!(waits.errors().contains("gc.lock"), "{waits}");
    ensure!(mounted.layers.upper_names()?.len() == 4);
    mounted.nix_store(stock).arg("--optimise").succeed()?;
    ensure!(mounted.layers.upper_names()?.len() == 2);
    Ok(())
}

/// Adds a file as a stock Nix that links by itself.
fn add_linking(mounted: &Mounted, stock: StockNix, name: &str, text: &str) -> Result<String> {
    let file = mounted.layers.file(name, text)?;
    let add = mounted
        .nix_store(stock)
        .args(["--option", "auto-optimise-store", "true", "--add"]);
    Ok(add.arg(file).succeed()?.line()?.to_owned())
}

fn stock_lives_with_our_links(stock: StockNix) -> Result<()> {
    let (mounted, [tree, _]) = with_duplicates()?;
    mounted.superpose()?.arg("optimise").succeed()?;
    let upper = mounted.layers.upper();
    let farm_before = farm(&upper)?;
    ensure!(farm_before.len() == 1);
    let leader = inode(upper.join(".links").join(farm_before.first().context("one")?))?;
    mounted.expect_whole(stock)?;
    mounted.nix_store(stock).arg("--optimise").succeed()?;
    mounted.expect_whole(stock)?;
    // What it adds becomes a link to our file.
    let added = add_linking(&mounted, stock, "added", TEXT)?;
    ensure!(inode(object(&upper, &added))? == leader);
    // Its collector removes what is dead, and prunes the farm when nothing is left.
    let keep = mounted.layers.join("keep");
    mounted
        .superpose()?
        .arg("add-root")
        .arg(&keep)
        .arg(&added)
        .succeed()?;
    mounted.nix_store(stock).arg("--gc").succeed()?;
    ensure!(mounted.layers.upper_names()? == [object(Path::new(""), &added).to_string_lossy()]);
    ensure!(fs::read_to_string(object(&mounted.layers.merged(), &added))? == TEXT);
    mounted.expect_whole(stock)?;
    fs::remove_file(keep)?;
    mounted.nix_store(stock).arg("--gc").succeed()?;
    ensure!(!farm(&upper)?.contains(farm_before.first().context("one")?));
    mounted
        .nix_store(stock)
        .args(["--check-validity", &tree])
        .succeed()?;
    mounted.expect_whole(stock)
}

fn superpose_lives_with_links_of_stock(stock: StockNix) -> Result<()> {
    let (mounted, _) = mounted(|layers| {
        for name in ["below", "beside"] {
            layers.add_below(name, TEXT, &[])?;
        }
        layers.below()?.arg("optimise").succeed()?;
        ensure!(farm(&layers.lower_dir())?.len() == 1);
        Ok(())
    })?;
    let upper = mounted.layers.upper();
    // Stock finds the link of the lower store through the merged view, and copies it up.
    let copied_up = add_linking(&mounted, stock, "copied-up", TEXT)?;
    ensure!(farm(&upper)?.len() == 1);
    // And these are linked as in any store.
    let linked = [
        add_linking(&mounted, stock, "linked", "another text\n")?,
        add_linking(&mounted, stock, "linked-too", "another text\n")?,
    ];
    ensure!(inode(object(&upper, &linked[0]))? == inode(object(&upper, &linked[1]))?);
    let own = ["own", "twin"].map(|name| mounted.layers.add_above(name, TEXT, &[]));
    let own = own.into_iter().collect::<Result<Vec<_>>>()?;
    let third = mounted.layers.add_above("third", "another text\n", &[])?;
    let below = Tree::of(&mounted.layers.lower())?;
    let report = mounted
        .superpose()?
        .args(["optimise", "--json"])
        .succeed()?
        .json()?;
    // Of a file with several names the kernel keeps no notes when it copies it up: the copy is as good as any.
    for path in &own {
        ensure!(
            inode(object(&upper, path))? == inode(object(&upper, &copied_up))?,
            "{report}"
        );
    }
    ensure!(
        inode(object(&upper, &third))? == inode(object(&upper, &linked[0]))?,
        "{report}"
    );
    for (path, text) in [(&copied_up, TEXT), (&own[1], TEXT), (&third, "another text\n")] {
        ensure!(fs::read_to_string(object(&mounted.layers.merged(), path))? == text);
    }
    mounted
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    below.expect_unchanged(&mounted.layers.lower())?;
    mounted.expect_whole(stock)
}

/// No deduplication has more points.
const MOST_POINTS: u32 = 60;

fn a_crashed_deduplication_does_not_stop_stock(stock: StockNix) -> Result<()> {
    for point in 1..MOST_POINTS {
        let (mounted, [tree, file]) = with_duplicates()?;
        let own = mounted.layers.add_above("kept", TEXT, &[&file])?;
        mounted
            .superpose()?
            .arg("add-root")
            .arg(mounted.layers.join("keep"))
            .arg(&own)
            .succeed()?;
        let crashing = superpose_crashing_at(point)?
            .arg("--store")
            .arg(mounted.layers.url());
        let crashed = crashing.arg("optimise").run()?;
        // Stock knows nothing of the journal, and looks and collects before anybody else.
        let first = if point % 2 == 0 { "--optimise" } else { "--gc" };
        mounted
            .nix_store(stock)
            .args(["--gc", "--print-dead"])
            .succeed()?;
        mounted.nix_store(stock).arg(first).succeed()?;
        mounted.nix_store(stock).arg("--gc").succeed()?;
        mounted.superpose()?.args(["path-info", "--all"]).succeed()?;
        mounted.superpose()?.arg("remount").succeed()?;
        for path in [&tree, &file, &own] {
            mounted.superpose()?.args(["check-validity", path]).succeed()?;
        }
        let merged = mounted.layers.merged();
        ensure!(
            fs::read_to_string(object(&merged, &tree).join("share/text"))? == "tree",
            "point {point}"
        );
        ensure!(
            fs::read_to_string(object(&merged, &own))? == TEXT,
            "point {point}"
        );
        let status = mounted
            .superpose()?
            .args(["status", "--json"])
            .succeed()?
            .json()?;
        ensure!(status["interrupted"] == false, "{status}");
        mounted.superpose()?.arg("optimise").succeed()?;
        mounted.expect_whole(stock)?;
        if crashed.code() == Some(0) {
            ensure!(point > 12, "{crashed}");
            return Ok(());
        }
    }
    anyhow::bail!("still crashing at point {MOST_POINTS}")
}
