// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores behind a stock daemon: asked directly, and as lower stores.

use std::ffi::OsString;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use superpose_metadata::{
    Closure, DaemonSource, MetadataSource, OpenDaemon, RealisationKey, RealisationKind,
};
use superpose_store_path::{StoreDir, StorePath};
use superpose_tests::{
    Invocation, Layers, Need, StockDaemon, StockNix, Suite, Tree, stock_trials, superpose,
};

use crate::backend_suite::{fixture, questions};
use crate::beside::{DERIVATIONS, infos, instantiate, lines, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        a_daemon_answers_what_every_source_answers,
        realisations_are_not_there_and_do_no_harm,
        questions_are_answered_as_by_the_store_itself,
        outputs_of_derivations_are_those_of_the_store,
        objects_are_read_from_the_store_directory,
        nothing_is_changed_through_a_daemon,
        a_conversation_that_is_killed_goes_on,
        a_daemon_that_starts_anew_is_found_again,
        whichever_store_is_there_is_taken
    );
    stock_trials!(
        suite,
        [Need::Root],
        an_overlay_lies_over_a_daemon_that_serves_an_overlay,
        a_daemon_below_that_is_not_there_stops_what_needs_it
    );
}

/// A store with a daemon before it.
struct Served {
    layers: Layers,
    daemon: StockDaemon,
}

impl Served {
    fn new(stock: StockNix, layers: Layers) -> Result<Self> {
        let daemon = StockDaemon::start(stock, layers.lower_url(), &layers.join("daemon"))?;
        Ok(Self { layers, daemon })
    }

    fn url(&self) -> OsString {
        self.layers.daemon_url(self.daemon.socket())
    }

    fn superpose(&self) -> Result<Invocation> {
        Ok(superpose()?.arg("--store").arg(self.url()))
    }

    fn source(&self) -> DaemonSource {
        DaemonSource::new(OpenDaemon::new(self.daemon.socket(), StoreDir::default()))
    }
}

/// A library, a program that refers to it, and something else.
fn served(stock: StockNix) -> Result<(Served, [String; 3])> {
    let layers = Layers::new()?;
    let library = layers.add_tree_below("library", &[])?;
    let program = layers.add_tree_below("program", &[&library])?;
    let other = layers
        .below()?
        .arg("add")
        .arg(tree(&layers, "other")?)
        .succeed()?;
    let other = other.line()?.to_owned();
    Ok((Served::new(stock, layers)?, [library, program, other]))
}

fn parsed(path: &str) -> Result<StorePath> {
    Ok(StoreDir::default().parse_path(path.as_bytes())?)
}

/// The suite of all backends.
fn a_daemon_answers_what_every_source_answers(stock: StockNix) -> Result<()> {
    let state = fixture::State::with_sample();
    let top = Layers::new()?;
    let url = format!(
        "local?state={}&real={}",
        state.dir().parent().unwrap_or(&state.dir()).display(),
        top.join("real").display()
    );
    fs::create_dir(top.join("real"))?;
    let daemon = StockDaemon::start(stock, url, &top.join("daemon"))?;
    questions::check(&DaemonSource::new(OpenDaemon::new(
        daemon.socket(),
        StoreDir::default(),
    )));
    Ok(())
}

/// The daemon of 2.26 ends the connection over this question, that of 2.34 answers with an error.
fn realisations_are_not_there_and_do_no_harm(stock: StockNix) -> Result<()> {
    let (served, [library, ..]) = served(stock)?;
    let source = served.source();
    let library = [parsed(&library)?];
    ensure!(source.are_valid(&library)? == [true]);
    let keys = [RealisationKey {
        kind: RealisationKind::HashModulo,
        derivation: format!("sha256:{}", "0".repeat(64)),
        output: "out".to_owned(),
    }];
    ensure!(source.realisations(&keys)? == [None]);
    ensure!(source.are_valid(&library)? == [true]);
    Ok(())
}

fn questions_are_answered_as_by_the_store_itself(stock: StockNix) -> Result<()> {
    let (served, [library, program, other]) = served(stock)?;
    let drv = instantiate(stock, &served.layers.lower(), DERIVATIONS)?;
    let hash_part = &library["/nix/store/".len()..][..32];
    let unknown = format!("/nix/store/{}-unknown", "0".repeat(32));
    let root = served.layers.join("root");
    let add_root = served.layers.below()?.arg("add-root").arg(&root);
    add_root.arg(&program).succeed()?;
    let questions: &[&[&str]] = &[
        &["path-info", "-r", &program],
        &["path-info", "-r", "-s", "-S", &drv, &other],
        &["path-info", "--all", "--json"],
        &["path-info", "--json", &unknown, &library],
        &["path-info", &unknown],
        &["query", "--references", &program],
        &["query", "--referrers", &library],
        &["query", "--referrers-closure", &library],
        &["query", "--requisites", &drv],
        &["query", "--deriver", &program],
        &["query", "--valid-derivers", &library],
        &["query", "--outputs", &drv],
        &["query", "--hash", &program],
        &["query", "--size", &program],
        &["query", "--hash-part", hash_part],
        &["check-validity", &program, &library],
        &["check-validity", "--print-invalid", &program, &unknown],
        &["check-validity", &unknown],
    ];
    for question in questions {
        let expected = served.layers.below()?.args(*question).run()?;
        let found = served.superpose()?.args(*question).run()?;
        ensure!(
            found.code() == expected.code() && lines(&found)? == lines(&expected)?,
            "{expected}\n{found}"
        );
    }
    // The daemon says what its roots are; other processes that use something are shown by both, if there are any.
    let roots = served
        .superpose()?
        .args(["query", "--roots", &library])
        .succeed()?;
    ensure!(roots.text()?.contains(&root.display().to_string()), "{roots}");
    // The order is that of dependencies.
    let closure = served
        .superpose()?
        .args(["path-info", "-r", &program])
        .succeed()?;
    ensure!(closure.text()? == format!("{library}\n{program}\n"), "{closure}");
    // The client of Nix says the same by the same socket.
    let [ours, theirs] = infos(
        stock,
        served.superpose()?,
        stock.nix(served.url()),
        &[&library, &program, &other],
    )?;
    ensure!(ours == theirs, "{ours}\n{theirs}");
    Ok(())
}

fn outputs_of_derivations_are_those_of_the_store(stock: StockNix) -> Result<()> {
    let (served, _) = served(stock)?;
    let drv = instantiate(stock, &served.layers.lower(), DERIVATIONS)?;
    let source = served.source();
    let closure = source.closure(&[parsed(&drv)?], Closure::References)?;
    let outputs = source.derivation_outputs(&closure)?;
    ensure!(
        outputs.iter().flatten().any(|outputs| outputs.len() == 3),
        "{outputs:?}"
    );
    for (path, outputs) in closure.iter().zip(outputs.into_iter().flatten()) {
        let full = StoreDir::default().join(path);
        if !full.ends_with(".drv") {
            ensure!(outputs.is_empty(), "{full}: {outputs:?}");
            continue;
        }
        let asked = stock
            .nix_store(served.layers.lower())
            .args(["--query", "--outputs", &full]);
        let expected = lines(&asked.succeed()?)?;
        let found = outputs.iter().map(|(_, path)| StoreDir::default().join(path));
        ensure!(
            found.collect::<std::collections::BTreeSet<_>>() == expected,
            "{full}: {outputs:?}"
        );
    }
    Ok(())
}

fn objects_are_read_from_the_store_directory(stock: StockNix) -> Result<()> {
    let (served, [library, program, other]) = served(stock)?;
    for arguments in [&["dump", &other][..], &["export", &program, &library]] {
        let expected = served.layers.below()?.args(arguments).succeed()?;
        ensure!(served.superpose()?.args(arguments).succeed()?.stdout == expected.stdout);
    }
    // Copied from there to a store of our own.
    let own = Layers::new()?;
    let copy = own
        .below()?
        .args(["copy", "--no-check-sigs", "--from"])
        .arg(served.url());
    copy.arg(&program).succeed()?;
    own.below()?.args(["verify", "--check-contents"]).succeed()?;
    own.below()?
        .args(["check-validity", &library, &program])
        .succeed()?;
    // Where the directory is not to be seen, what is known is told all the same.
    let hidden = OsString::from(format!(
        "unix://{}?real=/no/such",
        served.daemon.socket().display()
    ));
    let hidden = |command: &str| {
        Ok::<_, anyhow::Error>(superpose()?.arg("--store").arg(&hidden).args([command, &other]))
    };
    hidden("path-info")?.succeed()?;
    let failed = hidden("dump")?.exit_with(1)?;
    ensure!(failed.errors().contains("/no/such"), "{failed}");
    Ok(())
}

fn nothing_is_changed_through_a_daemon(stock: StockNix) -> Result<()> {
    let (served, [library, ..]) = served(stock)?;
    let file = served.layers.file("file", "file\n")?.display().to_string();
    // The daemon's own database is open from here on.
    served.superpose()?.args(["path-info", &library]).succeed()?;
    let before = Tree::of(&served.layers.lower().join("nix/store"))?;
    for arguments in [
        &["add", &file][..],
        &["delete", &library],
        &["gc"],
        &["ensure", &library],
        &["optimise"],
        &["verify"],
        &["mount"],
        &["add-root", "/no/such/root", &library],
    ] {
        let refused = served.superpose()?.args(arguments).exit_with(2)?;
        ensure!(
            refused.errors().contains("is only asked") && refused.errors().contains("daemon"),
            "{refused}"
        );
    }
    before.expect_unchanged(&served.layers.lower().join("nix/store"))
}

/// Somebody kills the processes of the daemon that we talk to, again and again: every answer is right all the same, or an
/// error that says what happened. It is never half an answer.
fn a_conversation_that_is_killed_goes_on(stock: StockNix) -> Result<()> {
    let (served, [library, program, other]) = served(stock)?;
    let source = served.source();
    let one = [parsed(&library)?, parsed(&program)?, parsed(&other)?];
    let expected = source.path_infos(&one)?;
    ensure!(expected.iter().all(Option::is_some));
    // While nobody asks: the next question makes a new connection.
    for _ in 0..3 {
        ensure!(served.daemon.kill_conversations()? > 0);
        ensure!(source.path_infos(&one)? == expected);
    }
    // While somebody does.
    let many: Vec<StorePath> = one.iter().cloned().cycle().take(3000).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let killer = scope.spawn(|| {
            let mut killed = 0;
            // Rarer and rarer, so that something is answered on a machine that is busy, too.
            let mut pause = Duration::from_millis(10);
            while !is_over.load(Ordering::Relaxed) {
                killed += served.daemon.kill_conversations().unwrap_or(0);
                thread::sleep(pause);
                pause = (pause * 3 / 2).min(Duration::from_secs(3));
            }
            killed
        });
        let (mut whole, mut broken) = (0, 0);
        let end = Instant::now() + Duration::from_secs(60);
        while whole < 3 && Instant::now() < end {
            match source.path_infos(&many) {
                Ok(infos) => {
                    ensure!(infos.len() == 3000 && infos.chunks(3).all(|infos| infos == expected));
                    whole += 1;
                }
                Err(superpose_metadata::Error::Daemon { .. }) => broken += 1,
                Err(other) => return Err(other.into()),
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let killed = killer.join().unwrap();
        ensure!(
            whole > 0 && killed > 0,
            "{whole} whole, {broken} broken, {killed} killed"
        );
        Ok(())
    })
}

fn a_daemon_that_starts_anew_is_found_again(stock: StockNix) -> Result<()> {
    let (served, [library, ..]) = served(stock)?;
    let source = served.source();
    let library = [parsed(&library)?];
    ensure!(source.are_valid(&library)? == [true]);
    let Served { layers, daemon } = served;
    let socket = daemon.socket().to_owned();
    drop(daemon);
    // For a moment nobody listens.
    let again = thread::scope(|scope| {
        let again = scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            StockDaemon::start(stock, layers.lower_url(), &socket)
        });
        ensure!(source.are_valid(&library)? == [true]);
        again.join().unwrap()
    })?;
    drop(again);
    let error = source.are_valid(&library).unwrap_err();
    ensure!(error.to_string().contains("cannot connect"), "{error}");
    Ok(())
}

/// `auto`, by the state directory and the socket that are there.
fn whichever_store_is_there_is_taken(stock: StockNix) -> Result<()> {
    let (served, [library, ..]) = served(stock)?;
    let real = format!("?real={}", served.layers.lower_dir().display());
    let auto = |state: &str, socket: &str| -> Result<Invocation> {
        let auto = superpose()?.env("NIX_STATE_DIR", served.layers.join(state));
        let auto = auto.env("NIX_DAEMON_SOCKET_PATH", served.layers.join(socket));
        Ok(auto.arg("--store").arg(format!("auto{real}")))
    };
    let kind = |state, socket| -> Result<_> {
        let status = auto(state, socket)?.args(["status", "--json"]).run()?;
        Ok(status.json()?["kind"].clone())
    };
    ensure!(kind("lower/nix/var/nix", "daemon")? == "local");
    ensure!(kind("nowhere", "daemon")? == "daemon");
    ensure!(kind("nowhere", "nothing")? == "local");
    auto("nowhere", "daemon")?
        .args(["path-info", &library])
        .succeed()?;
    // The short names of the same daemon.
    for url in ["daemon", "unix://"] {
        let asked = superpose()?.env("NIX_DAEMON_SOCKET_PATH", served.daemon.socket());
        asked
            .args(["--store", url, "check-validity", &library])
            .succeed()?;
    }
    Ok(())
}

fn an_overlay_lies_over_a_daemon_that_serves_an_overlay(stock: StockNix) -> Result<()> {
    let middle = Layers::new()?;
    let base = middle.add_tree_below("base", &[])?;
    let _mount = middle.mount()?;
    let own = middle.add_above("own", "own\n", &[&base])?;
    let socket = middle.join("daemon");
    let _daemon = StockDaemon::start(stock, middle.url(), &socket)?;
    let top = Layers::new()?;
    let below = format!("unix://{}?root={}", socket.display(), middle.root().display());
    let url = top.url_over(below.as_ref());
    let superpose = || Ok::<_, anyhow::Error>(superpose()?.arg("--store").arg(&url));
    superpose()?
        .arg("mount")
        .arg("--workdir")
        .arg(top.work())
        .succeed()?;
    let file = top.file("above", "above\n")?;
    let added = superpose()?
        .args(["add", "--reference", &own])
        .arg(file)
        .succeed()?;
    let above = added.line()?.to_owned();
    let closure = superpose()?.args(["path-info", "-r", &above]).succeed()?;
    ensure!(
        closure.text()? == format!("{base}\n{own}\n{above}\n"),
        "{closure}"
    );
    superpose()?.args(["verify", "--check-contents"]).succeed()?;
    superpose()?.arg("gc").succeed()?;
    superpose()?.args(["check-validity", &above]).exit_with(1)?;
    superpose()?.args(["check-validity", &own, &base]).succeed()?;
    superpose()?.arg("umount").succeed()?;
    Ok(())
}

fn a_daemon_below_that_is_not_there_stops_what_needs_it(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let below = layers.add_tree_below("below", &[])?;
    let _mount = layers.mount()?;
    let socket = layers.join("daemon");
    let url = layers.url_over(&layers.daemon_url(&socket));
    let superpose = || Ok::<_, anyhow::Error>(superpose()?.arg("--store").arg(&url));
    let daemon = StockDaemon::start(stock, layers.lower_url(), &socket)?;
    let file = layers.file("above", "above\n")?;
    let added = superpose()?
        .args(["add", "--reference", &below])
        .arg(file)
        .succeed()?;
    let above = added.line()?.to_owned();
    drop(daemon);
    // What is known above needs nobody, and nothing is taken for not valid because nobody can be asked.
    superpose()?.args(["check-validity", &above, &below]).succeed()?;
    let unknown = format!("/nix/store/{}-unknown", "0".repeat(32));
    for arguments in [
        &["check-validity", &unknown][..],
        &["path-info", "--all"],
        &["delete", &above],
        &["status"],
    ] {
        let failed = superpose()?.args(arguments).exit_with(1)?;
        let said = format!("{}{}", failed.errors(), failed.text()?);
        ensure!(
            said.contains("cannot connect to the Nix daemon") && said.contains("daemon`"),
            "{failed}"
        );
    }
    superpose()?.args(["check-validity", &above]).succeed()?;
    let daemon = StockDaemon::start(stock, layers.lower_url(), &socket)?;
    superpose()?.args(["verify", "--check-contents"]).succeed()?;
    drop(daemon);
    // A collection that finds nothing of which the lower store has a copy has nothing to ask.
    superpose()?.arg("gc").succeed()?;
    superpose()?.args(["check-validity", &above]).exit_with(1)?;
    Ok(())
}
