// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose gc` on an overlay store: what it says, what it does, and bad roots of every kind.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, params};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use superpose_store_path::{Hash, HashAlgorithm, HashPart, Name, StoreDir, StorePath, hash_bytes};
use superpose_tests::{
    Invocation, Layers, Need, OverlayMount, Suite, Tree, make_writable_directory, program_path,
    superpose_as_ordinary_user, trials,
};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        what_is_said_and_done,
        questions_change_nothing,
        bad_roots_are_passed_over,
        a_root_directory_that_cannot_be_read_is_passed_over,
        what_could_hide_a_root_stops_the_collection,
        a_collection_below_at_the_same_time,
        a_limit_with_a_suffix
    );
    trials!(suite, [], memory_grows_with_the_rows);
}

struct Mounted {
    layers: Layers,
    _mount: OverlayMount,
    /// Above, with a root of its own.
    alive: String,
    /// Above, and needed by nobody; the first refers to the second.
    dead: [String; 2],
    /// Below; the first dead object refers to it.
    below: String,
}

fn mounted() -> Result<Mounted> {
    let layers = Layers::new()?;
    let below = layers.add_tree_below("below", &[])?;
    let mount = layers.mount()?;
    let alive = layers.add_above("alive", "alive\n", &[])?;
    let second = layers.add_above("second", "second\n", &[])?;
    let first = layers.add_above("first", "first\n", &[&second, &below])?;
    layers
        .superpose()?
        .arg("add-root")
        .arg(layers.join("result"))
        .arg(&alive)
        .succeed()?;
    Ok(Mounted {
        layers,
        _mount: mount,
        alive,
        dead: [first, second],
        below,
    })
}

impl Mounted {
    fn gc(&self, arguments: &[&str]) -> Result<Invocation> {
        Ok(self.layers.superpose()?.arg("gc").args(arguments))
    }

    /// Only the dead are gone.
    fn expect_collected(&self) -> Result<()> {
        let names = self.layers.upper_names()?;
        ensure!(names == [base(&self.alive)], "{names:?}");
        self.layers
            .superpose()?
            .args(["verify", "--check-contents"])
            .succeed()?;
        self.layers
            .superpose()?
            .args(["check-validity", &self.alive, &self.below])
            .succeed()?;
        Ok(())
    }

    fn expect_untouched(&self) -> Result<()> {
        let names = self.layers.upper_names()?;
        ensure!(names.len() == 3, "{names:?}");
        self.layers
            .superpose()?
            .args(["check-validity", &self.dead[0]])
            .succeed()?;
        Ok(())
    }
}

fn base(path: &str) -> &str {
    path.trim_start_matches("/nix/store/")
}

fn sorted(paths: &[&String]) -> Vec<String> {
    let mut paths: Vec<String> = paths.iter().map(|path| (*path).clone()).collect();
    paths.sort();
    paths
}

fn lines(paths: &[String]) -> String {
    paths.iter().map(|path| format!("{path}\n")).collect()
}

fn what_is_said_and_done() -> Result<()> {
    let mounted = mounted()?;
    let lower = Tree::of(&mounted.layers.lower())?;
    let [first, second] = &mounted.dead;
    let roots = mounted.gc(&["--print-roots"])?.succeed()?;
    let link = mounted.layers.join("result");
    ensure!(
        roots
            .text()?
            .contains(&format!("{} -> {}\n", link.display(), mounted.alive)),
        "{roots}"
    );
    let live = mounted.gc(&["--print-live"])?.succeed()?;
    ensure!(live.line()? == mounted.alive, "{live}");
    let dead = mounted.gc(&["--print-dead"])?.succeed()?;
    ensure!(
        dead.text()? == lines(&sorted(&[first, second, &mounted.below])),
        "{dead}"
    );
    let rehearsed = mounted.gc(&["--dry-run"])?.succeed()?;
    ensure!(
        rehearsed.line()? == "2 store paths would be deleted, 8.0 KiB would be freed",
        "{rehearsed}"
    );
    let collected = mounted.gc(&["--json"])?.succeed()?.json()?;
    ensure!(
        collected
            == json!({
                "dryRun": false,
                "deleted": sorted(&[first, second]),
                "forgotten": [mounted.below],
                "junk": [],
                "linksRemoved": 0,
                "bytesFreed": 8192,
                "inodesFreed": 2,
                "entriesRemoved": 2,
                "waiting": 0,
                "remounted": false,
            }),
        "{collected}"
    );
    mounted.expect_collected()?;
    let again = mounted.gc(&[])?.succeed()?;
    ensure!(again.line()? == "0 store paths deleted, 0.0 KiB freed", "{again}");
    lower.expect_unchanged(&mounted.layers.lower())
}

/// Every row of the upper database.
fn rows(layers: &Layers) -> Result<Vec<String>> {
    let database = Connection::open(layers.database())?;
    let mut statement = database.prepare(
        "select path || '|' || coalesce(group_concat(reference), '') from ValidPaths \
         left join Refs on referrer = id group by id order by path",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn questions_change_nothing() -> Result<()> {
    let mounted = mounted()?;
    let layers = &mounted.layers;
    fs::write(layers.upper().join("junk"), "")?;
    fs::create_dir(layers.upper().join("tmp-1-1"))?;
    symlink("/nowhere", layers.state().join("gcroots/auto/stale"))?;
    fs::write(layers.state().join("temproots/4711"), "")?;
    // Opened once, so that whatever opening makes is there.
    mounted.gc(&["--print-roots"])?.succeed()?;
    let trees = || -> Result<_> {
        let state = ["gcroots", "temproots", "superpose", "profiles"].map(|name| layers.state().join(name));
        let directories = [layers.upper(), layers.lower()].into_iter().chain(state);
        let existing = directories.filter(|directory| directory.exists());
        existing
            .map(|directory| Ok((Tree::of(&directory)?, directory)))
            .collect::<Result<Vec<_>>>()
    };
    let (before, rows_before) = (trees()?, rows(layers)?);
    let names = |layers: &Layers| -> Result<Vec<_>> {
        let mut names = fs::read_dir(layers.state())?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let state_before = names(layers)?;
    for question in ["--print-roots", "--print-live", "--print-dead", "--dry-run"] {
        for json in [&[][..], &["--json"]] {
            mounted.gc(&[question])?.args(json).succeed()?;
            for (tree, directory) in &before {
                tree.expect_unchanged(directory)
                    .with_context(|| format!("after {question}"))?;
            }
            ensure!(rows(layers)? == rows_before, "rows changed after {question}");
            ensure!(names(layers)? == state_before, "{:?}", names(layers)?);
        }
    }
    Ok(())
}

fn bad_roots_are_passed_over() -> Result<()> {
    let mounted = mounted()?;
    let layers = &mounted.layers;
    let roots = layers.state().join("gcroots");
    let elsewhere = layers.join("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("file"), "")?;
    symlink("loop", elsewhere.join("loop"))?;
    for (name, target) in [
        ("dangling", "/nowhere/at/all".to_owned()),
        ("not-valid", format!("/nix/store/{}-gone", "0".repeat(32))),
        ("cyclic", "cyclic".to_owned()),
        ("two", "three".to_owned()),
        ("three", "two".to_owned()),
        (
            "through-a-loop",
            elsewhere.join("loop/x").to_string_lossy().into_owned(),
        ),
        ("outside", elsewhere.to_string_lossy().into_owned()),
        (
            "below-a-file",
            elsewhere.join("file/x").to_string_lossy().into_owned(),
        ),
        ("to-the-store", "/nix/store".to_owned()),
        ("no-store-path", "/nix/store/rubbish".to_owned()),
        ("other-store", format!("/gnu/store/{}", base(&mounted.dead[0]))),
        // A root that leads to an object that is only below.
        ("below", mounted.below.clone()),
    ] {
        symlink(target, roots.join(name))?;
    }
    symlink("cyclic", roots.join("auto/cyclic"))?;
    // The owner of the file lives; its name is no number.
    let protected = layers.add_above("protected", "protected\n", &[])?;
    let owned = fs::File::create(layers.state().join("temproots/builder-7"))?;
    fs::write(
        layers.state().join("temproots/builder-7"),
        format!("{protected}\0"),
    )?;
    flock(&owned, FlockOperation::LockExclusive)?;
    let collected = mounted.gc(&["--json"])?.succeed()?;
    let json = collected.json()?;
    let [first, second] = &mounted.dead;
    ensure!(json["deleted"] == json!(sorted(&[first, second])), "{collected}");
    layers
        .superpose()?
        .args(["check-validity", &protected])
        .succeed()?;
    drop(owned);
    mounted.gc(&[])?.succeed()?;
    mounted.expect_collected()
}

fn a_root_directory_that_cannot_be_read_is_passed_over() -> Result<()> {
    // As root there is nothing that cannot be read: a local store of somebody without rights.
    let layers = Layers::new()?;
    make_writable_directory(&layers.lower())?;
    let store = || -> Result<Invocation> {
        Ok(superpose_as_ordinary_user()?
            .arg("--store")
            .arg(layers.lower_url()))
    };
    let add = |name: &str| -> Result<String> {
        let file = layers.file(name, name)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        Ok(store()?.arg("add").arg(file).succeed()?.line()?.to_owned())
    };
    let (hidden, seen) = (add("hidden")?, add("seen")?);
    let roots = layers.lower().join("nix/var/nix/gcroots");
    symlink(&seen, roots.join("seen"))?;
    fs::create_dir(roots.join("closed"))?;
    symlink(&hidden, roots.join("closed/hidden"))?;
    fs::set_permissions(roots.join("closed"), fs::Permissions::from_mode(0o000))?;
    let collected = store()?.args(["gc", "--json"]).succeed()?;
    ensure!(collected.json()?["deleted"] == json!([hidden]), "{collected}");
    ensure!(
        collected.errors().contains("cannot read a possible root")
            && collected.errors().contains("gcroots/closed"),
        "{collected}"
    );
    Ok(())
}

fn what_could_hide_a_root_stops_the_collection() -> Result<()> {
    let mounted = mounted()?;
    let file = mounted.layers.state().join("temproots/4711");
    let owned = fs::File::create(&file)?;
    fs::write(&file, format!("{}\0rubbish\0", mounted.dead[0]))?;
    flock(&owned, FlockOperation::LockExclusive)?;
    for question in [&[][..], &["--print-dead"], &["--max-freed", "1"]] {
        let refused = mounted.gc(question)?.exit_with(1)?;
        ensure!(
            refused.errors().contains("hold no store path at byte"),
            "{refused}"
        );
        mounted.expect_untouched()?;
    }
    drop(owned);
    fs::remove_file(&file)?;
    symlink("/dev/null", &file)?;
    let refused = mounted.gc(&[])?.exit_with(1)?;
    ensure!(refused.errors().contains("expected a regular file"), "{refused}");
    fs::remove_file(&file)?;
    mounted.gc(&[])?.succeed()?;
    mounted.expect_collected()
}

/// Stock Nix fails when the lower store is collected meanwhile.
fn a_collection_below_at_the_same_time() -> Result<()> {
    let mounted = mounted()?;
    let garbage: Vec<String> = (0..40)
        .map(|number| {
            mounted
                .layers
                .add_below("garbage", &format!("garbage {number}\n"), &[])
        })
        .collect::<Result<_>>()?;
    mounted
        .layers
        .below()?
        .arg("add-root")
        .arg(mounted.layers.join("keep-below"))
        .arg(&mounted.below)
        .succeed()?;
    // The lower store must not be collected below a mount; this shows that it harms nothing that is not gone.
    let below = mounted.layers.below()?.arg("gc").start()?;
    let above: Vec<_> = (0..5)
        .map(|_| mounted.gc(&[])?.start())
        .collect::<Result<Vec<_>>>()?;
    for running in above.into_iter().chain([below]) {
        let finished = running.finish()?;
        ensure!(finished.code() == Some(0), "{finished}");
    }
    mounted
        .layers
        .below()?
        .args(["check-validity", &garbage[0]])
        .exit_with(1)?;
    mounted.expect_collected()
}

fn a_limit_with_a_suffix() -> Result<()> {
    let mounted = mounted()?;
    let nothing = mounted.gc(&["--max-freed", "0"])?.succeed()?;
    ensure!(
        nothing.line()? == "0 store paths deleted, 0.0 KiB freed",
        "{nothing}"
    );
    mounted.expect_untouched()?;
    let one = mounted.gc(&["--max-freed", "1K"])?.succeed()?;
    ensure!(one.line()? == "1 store paths deleted, 4.0 KiB freed", "{one}");
    mounted
        .layers
        .superpose()?
        .args(["check-validity", &mounted.dead[1]])
        .succeed()?;
    mounted.gc(&["--max-freed", "1T"])?.succeed()?;
    mounted.expect_collected()
}

/// Rows of the store in the trial about memory.
const ROWS: u32 = 100_000;

/// What a collection may need of memory: so much in any case, and so much for each row. A million rows get 200 MiB.
const BASE_KIB: u32 = 10 << 10;
const KIB_PER_1000_ROWS: u32 = 190;

fn memory_grows_with_the_rows() -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("first", "first\n", &[])?;
    let newest = make_rows(&layers, ROWS)?;
    // All but the object that was really added, and the last hundred rows.
    let alive = full_path(ROWS - 101);
    symlink(
        StoreDir::default().join(&alive),
        layers.lower().join("nix/var/nix/gcroots/alive"),
    )?;
    ensure!(newest != alive);
    let run = |kib: u32, arguments: &str| -> Result<_> {
        let script = format!("ulimit -d {kib} && exec \"$0\" --store \"$1\" gc {arguments}");
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", &script])
            .arg(program_path()?)
            .arg(layers.lower_url());
        Ok(command.stdin(Stdio::null()).output()?)
    };
    let limit = BASE_KIB + ROWS / 1000 * KIB_PER_1000_ROWS;
    for (arguments, expected) in [("--print-dead", None), ("", Some("1 store paths deleted"))] {
        let little = run(3 << 10, "--print-dead")?;
        ensure!(!little.status.success(), "the limit limits nothing");
        let enough = run(limit, arguments)?;
        let said = String::from_utf8_lossy(&enough.stdout).into_owned();
        ensure!(
            enough.status.success(),
            "with {limit} KiB: {}",
            String::from_utf8_lossy(&enough.stderr)
        );
        match expected {
            Some(expected) => ensure!(said.starts_with(expected), "{said}"),
            None => ensure!(said.lines().count() == 101, "{} lines", said.lines().count()),
        }
    }
    let database = Connection::open(layers.lower_database())?;
    let left: u32 = database.query_row("select count(*) from ValidPaths", [], |row| row.get(0))?;
    ensure!(left == ROWS - 100, "{left} rows");
    Ok(())
}

fn full_path(number: u32) -> StorePath {
    let hash: Hash = hash_bytes(HashAlgorithm::Sha256, &number.to_le_bytes());
    let name = Name::new(format!("package-{number}-1.0").as_bytes()).expect("letters, digits, dashes, dots");
    StorePath::from_parts(HashPart::new(hash.compress()), &name)
}

/// Rows without objects: each refers to the one before and to three or four others. Returns the newest.
fn make_rows(layers: &Layers, count: u32) -> Result<StorePath> {
    let mut database = Connection::open(layers.lower_database())?;
    database.pragma_update(None, "synchronous", "off")?;
    let transaction = database.transaction()?;
    {
        let mut row = transaction.prepare(
            "insert into ValidPaths (id, path, hash, registrationTime, deriver, narSize, sigs) \
             values (?1, ?2, ?3, 1700000000, ?4, 4096, ?5)",
        )?;
        let mut reference = transaction.prepare("insert or ignore into Refs values (?1, ?2)")?;
        let dir = StoreDir::default();
        let (hash, signature) = ("0".repeat(64), "A".repeat(86));
        for number in 0..count {
            let id = number + 10;
            let path = dir.join(&full_path(number));
            let deriver = format!("{path}.drv");
            row.execute(params![
                id,
                path,
                format!("sha256:{hash}"),
                deriver,
                format!("cache.example.org-1:{signature}==")
            ])?;
            for other in 1..=4 + number % 2 {
                if number > 0 {
                    let back = if other == 1 {
                        1
                    } else {
                        1 + number.wrapping_mul(other * 7919) % number
                    };
                    reference.execute([id, id - back.min(number)])?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(full_path(count - 1))
}
