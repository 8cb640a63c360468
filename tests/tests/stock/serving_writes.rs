// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock clients change a store through our server, and through a stock daemon over an equal store: the same output, the
//! same exit status, the same store.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use superpose_tests::{
    Finished, Invocation, Layers, Need, Running, StockDaemon, StockNix, Suite, stock_trials, superpose,
};

use crate::beside::{Mounted, expect_clean, layered, lines, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        additions_are_the_same,
        transfers_are_the_same,
        removals_are_the_same,
        upkeep_is_the_same,
        a_connection_survives_what_is_refused,
        superpose_copies_through_the_server
    );
    stock_trials!(suite, [Need::Root], an_overlay_store_is_changed_by_both_in_turn);
}

/// Our server, of the store of a URL.
pub(crate) struct Serving {
    running: Running,
    socket: PathBuf,
}

impl Serving {
    pub(crate) fn start(superpose: Invocation, socket: &Path, more: &[&str]) -> Result<Self> {
        let serve = superpose.arg("serve").arg("--socket").arg(socket).args(more);
        let mut running = serve.start()?;
        running.wait_until("it answers", || Ok(answers(socket).is_ok()))?;
        Ok(Serving {
            running,
            socket: socket.to_path_buf(),
        })
    }

    /// Ends it, as a service manager does.
    pub(crate) fn stop(self) -> Result<()> {
        self.running.signal(rustix::process::Signal::TERM)?;
        let finished = self.running.finish()?;
        ensure!(finished.code() == Some(0), "{finished}");
        Ok(())
    }
}

/// Whether somebody at a socket answers the greeting of a client; one that is left from a killed server does not.
fn answers(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"cxin\0\0\0\0\x26\x01\0\0\0\0\0\0")?;
    stream.read_exact(&mut [0; 16])
}

/// How a client names a store that is served at a socket, and whose files are below a directory.
pub(crate) fn client_url(socket: &Path, root: &Path) -> OsString {
    let mut url = OsString::from("unix://");
    url.push(socket);
    url.push("?root=");
    url.push(root);
    url
}

/// Two equal stores: one behind our server, one behind a stock daemon.
pub(crate) struct Pair {
    pub(crate) layers: Layers,
    stock: StockNix,
    ours: (PathBuf, Serving),
    theirs: (PathBuf, StockDaemon),
    library: String,
    program: String,
}

impl Pair {
    pub(crate) fn new(stock: StockNix) -> Result<Self> {
        Self::with(stock, &[])
    }

    fn with(stock: StockNix, more: &[&str]) -> Result<Self> {
        let layers = Layers::new()?;
        let roots = [layers.join("ours"), layers.join("theirs")];
        let mut paths = Vec::new();
        for root in &roots {
            let add = |name: &str, references: &[&str]| -> Result<String> {
                let file = layers.file(name, format!("{name} {}\n", references.join(" ")))?;
                let mut add = superpose()?
                    .arg("--store")
                    .arg(root)
                    .args(["add", "--method", "text"]);
                for reference in references {
                    add = add.args(["--reference", reference]);
                }
                Ok(add.arg(file).succeed()?.line()?.to_owned())
            };
            let library = add("library", &[])?;
            let program = add("program", &[&library])?;
            paths = vec![library, program];
        }
        let [ours, theirs] = roots;
        let serving = Serving::start(superpose()?.arg("--store").arg(&ours), &layers.join("s1"), more)?;
        let daemon = StockDaemon::start(stock, &theirs, &layers.join("s2"))?;
        let [library, program] = <[String; 2]>::try_from(paths).map_err(|_| anyhow::anyhow!("two"))?;
        Ok(Pair {
            layers,
            stock,
            ours: (ours, serving),
            theirs: (theirs, daemon),
            library,
            program,
        })
    }

    pub(crate) fn our_url(&self) -> OsString {
        client_url(&self.layers.join("s1"), &self.ours.0)
    }

    /// The directory of the store behind our server.
    pub(crate) fn our_root(&self) -> &Path {
        &self.ours.0
    }

    /// The same of the stock daemon's.
    pub(crate) fn their_root(&self) -> &Path {
        &self.theirs.0
    }

    /// A path that both have.
    pub(crate) fn library(&self) -> &str {
        &self.library
    }

    pub(crate) fn their_url(&self) -> OsString {
        client_url(&self.layers.join("s2"), &self.theirs.0)
    }

    /// The same command for both; the same answer from both.
    fn both(
        &self,
        program: &str,
        prepare: impl Fn(Invocation) -> Invocation,
        compare: impl Fn(&Finished) -> Result<String>,
    ) -> Result<Finished> {
        let run = |url: OsString| {
            let invocation = self.stock.program(program).arg("--store").arg(url);
            prepare(invocation).run()
        };
        let (ours, theirs) = (run(self.our_url())?, run(self.their_url())?);
        ensure!(ours.code() == theirs.code(), "{ours}\n{theirs}");
        ensure!(compare(&ours)? == compare(&theirs)?, "{ours}\n{theirs}");
        Ok(ours)
    }

    pub(crate) fn nix_store(&self, args: &[&str]) -> Result<Finished> {
        self.both("nix-store", |run| run.args(args), text)
    }

    /// Both stores know the same, and neither finds anything wrong with ours.
    pub(crate) fn expect_equal(&self) -> Result<()> {
        let (ours, theirs) = (rows(&self.ours.0)?, rows(&self.theirs.0)?);
        ensure!(ours == theirs, "{ours:#?}\n{theirs:#?}");
        superpose()?
            .arg("--store")
            .arg(&self.ours.0)
            .args(["verify", "--check-contents"])
            .succeed()?;
        expect_clean(self.stock.nix_store(&self.ours.0))
    }
}

fn text(finished: &Finished) -> Result<String> {
    Ok(finished.text()?.to_owned())
}

/// What is printed, without how much was freed: blocks here, lengths there.
fn less_sizes(finished: &Finished) -> Result<String> {
    let lines = finished.text()?.lines();
    let short = lines.map(|line| line.split(", ").next().unwrap_or_default().to_owned());
    Ok(short.collect::<Vec<_>>().join("\n"))
}

fn sorted(finished: &Finished) -> Result<String> {
    Ok(lines(finished)?.into_iter().collect::<Vec<_>>().join("\n"))
}

/// What is known of all paths, less when they came.
pub(crate) fn rows(root: &Path) -> Result<Vec<String>> {
    let database = Connection::open(root.join("nix/var/nix/db/db.sqlite"))?;
    let mut select = database.prepare(
        "select path || ' ' || hash || ' ' || narSize || ' ' || ifnull(ca, '-') || ' ' || ifnull(sigs, '-') || ' ' ||
         ifnull(ultimate, 0) || ' ' || (select count(*) from Refs where referrer = id) from ValidPaths order by path",
    )?;
    let found = select.query_map([], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn additions_are_the_same(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let tree = tree(&pair.layers, "tree")?;
    let tree = tree.to_str().context("UTF-8")?;
    let file = pair.layers.file("plain", "contents\n")?;
    let file = file.to_str().context("UTF-8")?;
    // More than is hashed in memory.
    let large = pair.layers.file("large", vec![7; 40 << 20])?;
    let large = large.to_str().context("UTF-8")?;
    for _ in 0..2 {
        pair.nix_store(&["--add", tree])?;
        pair.nix_store(&["--add", file])?;
        pair.nix_store(&["--add-fixed", "sha256", file])?;
        pair.nix_store(&["--add-fixed", "sha1", file])?;
        pair.nix_store(&["--add-fixed", "--recursive", "sha256", tree])?;
        pair.nix_store(&["--add-fixed", "sha256", large])?;
        pair.nix_store(&["--add", large])?;
        for mode in ["nar", "flat", "text"] {
            pair.both(
                "nix",
                |run| run.args(["store", "add", "--mode", mode, file]),
                text,
            )?;
        }
        let expression = crate::beside::DERIVATIONS;
        let finished = pair.both("nix-instantiate", |run| run.args(["-E", expression]), text)?;
        ensure!(finished.code() == Some(0), "{finished}");
    }
    // What cannot be added.
    let refused = pair.nix_store(&["--add", "/nowhere/at/all"])?;
    ensure!(refused.code() == Some(1), "{refused}");
    pair.expect_equal()
}

fn transfers_are_the_same(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let elsewhere = Layers::new()?;
    let one = elsewhere.add_below("one", "one\n", &[])?;
    let two = elsewhere.add_tree_below("two", &[&one])?;
    let large = elsewhere.add_large_below(5 << 20)?;
    let stream = elsewhere.below()?.args(["export", &one, &two]).succeed()?.stdout;
    let import = |run: Invocation| run.arg("--import").input(stream.clone());
    for _ in 0..2 {
        let imported = pair.both("nix-store", import, text)?;
        ensure!(imported.code() == Some(0), "{imported}");
    }
    // Half of it.
    let half = |run: Invocation| run.arg("--import").input(&stream[..stream.len() / 2]);
    let refused = pair.both("nix-store", half, text)?;
    ensure!(refused.code() == Some(1), "{refused}");
    let from = elsewhere.lower();
    let copy = |run: Invocation| run.args(["copy", "--from"]).arg(&from).args([&two, &large]);
    for _ in 0..2 {
        let copied = pair.both("nix", copy, text)?;
        ensure!(copied.code() == Some(0), "{copied}");
    }
    pair.expect_equal()?;
    // Nobody vouches for it.
    let unsigned = elsewhere.add_tree_below("unsigned", &[])?;
    Connection::open(elsewhere.lower_database())?.execute_batch("update ValidPaths set ca = null")?;
    let copy = |run: Invocation| run.args(["copy", "--from"]).arg(&from).arg(&unsigned);
    let refused = pair.both("nix", copy, text)?;
    ensure!(refused.code() == Some(1), "{refused}");
    ensure!(
        refused.errors().contains("lacks a signature by a trusted key"),
        "{refused}"
    );
    let copy = |run: Invocation| copy(run).arg("--no-check-sigs");
    let copied = pair.both("nix", copy, text)?;
    ensure!(copied.code() == Some(0), "{copied}");
    pair.expect_equal()
}

fn removals_are_the_same(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let (library, program) = (pair.library.as_str(), pair.program.as_str());
    let link = |name: &str| {
        pair.layers
            .join(name)
            .to_str()
            .map(str::to_owned)
            .context("UTF-8")
    };
    // A root each, at the same place one after the other, would be the same link: each has its own.
    for (url, name) in [(pair.our_url(), "root-1"), (pair.their_url(), "root-2")] {
        let realise = stock
            .nix_store(url)
            .args(["-r", program, "--add-root", &link(name)?]);
        realise.succeed()?;
    }
    let refused = pair.nix_store(&["--delete", library])?;
    ensure!(refused.code() == Some(1), "{refused}");
    let dead = pair.layers.file("dead", "dead\n")?;
    let dead = pair
        .nix_store(&["--add", dead.to_str().context("UTF-8")?])?
        .line()?
        .to_owned();
    for question in ["--print-dead", "--print-live"] {
        let answer = pair.both("nix-store", |run| run.args(["--gc", question]), sorted)?;
        ensure!(answer.code() == Some(0) && !answer.stdout.is_empty(), "{answer}");
    }
    pair.expect_equal()?;
    let deleted = pair.both("nix-store", |run| run.args(["--delete", &dead]), less_sizes)?;
    ensure!(deleted.code() == Some(0), "{deleted}");
    pair.both("nix-store", |run| run.arg("--gc"), less_sizes)?;
    pair.expect_equal()?;
    ensure!(rows(&pair.ours.0)?.len() == 2);
    for name in ["root-1", "root-2"] {
        fs::remove_file(link(name)?)?;
    }
    let collected = pair.both("nix", |run| run.args(["store", "gc"]), less_sizes)?;
    ensure!(collected.code() == Some(0), "{collected}");
    ensure!(rows(&pair.ours.0)?.is_empty() && rows(&pair.theirs.0)?.is_empty());
    Ok(())
}

fn upkeep_is_the_same(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let secret = stock
        .program("nix")
        .args(["key", "generate-secret", "--key-name", "test-1"]);
    let secret = pair.layers.file("secret", secret.succeed()?.stdout)?;
    let sign = |run: Invocation| {
        let sign = run.args(["store", "sign", "--recursive", "--key-file"]);
        sign.arg(&secret).arg(&pair.program)
    };
    for _ in 0..2 {
        let signed = pair.both("nix", sign, text)?;
        ensure!(signed.code() == Some(0), "{signed}");
    }
    ensure!(rows(&pair.ours.0)?.iter().all(|row| row.contains("test-1:")));
    pair.expect_equal()?;
    for (name, text) in [("twin-1", vec![5; 90_000]), ("twin-2", vec![5; 90_000])] {
        let file = pair.layers.file(name, text)?;
        pair.nix_store(&["--add", file.to_str().context("UTF-8")?])?;
    }
    let optimised = pair.nix_store(&["--optimise"])?;
    ensure!(optimised.code() == Some(0), "{optimised}");
    let verified = pair.nix_store(&["--verify", "--check-contents"])?;
    ensure!(verified.code() == Some(0), "{verified}");
    let realised = pair.nix_store(&["-r", &pair.program])?;
    ensure!(realised.line()? == pair.program, "{realised}");
    let built = pair.both(
        "nix",
        |run| run.args(["build", "--no-link", "--print-out-paths", &pair.library]),
        text,
    )?;
    ensure!(built.line()? == pair.library, "{built}");
    pair.expect_equal()?;
    // What is damaged is found by both.
    for root in [&pair.ours.0, &pair.theirs.0] {
        let name = Path::new(&pair.library).file_name().context("a name")?;
        fs::write(root.join("nix/store").join(name), "damaged\n")?;
    }
    let verified = pair.nix_store(&["--verify", "--check-contents"])?;
    ensure!(verified.code() == Some(1), "{verified}");
    Ok(())
}

/// A client that copies one object that is refused and one that is not, on one connection.
fn a_connection_survives_what_is_refused(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    // The first is refused in the middle of its upload, the second goes on the same connection.
    let elsewhere = Layers::new()?;
    let good = elsewhere.add_below("good", "good\n", &[])?;
    let stream = elsewhere.below()?.args(["export", &good]).succeed()?.stdout;
    let (root, _serving) = &pair.ours;
    let large = pair.layers.file("large", vec![9; 8 << 20])?;
    let large = stock
        .nix_store(pair.layers.join("third"))
        .arg("--add")
        .arg(large)
        .succeed()?;
    let large = large.line()?.to_owned();
    let name = Path::new(&large).file_name().context("a name")?;
    let copy = pair.layers.join("third").join("nix/store").join(name);
    fs::write(copy, vec![8; 8 << 20])?;
    let from = pair.layers.join("third");
    let refused = stock
        .nix(pair.our_url())
        .args(["copy", "--no-check-sigs", "--from"]);
    let refused = refused.arg(&from).arg(&large).exit_with(1)?;
    ensure!(refused.errors().contains("mismatch"), "{refused}");
    ensure!(rows(root)?.len() == 2);
    let imported = stock
        .nix_store(pair.our_url())
        .arg("--import")
        .input(stream)
        .succeed()?;
    ensure!(imported.line()? == good, "{imported}");
    let names = fs::read_dir(root.join("nix/store"))?.count();
    // Two from before, the good one, and the farm of links.
    ensure!(names == 4, "{names} names are left");
    Ok(())
}

fn superpose_copies_through_the_server(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let elsewhere = Layers::new()?;
    let one = elsewhere.add_below("one", "one\n", &[])?;
    let two = elsewhere.add_tree_below("two", &[&one])?;
    let mut url = OsString::from("unix://");
    url.push(&pair.ours.1.socket);
    elsewhere
        .below()?
        .arg("copy")
        .arg("--to")
        .arg(&url)
        .arg(&two)
        .succeed()?;
    ensure!(rows(&pair.ours.0)?.len() == 4);
    let back = pair.layers.join("back");
    let copy = superpose()?
        .arg("--store")
        .arg(&back)
        .arg("copy")
        .arg("--from")
        .arg(&url);
    copy.args([&two, &pair.program]).succeed()?;
    ensure!(rows(&back)? == rows(&pair.ours.0)?);
    expect_clean(stock.nix_store(&back))
}

fn an_overlay_store_is_changed_by_both_in_turn(stock: StockNix) -> Result<()> {
    let (mounted, [_, program]) = layered()?;
    let layers = &mounted.layers;
    let client = client_url(&layers.join("s"), &layers.root());
    let serve = |mounted: &Mounted| Serving::start(mounted.superpose()?, &layers.join("s"), &[]);
    let add = |name: &str| -> Result<String> {
        let file = layers.file(name, format!("{name}\n"))?;
        Ok(stock
            .nix_store(&client)
            .arg("--add")
            .arg(file)
            .succeed()?
            .line()?
            .to_owned())
    };
    let below = crate::beside::rows(&mounted)?;
    let serving = serve(&mounted)?;
    let ours = add("ours")?;
    // What is below is not added again.
    let again = layers.file("ground", "ground\n")?;
    stock
        .nix(&client)
        .args(["store", "add", "--mode", "nar"])
        .arg(again)
        .succeed()?;
    ensure!(
        layers.upper_names()?.iter().all(|name| ours.ends_with(name)),
        "{:?}",
        layers.upper_names()?
    );
    serving.stop()?;
    let daemon = StockDaemon::start(stock, layers.url(), &layers.join("s"))?;
    let theirs = add("theirs")?;
    stock.nix_store(&client).args(["-q", "--hash", &ours]).succeed()?;
    drop(daemon);
    let serving = serve(&mounted)?;
    stock.nix_store(&client).args(["-r", &program]).succeed()?;
    let both = stock
        .nix_store(&client)
        .args(["-q", "--hash", &ours, &theirs])
        .succeed()?;
    ensure!(both.text()?.lines().count() == 2, "{both}");
    mounted.expect_whole(stock)?;
    stock.nix_store(&client).arg("--gc").succeed()?;
    ensure!(layers.upper_names()?.is_empty(), "{:?}", layers.upper_names()?);
    ensure!(crate::beside::rows(&mounted)? <= below);
    stock
        .nix_store(&client)
        .args(["--check-validity", &program])
        .succeed()?;
    serving.stop()?;
    mounted.expect_whole(stock)
}
