// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our client on our server: a store behind `superpose serve`, as a source and as a store that is asked.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use superpose_metadata::{DaemonSource, MetadataSource, OpenDaemon};
use superpose_store_path::{StoreDir, StorePath};
use superpose_tests::{Layers, Suite, SuperposeDaemon, Tree, superpose, trials};

use crate::backend_suite::{fixture, questions};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        a_server_answers_what_every_source_answers,
        questions_are_answered_as_by_the_store_itself,
        large_batches_are_answered_in_order,
        nothing_is_changed_through_a_server,
        a_server_that_starts_anew_is_found_again
    );
}

fn source(socket: &Path, connections: usize) -> DaemonSource {
    let mut options = OpenDaemon::new(socket, StoreDir::default());
    options.connections = connections;
    DaemonSource::new(options)
}

/// A library, a program that refers to it, and their server.
fn served() -> Result<(Layers, SuperposeDaemon, [String; 2])> {
    let layers = Layers::new()?;
    let library = layers.add_tree_below("library", &[])?;
    let program = layers.add_tree_below("program", &[&library])?;
    let daemon = SuperposeDaemon::start(layers.lower_url(), &layers.join("daemon"))?;
    Ok((layers, daemon, [library, program]))
}

fn parsed(paths: &[String]) -> Result<Vec<StorePath>> {
    let dir = StoreDir::default();
    let paths = paths.iter().map(|path| Ok(dir.parse_path(path.as_bytes())?));
    paths.collect()
}

/// The suite of all backends.
fn a_server_answers_what_every_source_answers() -> Result<()> {
    let state = fixture::State::with_sample();
    let top = Layers::new()?;
    let real = top.join("real");
    fs::create_dir(&real)?;
    let dir = state.dir();
    let url = format!(
        "local?state={}&real={}",
        dir.parent().unwrap_or(&dir).display(),
        real.display()
    );
    let daemon = SuperposeDaemon::start(url, &top.join("daemon"))?;
    for connections in [1, 2] {
        questions::check(&source(daemon.socket(), connections));
    }
    Ok(())
}

fn questions_are_answered_as_by_the_store_itself() -> Result<()> {
    let (layers, daemon, [library, program]) = served()?;
    let url = layers.daemon_url(daemon.socket());
    let unknown = format!("/nix/store/{}-unknown", "0".repeat(32));
    let hash_part = &library["/nix/store/".len()..][..32];
    let questions: &[&[&str]] = &[
        &["path-info", "-r", &program],
        &["path-info", "-r", "-s", "-S", &program],
        &["path-info", "--json", &unknown, &library],
        &["path-info", &unknown],
        &["query", "--references", &program],
        &["query", "--referrers", &library],
        &["query", "--referrers-closure", &library],
        &["query", "--deriver", &program],
        &["query", "--hash", &program],
        &["query", "--hash-part", hash_part],
        &["check-validity", "--print-invalid", &program, &unknown],
        &["dump", &library],
        &["export", &program, &library],
    ];
    for question in questions {
        let expected = layers.below()?.args(*question).run()?;
        let found = superpose()?.arg("--store").arg(&url).args(*question).run()?;
        ensure!(
            (found.code(), &found.stdout) == (expected.code(), &expected.stdout),
            "{expected}\n{found}"
        );
    }
    Ok(())
}

/// More than either side answers or holds at once, by one connection and by several.
fn large_batches_are_answered_in_order() -> Result<()> {
    let (_layers, daemon, paths) = served()?;
    let mut one = parsed(&paths)?;
    one.extend(parsed(&[format!("/nix/store/{}-unknown", "0".repeat(32))])?);
    let many: Vec<StorePath> = one.iter().cloned().cycle().take(30_000).collect();
    for connections in [1, 3] {
        let source = source(daemon.socket(), connections);
        let expected = source.path_infos(&one)?;
        ensure!(
            expected.iter().map(Option::is_some).eq([true, true, false]),
            "{expected:?}"
        );
        let infos = source.path_infos(&many)?;
        ensure!(infos.len() == many.len() && infos.chunks(3).all(|infos| infos == expected));
    }
    Ok(())
}

fn nothing_is_changed_through_a_server() -> Result<()> {
    let (layers, daemon, [library, program]) = served()?;
    let url = layers.daemon_url(daemon.socket());
    let before = Tree::of(&layers.lower())?;
    let superpose = || Ok::<_, anyhow::Error>(superpose()?.arg("--store").arg(&url));
    superpose()?
        .args(["path-info", "-r", "--json", &program])
        .succeed()?;
    superpose()?.args(["path-info", "--all"]).succeed()?;
    for arguments in [&["delete", &library][..], &["gc"], &["ensure", &library]] {
        let refused = superpose()?.args(arguments).exit_with(2)?;
        ensure!(refused.errors().contains("is only asked"), "{refused}");
    }
    before.expect_unchanged(&layers.lower())
}

fn a_server_that_starts_anew_is_found_again() -> Result<()> {
    let (layers, daemon, paths) = served()?;
    let paths = parsed(&paths)?;
    let socket = daemon.socket().to_owned();
    let source = source(&socket, 1);
    ensure!(source.are_valid(&paths)? == [true, true]);
    drop(daemon);
    // For a moment nobody listens.
    let again = thread::scope(|scope| {
        let again = scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            SuperposeDaemon::start(layers.lower_url(), &socket)
        });
        ensure!(source.are_valid(&paths)? == [true, true]);
        again.join().unwrap()
    })?;
    drop(again);
    let error = source.are_valid(&paths).unwrap_err();
    ensure!(error.to_string().contains("cannot connect"), "{error}");
    Ok(())
}
