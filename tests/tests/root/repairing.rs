// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose verify --repair`: bad objects, wherever they are, make room for good ones of another store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, SmallDisk, Suite, Tree, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        objects_of_both_layers_are_repaired,
        without_a_source_what_can_be_mended_is,
        a_source_that_is_bad_itself_is_told,
        rows_that_cannot_be_read_are_told_and_left,
        the_quick_part_is_in_the_status,
        a_verification_is_stopped_by_a_signal,
        a_repair_on_a_full_tmpfs
    );
    trials!(suite, [Need::Root, Need::LoopDevices], a_repair_on_a_full_ext4);
}

/// An overlay store, and another store that has the same objects.
pub(crate) struct Doubled {
    pub(crate) layers: Layers,
    _mount: OverlayMount,
    good: Layers,
    /// In the lower store, a directory; with a row above.
    pub(crate) below: String,
    /// Above; refers to the one below.
    pub(crate) own: String,
}

pub(crate) fn doubled() -> Result<Doubled> {
    doubled_in(Layers::new()?)
}

fn doubled_in(layers: Layers) -> Result<Doubled> {
    let good = Layers::new()?;
    let below = layers.add_tree_below("below", &[])?;
    let mount = layers.mount()?;
    let own = layers.add_above("own", "own\n", &[&below])?;
    ensure!(good.add_tree_below("below", &[])? == below);
    ensure!(good.add_below("own", "own\n", &[&below])? == own);
    Ok(Doubled {
        layers,
        _mount: mount,
        good,
        below,
        own,
    })
}

fn name(path: &str) -> &str {
    path.trim_start_matches("/nix/store/")
}

pub(crate) fn spoil(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    Ok(fs::write(file, "spoilt")?)
}

impl Doubled {
    fn upper(&self, path: &str) -> std::path::PathBuf {
        self.layers.upper().join(name(path))
    }

    /// Spoils both objects.
    pub(crate) fn spoil(&self) -> Result<()> {
        spoil(&self.upper(&self.own))?;
        let below = self.layers.lower_dir().join(name(&self.below));
        spoil(&below.join("share/text"))?;
        fs::set_permissions(&below, fs::Permissions::from_mode(0o755))?;
        fs::write(below.join("more"), "bad")?;
        self.layers.superpose()?.arg("remount").succeed()?;
        Ok(())
    }

    pub(crate) fn repair(&self, verify: Invocation) -> Invocation {
        let verify = verify.args(["verify", "--check-contents", "--repair", "--from"]);
        verify.arg(self.good.lower_url())
    }

    fn verify(&self, status: i32) -> Result<Value> {
        let verify = self.layers.superpose()?;
        let verify = verify.args(["verify", "--check-contents", "--json"]);
        verify.exit_with(status)?.json()
    }

    /// The view shows what the good store has.
    pub(crate) fn expect_good(&self) -> Result<()> {
        ensure!(self.verify(0)?["faults"] == json!([]));
        for path in [&self.below, &self.own] {
            let ours = self.layers.superpose()?.args(["dump", path]).succeed()?;
            let good = self.good.below()?.args(["dump", path]).succeed()?;
            ensure!(ours.stdout == good.stdout, "{path}");
        }
        Ok(())
    }
}

fn objects_of_both_layers_are_repaired() -> Result<()> {
    let doubled = doubled()?;
    doubled.spoil()?;
    let below = Tree::of(&doubled.layers.lower())?;
    let found = doubled.verify(1)?;
    ensure!(
        found["faults"].as_array().map(Vec::len) == Some(2) && found["repaired"].is_null(),
        "{found}"
    );
    let repaired = doubled.repair(doubled.layers.superpose()?).succeed()?;
    let said = repaired.text()?;
    ensure!(
        said.matches("\n  repaired\n").count() == 2 && said.ends_with("2 faults, 2 repaired\n"),
        "{repaired}"
    );
    doubled.expect_good()?;
    ensure!(doubled.layers.upper_names()?.len() == 2, "both are above now");
    below.expect_unchanged(&doubled.layers.lower())?;
    // A second time there is nothing to do.
    let repaired = doubled
        .repair(doubled.layers.superpose()?)
        .arg("--json")
        .succeed()?
        .json()?;
    ensure!(
        repaired["faults"] == json!([]) && repaired["repaired"]["objects"] == json!([]),
        "{repaired}"
    );
    // A source without a repair is wrong usage.
    let misused = doubled.layers.superpose()?.args(["verify", "--from", "/"]);
    misused.exit_with(2)?;
    Ok(())
}

fn without_a_source_what_can_be_mended_is() -> Result<()> {
    let doubled = doubled()?;
    let hidden = doubled.layers.add_tree_below("hidden", &[])?;
    doubled.layers.superpose()?.arg("remount").succeed()?;
    let merged = doubled.layers.merged().join(name(&hidden));
    Invocation::new("rm").arg("-r").arg(&merged).succeed()?;
    spoil(&doubled.upper(&doubled.own))?;
    let verify = doubled
        .layers
        .superpose()?
        .args(["verify", "--check-contents", "--repair"]);
    let repaired = verify.exit_with(1)?;
    let said = repaired.text()?;
    ensure!(
        said.contains("hides it\n  repaired") && said.contains("not repaired: no store was named"),
        "{repaired}"
    );
    ensure!(
        repaired.errors().contains("1 objects need a good copy") && repaired.errors().contains("--from"),
        "{repaired}"
    );
    ensure!(merged.join("share/text").exists(), "the lower object shows");
    doubled.repair(doubled.layers.superpose()?).succeed()?;
    doubled.expect_good()
}

fn a_source_that_is_bad_itself_is_told() -> Result<()> {
    let doubled = doubled()?;
    doubled.spoil()?;
    spoil(&doubled.good.lower_dir().join(name(&doubled.own)))?;
    let repaired = doubled
        .repair(doubled.layers.superpose()?)
        .arg("--json")
        .exit_with(1)?
        .json()?;
    for fault in repaired["faults"].as_array().into_iter().flatten() {
        let is_own = fault["path"] == *doubled.own;
        ensure!(fault["repaired"] == !is_own, "{repaired}");
        let obstacle = fault["obstacle"].as_str().unwrap_or_default();
        ensure!(obstacle.contains("is modified itself") == is_own, "{repaired}");
    }
    ensure!(
        repaired["repaired"]["objects"] == json!([doubled.below]),
        "{repaired}"
    );
    // A store that is not there is said at once.
    let verify = doubled.layers.superpose()?;
    let verify = verify.args(["verify", "--repair", "--from", "/nonexistent"]);
    ensure!(verify.exit_with(1)?.stdout.is_empty());
    Ok(())
}

fn rows_that_cannot_be_read_are_told_and_left() -> Result<()> {
    for change in [
        "hash = 'sha256:xyz'",
        "hash = ''",
        "deriver = 'nowhere'",
        "sigs = 'nokey'",
        "ca = 'fixed:what'",
        "hash = x'00'",
    ] {
        let doubled = doubled()?;
        let database = Connection::open(doubled.layers.database())?;
        database.execute_batch(&format!("UPDATE ValidPaths SET {change} WHERE path LIKE '%-own'"))?;
        drop(database);
        let repaired = doubled
            .repair(doubled.layers.superpose()?)
            .arg("--json")
            .exit_with(1)?
            .json()?;
        let fault = &repaired["faults"][0];
        ensure!(
            fault["fault"] == "unreadable" && fault["path"] == *doubled.own && fault["repaired"] == false,
            "{change}: {repaired}"
        );
        let quick = doubled.layers.superpose()?.args(["verify", "--json"]);
        let quick = quick.exit_with(1)?.json()?;
        ensure!(quick["faults"][0]["fault"] == "unreadable", "{change}: {quick}");
    }
    // Odd numbers are no hindrance: a size is a note, and mended.
    for change in ["narSize = -5", "narSize = NULL", "narSize = 'large'", "id = -7"] {
        let doubled = doubled()?;
        let database = Connection::open(doubled.layers.database())?;
        database.execute_batch("PRAGMA foreign_keys = 0")?;
        database.execute_batch(&format!("UPDATE ValidPaths SET {change} WHERE path LIKE '%-own'"))?;
        drop(database);
        let found = doubled.verify(0)?;
        let notes = usize::from(change.starts_with("narSize"));
        ensure!(
            found["notes"].as_array().map(Vec::len) == Some(notes),
            "{change}: {found}"
        );
        doubled.repair(doubled.layers.superpose()?).succeed()?;
        ensure!(doubled.verify(0)?["notes"] == json!([]), "{change}");
    }
    Ok(())
}

fn the_quick_part_is_in_the_status() -> Result<()> {
    let doubled = doubled()?;
    let status = |code: i32| -> Result<Value> {
        let status = doubled.layers.superpose()?.args(["status", "--json"]);
        status.exit_with(code)?.json()
    };
    let whole = status(0)?;
    let upper = &whole["upper"];
    for count in [
        "rowsWithoutObjects",
        "unknownObjects",
        "foreignNames",
        "hiddenObjects",
    ] {
        ensure!(upper[count] == 0, "{count}: {whole}");
    }
    ensure!(upper["rows"] == 2 && upper["copiedRows"] == 1, "{whole}");
    let hidden = doubled.layers.add_below("hidden", "hidden\n", &[])?;
    doubled.layers.superpose()?.arg("remount").succeed()?;
    fs::remove_file(doubled.layers.merged().join(name(&hidden)))?;
    fs::remove_file(doubled.upper(&doubled.own))?;
    fs::create_dir(doubled.layers.upper().join("tmp-1-0"))?;
    let garbage = "26nci8mz5f9aldbsgmalpkj20xyqqd5c-garbage";
    fs::write(doubled.layers.upper().join(garbage), "")?;
    let found = status(1)?;
    let upper = &found["upper"];
    for count in [
        "rowsWithoutObjects",
        "unknownObjects",
        "foreignNames",
        "hiddenObjects",
    ] {
        ensure!(upper[count] == 1, "{count}: {found}");
    }
    ensure!(found["problems"].as_array().map(Vec::len) == Some(3), "{found}");
    let said = doubled.layers.superpose()?.arg("status").exit_with(1)?;
    ensure!(said.text()?.contains("verify --repair"), "{said}");
    Ok(())
}

/// In the middle of an object that is larger than anybody's patience.
fn a_verification_is_stopped_by_a_signal() -> Result<()> {
    let doubled = doubled()?;
    let object = doubled.upper(&doubled.own);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644))?;
    fs::File::options().write(true).open(&object)?.set_len(1 << 40)?;
    let rows = |layers: &Layers| -> Result<i64> {
        let database = Connection::open(layers.database())?;
        Ok(database.query_row("select count(*) from ValidPaths", [], |row| row.get(0))?)
    };
    let before = rows(&doubled.layers)?;
    let verify = doubled.layers.superpose()?.args(["verify", "--check-contents"]);
    let mut running = verify.start()?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(running.is_running()?);
    running.signal(Signal::INT)?;
    let begun = Instant::now();
    let stopped = running.finish()?;
    ensure!(stopped.code() == Some(1), "{stopped}");
    ensure!(stopped.errors().contains("stopped"), "{stopped}");
    ensure!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    ensure!(rows(&doubled.layers)? == before);
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Ext4,
    Memory,
}

/// Room for what is there, and not for a second copy of the large one.
fn on_a_full_disk(kind: Kind) -> Result<()> {
    let layers = Layers::new()?.with_upper_in("disk");
    let point = layers.join("disk");
    let disk = match kind {
        Kind::Ext4 => SmallDisk::ext4(&layers.join("image"), &point, 20, 100)?,
        Kind::Memory => SmallDisk::in_memory(&point, 20, 100)?,
    };
    let doubled = doubled_in(layers)?;
    let large = doubled.layers.file("large", vec![7; 12 << 20])?;
    let path = doubled.layers.superpose()?.arg("add").arg(&large).succeed()?;
    let path = path.line()?.to_owned();
    doubled.good.below()?.arg("add").arg(&large).succeed()?;
    let object = doubled.upper(&path);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644))?;
    let mut bad = vec![7; 12 << 20];
    bad[1000] = 8;
    fs::write(&object, &bad)?;
    let names = doubled.layers.upper_names()?;
    let failed = doubled.repair(doubled.layers.superpose()?).exit_with(1)?;
    ensure!(failed.stdout.is_empty(), "{failed}");
    for said in ["cannot repair", name(&path), "No space left on device"] {
        ensure!(failed.errors().contains(said), "no `{said}` in {failed}");
    }
    ensure!(fs::read(&object)? == bad, "the old state stays");
    ensure!(doubled.layers.upper_names()? == names, "something was left");
    // With room it works.
    fs::remove_file(&object)?;
    doubled.layers.superpose()?.arg("remount").succeed()?;
    let user = doubled
        .layers
        .superpose()?
        .args(["add", "--reference", &path])
        .arg(doubled.layers.file("user", "user\n")?);
    user.succeed()?;
    doubled.repair(doubled.layers.superpose()?).succeed()?;
    doubled.expect_good()?;
    drop(disk);
    Ok(())
}

fn a_repair_on_a_full_ext4() -> Result<()> {
    on_a_full_disk(Kind::Ext4)
}

fn a_repair_on_a_full_tmpfs() -> Result<()> {
    on_a_full_disk(Kind::Memory)
}
