// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `superpose optimise` does to an overlay store, says of it, and refuses.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Result, ensure};
use superpose_tests::{Layers, Need, OverlayMount, SmallDisk, Suite, Tree, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        duplicates_and_links_are_reported,
        a_copy_that_differs_is_a_fault_and_stays,
        a_dry_run_says_the_same_and_changes_nothing,
        many_duplicates_go_with_one_remount,
        a_full_disk_costs_nothing
    );
}

fn base(path: &str) -> &str {
    path.trim_start_matches("/nix/store/")
}

struct Store {
    layers: Layers,
    _mount: OverlayMount,
    duplicates: Vec<String>,
    own: Vec<String>,
}

/// Two duplicates, and two objects of one text that are above only.
fn store() -> Result<Store> {
    let layers = Layers::new()?;
    let duplicates = vec![
        layers.add_tree_below("one", &[])?,
        layers.add_tree_below("two", &[])?,
    ];
    let mount = layers.mount()?;
    for duplicate in &duplicates {
        layers.duplicate(duplicate)?;
    }
    let own = ["a", "b"].map(|name| layers.add_above(name, "the text of both\n", &[]));
    Ok(Store {
        layers,
        _mount: mount,
        duplicates,
        own: own.into_iter().collect::<Result<_>>()?,
    })
}

impl Store {
    fn expect_whole(&self) -> Result<()> {
        let verify = self.layers.superpose()?.args(["verify", "--check-contents"]);
        verify.succeed()?;
        Ok(())
    }

    fn inode(&self, path: &str) -> Result<u64> {
        Ok(fs::symlink_metadata(self.layers.upper().join(base(path)))?.ino())
    }
}

fn duplicates_and_links_are_reported() -> Result<()> {
    let store = store()?;
    let below = Tree::of(&store.layers.lower())?;
    let done = store.layers.superpose()?.arg("optimise").succeed()?;
    let text = done.text()?;
    for duplicate in &store.duplicates {
        let line = format!("'{duplicate}' dropped: the lower store has it\n");
        ensure!(text.contains(&line), "{done}");
    }
    ensure!(text.contains("2 objects dropped, 0 left, "), "{done}");
    ensure!(
        text.ends_with("4.0 KiB freed by hard-linking 1 files\n"),
        "{done}"
    );
    ensure!(store.inode(&store.own[0])? == store.inode(&store.own[1])?);
    ensure!(store.layers.upper_names()?.len() == 2);
    store.expect_whole()?;
    below.expect_unchanged(&store.layers.lower())?;
    let again = store
        .layers
        .superpose()?
        .args(["optimise", "--json"])
        .succeed()?
        .json()?;
    ensure!(
        again["dropped"] == serde_json::json!([]) && again["linked"] == 0 && again["remounted"] == false,
        "{again}"
    );
    Ok(())
}

fn a_copy_that_differs_is_a_fault_and_stays() -> Result<()> {
    let store = store()?;
    let (damaged, missing) = (&store.duplicates[0], &store.duplicates[1]);
    let file = store.layers.lower_dir().join(base(damaged)).join("share/text");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    fs::write(&file, "damaged")?;
    let object = store.layers.lower_dir().join(base(missing));
    fs::rename(&object, store.layers.join("aside"))?;
    let found = store.layers.superpose()?.arg("optimise").exit_with(1)?;
    let line = |path: &str| {
        found
            .text()
            .map(|text| text.lines().find(|line| line.contains(path)).map(str::to_owned))
    };
    let said = line(damaged)?.unwrap_or_default();
    ensure!(
        said.contains("is left: it is not the same in the two layers at 'share/text'")
            && said.contains("the lower layer has a file of 7 bytes, the upper layer a file of 3 bytes")
            && said.contains("that in the lower layer is modified: expected sha256:"),
        "{found}"
    );
    let said = line(missing)?.unwrap_or_default();
    ensure!(
        said.contains("missing there: expected it at") && said.contains(&*object.to_string_lossy()),
        "{found}"
    );
    let json = store
        .layers
        .superpose()?
        .args(["optimise", "--json"])
        .exit_with(1)?
        .json()?;
    let kept = |path: &str| {
        let kept = json["kept"]
            .as_array()
            .and_then(|kept| kept.iter().find(|kept| kept["path"] == path));
        kept.cloned().unwrap_or_default()
    };
    let different = kept(damaged);
    ensure!(
        different["reason"] == "different"
            && different["at"] == "share/text"
            && different["fault"] == true
            && different["modified"][0]["layer"] == "lower",
        "{different}"
    );
    ensure!(kept(missing)["reason"] == "missing", "{json}");
    let good = store.layers.upper().join(base(damaged)).join("share/text");
    ensure!(
        fs::read_to_string(good)? == "one",
        "the only good copy is still there"
    );
    store.expect_whole()
}

fn a_dry_run_says_the_same_and_changes_nothing() -> Result<()> {
    let store = store()?;
    store.expect_whole()?;
    let upper = Tree::of(&store.layers.upper())?;
    let said = store
        .layers
        .superpose()?
        .args(["optimise", "--dry-run"])
        .succeed()?;
    ensure!(
        said.text()?.contains("would be dropped: the lower store has it")
            && said.text()?.contains("2 objects would be dropped, 0 left\n")
            && said
                .text()?
                .ends_with("4.0 KiB would be freed by hard-linking 1 files\n"),
        "{said}"
    );
    upper.expect_unchanged(&store.layers.upper())?;
    let links = store
        .layers
        .superpose()?
        .args(["optimise", "--only-links", "--json"])
        .succeed()?
        .json()?;
    ensure!(
        links["linked"] == 1 && links["dropped"] == serde_json::json!([]),
        "{links}"
    );
    let objects = store
        .layers
        .superpose()?
        .args(["optimise", "--only-duplicates", "--json"])
        .succeed()?;
    ensure!(
        objects.json()?["dropped"]
            .as_array()
            .is_some_and(|dropped| dropped.len() == 2),
        "{objects}"
    );
    store.expect_whole()
}

/// A hook that counts.
fn many_duplicates_go_with_one_remount() -> Result<()> {
    let layers = Layers::new()?;
    let hook = layers.join("hook");
    fs::write(&hook, "#!/bin/sh\necho once >> \"$0.log\"\n")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let layers = layers.with("remount-hook", hook.as_os_str());
    layers.add_below("ground", "ground\n", &[])?;
    let _mount = layers.mount()?;
    let mut paths = Vec::new();
    for number in 0..40 {
        paths.push(layers.file(&format!("object-{number}"), number.to_string())?);
    }
    layers.superpose()?.arg("add").args(&paths).succeed()?;
    layers.below()?.arg("add").args(&paths).succeed()?;
    let log = hook.with_extension("log");
    fs::remove_file(&log).ok();
    let report = layers
        .superpose()?
        .args(["optimise", "--json"])
        .succeed()?
        .json()?;
    ensure!(
        report["dropped"]
            .as_array()
            .is_some_and(|dropped| dropped.len() == 40),
        "{report}"
    );
    ensure!(fs::read_to_string(log)? == "once\n");
    Ok(())
}

fn fill(path: &Path) -> Result<()> {
    let mut file = fs::File::create(path)?;
    let block = vec![1; 4096];
    while file.write_all(&block).is_ok() {}
    Ok(())
}

/// Without any space the intent cannot be written: nothing is begun. With a little it is done, and gives space back.
fn a_full_disk_costs_nothing() -> Result<()> {
    let layers = Layers::new()?.with_upper_in("disk").with_state_in("disk");
    let path = layers.add_tree_below("tree", &[])?;
    let disk = SmallDisk::in_memory(&layers.join("disk"), 40, 2000)?;
    let _mount = layers.mount()?;
    layers.duplicate(&path)?;
    let own = ["a", "b"].map(|name| layers.add_above(name, "the text of both\n", &[]));
    let own = own.into_iter().collect::<Result<Vec<_>>>()?;
    // The ballast of the database goes first: it would be given up for the journal.
    fs::remove_file(layers.database().with_file_name("reserved"))?;
    fs::create_dir(layers.database().with_file_name("reserved"))?;
    let filler = disk.path().join("filler");
    fill(&filler)?;
    // The time of the layer moves with the question of where the trash is.
    let object = layers.upper().join(base(&path));
    let before = (Tree::of(&object)?, layers.upper_names()?);
    let failed = layers.superpose()?.arg("optimise").exit_with(1)?;
    ensure!(
        failed.errors().contains("No space left on device") || failed.errors().contains("full"),
        "{failed}"
    );
    before.0.expect_unchanged(&object)?;
    ensure!(layers.upper_names()? == before.1);
    fs::remove_file(&filler)?;
    let report = layers
        .superpose()?
        .args(["optimise", "--json"])
        .succeed()?
        .json()?;
    ensure!(
        report["dropped"][0] == path.as_str() && report["linked"] == 1,
        "{report}"
    );
    let inode =
        |path: &str| Ok::<_, anyhow::Error>(fs::symlink_metadata(layers.upper().join(base(path)))?.ino());
    ensure!(inode(&own[0])? == inode(&own[1])?);
    layers
        .superpose()?
        .args(["verify", "--check-contents"])
        .succeed()?;
    Ok(())
}
